"""Whole-scan physics sweeps: the schedule that every backend follows, and the plain NumPy oracle.

One sweep visits every pattern once, in seeded batches.  With exit waves psi_jm = P_jm o_j, where
P_jm is mode m shifted by the sub-pixel remainder of position j and o_j the patch of the object
there, and the change Delta psi_jm that the measured counts demand (`physics.impose_counts`), a
batch updates

    O += t sum_j sum_m conj(P_jm) Delta psi_jm / (a max|P|^2 + (1 - a) sum_j |P_j|^2)

and, when the probe is refined, shifted back by the remainder,

    P_m += t s sum_j conj(o_j) Delta psi_jm / (b max D + (1 - b) D),   D = sum_j |o_j|^2

(the regularised update of Maiden, Johnson & Li, Optica 4, 736, 2017, for several patterns and modes
at once).  After each sweep the whole step is repeated with momentum.  The damping a grows
geometrically from sweep to sweep, and the last sweeps settle with shorter and shorter steps t:
first fast, then averaging the noise of the batches away.

What the data cannot know stays where the first probe put it: after each sweep the probe's energy
and its place to a whole pixel, at the end the tilt of its far field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.arrays import IndexArray
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.physics import Complex
from ptychodus_torch_plugin.probes import (
    center_px,
    far_field_counts,
    ramp,
    scale_probe,
    tilt_px,
    with_modes,
)
from ptychodus_torch_plugin.scan import ScanData

FIRST_PROBE_SWEEP = 1
"""The first sweep (from 0) that may update the probe: the object has to take shape first."""


@dataclass(frozen=True)
class Sweep:
    """Settings of one sweep: damping a, length of the step, momentum after it."""

    damping: float
    step: float
    momentum: float


def schedule(config: SweepConfig, n_sweeps: int) -> list[Sweep]:
    """Return `n_sweeps` sweeps: accelerated ones, then `config.settling_sweeps` settling ones."""
    settling = min(config.settling_sweeps, n_sweeps - 1)
    dampings = np.geomspace(config.damping_start, config.damping_end, n_sweeps - settling)
    accelerated = [Sweep(float(damping), 1.0, config.momentum) for damping in dampings]
    return accelerated + settling_schedule(settling)


def settling_schedule(n_sweeps: int) -> list[Sweep]:
    """Return sweeps of full damping, no momentum, and steps 1, 1/2, 1/4, 1/8, 1/8, ...

    The patterns of a batch push the object by their noise, and momentum repeats it; smaller and
    smaller steps average that away.
    """
    return [Sweep(1.0, 0.5 ** min(k, 3), 0.0) for k in range(n_sweeps)]


def batches(pool: IndexArray, batch_size: int, seed: int, sweep: int) -> list[IndexArray]:
    """Return the indices `pool` (k,) int64 in the seeded order of one sweep, cut into batches."""
    order = np.random.default_rng([seed, sweep]).permutation(pool)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def first_probe(scan: ScanData, config: SweepConfig) -> Complex:
    """Return the scan's probe with the wanted number of modes, scaled to its counts.

    A probe that will be refined anyway is also tilted so that its far field lies where the mean
    pattern does: a beam off the detector's centre must not end up as a ramp in the object's phase.
    """
    probe, valid = with_modes(scan.probe, config.probe_modes), scan.valid_pixels
    if config.refine_probe:
        tilt = tilt_px(scan.mean_pattern() * valid, far_field_counts(probe) * valid)
        probe = probe * ramp(valid.shape, tilt, scan.n_px)
    return scale_probe(probe, scan.mean_counts(), valid)


def drift_px(probe: Complex, home: tuple[float, float]) -> tuple[int, int]:
    """Return by how many whole pixels the probe has left the centre `home` [y, x]."""
    y, x = center_px(probe)
    return round(y - home[0]), round(x - home[1])


@dataclass
class SweepState:
    """What sweeps change: object (h, w) and probe (m, N, N), both complex128 here."""

    object_: Complex
    probe: Complex


def sweep_oracle(
    scan: ScanData,
    state: SweepState,
    config: SweepConfig,
    sweeps: Sequence[Sweep],
    *,
    pool: IndexArray | None = None,
    seed: int = 0,
) -> None:
    """Run plain `sweeps` on `state`, in place; slow, for tests and for reading."""
    pool = np.arange(scan.n_patterns) if pool is None else pool
    energy, home = float(np.sum(np.abs(state.probe) ** 2)), center_px(state.probe)
    probe_at_start = state.probe.copy()
    object_velocity, probe_velocity = np.zeros_like(state.object_), np.zeros_like(state.probe)
    for number, sweep in enumerate(sweeps):
        object_before, probe_before = state.object_.copy(), state.probe.copy()
        refine = config.refine_probe and number >= FIRST_PROBE_SWEEP
        for chosen in batches(pool, config.batch_size, seed, number):
            _update(scan, state, config, chosen, sweep, refine_probe=refine)
        object_velocity = sweep.momentum * object_velocity + (state.object_ - object_before)
        state.object_ += sweep.momentum * object_velocity
        if refine:
            beta = min(config.probe_momentum, sweep.momentum)
            probe_velocity = beta * probe_velocity + (state.probe - probe_before)
            state.probe += beta * probe_velocity
            _keep_gauge(state, object_velocity, probe_velocity, energy, home)
    if config.refine_probe:
        tilt = tilt_px(far_field_counts(state.probe), far_field_counts(probe_at_start))
        state.probe *= ramp((scan.n_px, scan.n_px), tilt, scan.n_px).conj()
        state.object_ *= ramp(scan.frame.shape, tilt, scan.n_px)


def _update(
    scan: ScanData,
    state: SweepState,
    config: SweepConfig,
    chosen: IndexArray,
    sweep: Sweep,
    *,
    refine_probe: bool,
) -> None:
    corners, remainders = scan.frame.corners(scan.positions_px[chosen], scan.n_px)
    probes = physics.shift_probe(state.probe, remainders)
    patches = physics.gather_patches(state.object_, corners, scan.n_px)[:, None]
    waves = physics.far_field(probes * patches)
    wanted = physics.impose_counts(waves, scan.patterns[chosen], scan.valid_pixels)
    change = physics.near_field(wanted - waves)

    step, weight = np.zeros_like(state.object_), np.zeros(state.object_.shape)
    physics.scatter_patches(np.sum(probes.conj() * change, axis=1), corners, step)
    physics.scatter_patches(np.sum(np.abs(probes) ** 2, axis=1), corners, weight)
    strongest = np.sum(np.abs(state.probe) ** 2, axis=0).max()
    floor = sweep.damping * strongest + (1 - sweep.damping) * weight
    state.object_ += sweep.step * step / floor

    if refine_probe:
        back = [
            physics.shift_probe(c, -r[None])[0]
            for c, r in zip(patches.conj() * change, remainders, strict=True)
        ]
        seen = np.sum(np.abs(patches) ** 2, axis=(0, 1))
        floor = config.probe_damping * seen.max() + (1 - config.probe_damping) * seen
        state.probe += sweep.step * config.probe_step * np.sum(back, axis=0) / floor


def _keep_gauge(
    state: SweepState,
    object_velocity: Complex,
    probe_velocity: Complex,
    energy: float,
    home: tuple[float, float],
) -> None:
    """Undo what the data cannot know: how energy and place are shared by probe and object."""
    factor = np.sqrt(energy / float(np.sum(np.abs(state.probe) ** 2)))
    shift = [-d for d in drift_px(state.probe, home)]
    for array, scale in (
        (state.object_, 1 / factor),
        (object_velocity, 1 / factor),
        (state.probe, factor),
        (probe_velocity, factor),
    ):
        array[...] = np.roll(array * scale, shift, axis=(-2, -1))
