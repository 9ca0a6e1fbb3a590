"""Whole-scan physics sweeps: the schedule that every backend follows, and the plain NumPy oracle.

One sweep visits every pattern once, in seeded batches.  With exit waves psi_jm = P_jm o_j, where
P_jm is mode m shifted by the sub-pixel remainder of position j and o_j the patch of the object
there, and the change Delta psi_jm that the measured counts demand (`physics.impose_counts`), a
batch updates

    O += t / c sum_j sum_m shift(conj(P_m) / (a max w + (1 - a) w), r_j) Delta psi_jm,
    w = sum_m |P_m|^2

and every few batches (`probe_interval`), when the probe is refined,

    P_m += t s shift(sum_j conj(o_j) Delta psi_jm, -r_j) / (b max D + (1 - b) D),
    D = sum_j |o_j|^2

(the regularised update of Maiden, Johnson & Li, Optica 4, 736, 2017, for several patterns and modes
at once).  After each sweep the whole step is repeated with momentum.  The damping a grows
geometrically from sweep to sweep, and the last sweeps settle with shorter and shorter steps t:
first fast, then averaging the noise of the batches away.  c (`crowding`) is one unless the patterns
of a batch lie on top of each other.

A shift by a remainder is interpolated between shifts by a few fixed ones (`shift_nodes_px`): so a
visit costs the two transforms of its exit waves, and a change of the probe a fixed number of them.

What the data cannot know stays where the first probe put it: after each sweep the probe's energy
and its place to a whole pixel, at the end the tilt of its far field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.arrays import IndexArray, PositionArray
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.physics import Complex, Real
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

PROBE_INTERVAL, PROBE_UPDATES = 8, 8
"""Every so many batches the probe is updated, or as often as makes so many updates a sweep."""

NODES = 3
"""Nodes of the interpolated shift along each axis.

Interpolation between Chebyshev nodes errs by less than 2 / n! (pi f / 2)^n of a wave of f cycles
per pixel: 0.0026 at f = 1/8, where the far field of a probe that is sampled twice as finely as it
has to be ends.
"""


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


def probe_interval(n_batches: int) -> int:
    """Return after how many batches the probe is updated, in sweeps of `n_batches`."""
    return min(PROBE_INTERVAL, max(1, n_batches // PROBE_UPDATES))


def shift_nodes_px(remainders_px: PositionArray) -> tuple[PositionArray, Real]:
    """Return shifts between which those by `remainders_px` (n, 2) are interpolated.

    Returns
    -------
    nodes_px : (k, 2) float64
        Shifts [dy, dx]: a grid of Chebyshev's nodes on [-0.5, 0.5], or one of zero if all
        remainders are zero.
    weights : (n, k) float32
        What each counts for each remainder: products of Lagrange's polynomials.
    """
    if not np.any(remainders_px):
        return np.zeros((1, 2)), np.ones((len(remainders_px), 1), np.float32)
    line = np.cos((2 * np.arange(NODES) + 1) * np.pi / (2 * NODES)) / 2
    axes = np.ones((2, NODES, len(remainders_px)), np.float32)
    for k, node in enumerate(line):
        for other in np.delete(line, k):
            axes[:, k] *= (remainders_px.T - other) / (node - other)
    weights = (axes[0][:, None] * axes[1]).reshape(NODES**2, -1).T
    nodes = np.stack(np.meshgrid(line, line, indexing='ij'), axis=-1).reshape(-1, 2)
    return nodes, np.ascontiguousarray(weights)


def crowding(corners: IndexArray, probe: Complex, batch_size: int) -> float:
    """Return how many patterns of a batch share a place, or one if fewer do.

    Parameters
    ----------
    corners : (n, 2) int64
        First pixels of the patches that batches are drawn from.
    probe : (m, N, N) complex
        Two patterns share a place if they start in the same square; it has the area that the beam
        would have at its peak intensity throughout.
    batch_size
        Patterns of a batch.
    """
    power = np.sum(np.abs(np.asarray(probe, np.complex128)) ** 2, axis=0)
    side_px = max(1, round(float(np.sqrt(power.sum() / power.max()))))
    _, counts = np.unique(corners // side_px, axis=0, return_counts=True)
    return max(1.0, min(batch_size, len(corners)) * float(np.sum((counts / len(corners)) ** 2)))


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
    visits = _Visits(scan, config, state.probe, pool)
    for number, sweep in enumerate(sweeps):
        object_before, probe_before = state.object_.copy(), state.probe.copy()
        refine = config.refine_probe and number >= FIRST_PROBE_SWEEP
        drawn = batches(pool, config.batch_size, seed, number)
        for k, chosen in enumerate(drawn, 1):
            due = refine and k % probe_interval(len(drawn)) == 0
            visits.update(state, chosen, sweep, refine_probe=due)
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


class _Visits:
    """Visits patterns of a scan; see the top of this module."""

    def __init__(
        self, scan: ScanData, config: SweepConfig, probe: Complex, pool: IndexArray
    ) -> None:
        self._scan, self._config = scan, config
        self._corners, remainders = scan.frame.corners(scan.positions_px, scan.n_px)
        self._nodes_px, self._weights = shift_nodes_px(remainders)
        self._crowding = crowding(self._corners[pool], probe, config.batch_size)

    def update(
        self, state: SweepState, chosen: IndexArray, sweep: Sweep, *, refine_probe: bool
    ) -> None:
        scan, corners = self._scan, self._corners[chosen]
        power = np.sum(np.abs(state.probe) ** 2, axis=0)
        floor = sweep.damping * power.max() + (1 - sweep.damping) * power
        probes = self._shifted(state.probe, chosen)
        pulls = self._shifted(state.probe.conj() / (self._crowding * floor), chosen)
        patches = physics.gather_patches(state.object_, corners, scan.n_px)[:, None]
        waves = physics.far_field(probes * patches)
        wanted = physics.impose_counts(waves, scan.patterns[chosen], scan.valid_pixels)
        change = physics.near_field(wanted - waves)
        step = sweep.step * np.sum(pulls * change, axis=1)
        physics.scatter_patches(step, corners, state.object_)
        if refine_probe:
            config = self._config
            seen = np.sum(np.abs(patches) ** 2, axis=(0, 1))
            floor = config.probe_damping * seen.max() + (1 - config.probe_damping) * seen
            total = self._shifted_back(patches.conj() * change, chosen)
            state.probe += sweep.step * config.probe_step * total / floor

    def _shifted(self, waves: Complex, chosen: IndexArray) -> Complex:
        """Return waves (m, N, N) shifted by the remainders of patterns `chosen`: (b, m, N, N)."""
        bank = physics.shift_probe(waves, self._nodes_px)
        return np.asarray(np.tensordot(self._weights[chosen], bank, axes=1))

    def _shifted_back(self, waves: Complex, chosen: IndexArray) -> Complex:
        """Return the sum (m, N, N) of waves (b, m, N, N), each shifted back by its remainder."""
        bank = np.tensordot(self._weights[chosen].T, waves, axes=1)
        parts = [
            physics.shift_probe(wave, -node[None])[0]
            for wave, node in zip(bank, self._nodes_px, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0))


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
