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
first fast, then averaging the noise of the batches away.  c (`visiting.crowding`) is one unless the
patterns of a batch lie too close together.

A shift by a remainder is interpolated between shifts by a few fixed ones
(`visiting.shift_nodes_px`): so a visit costs the two transforms of its exit waves, and a change of
the probe a fixed number of them.

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
from ptychodus_torch_plugin.deflection import moment_weights
from ptychodus_torch_plugin.exposures import Exposures, displacement_figures
from ptychodus_torch_plugin.lattice import Lattice
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
from ptychodus_torch_plugin.visiting import PoolVisits

FIRST_PROBE_SWEEP = 1
"""The first sweep (from 0) that may update the probe: the object has to take shape first."""

PROBE_INTERVAL, PROBE_UPDATES = 8, 16
"""Every so many batches the probe is updated, or as often as makes so many updates a sweep."""


@dataclass(frozen=True)
class Sweep:
    """Settings of one sweep: damping a, length of the step, momentum and deflection after it."""

    damping: float
    step: float
    momentum: float
    deflection: float = 0.0


def schedule(config: SweepConfig, n_sweeps: int) -> list[Sweep]:
    """Return `n_sweeps` sweeps: accelerated ones, then `config.settling_sweeps` settling ones."""
    settling = min(config.settling_sweeps, n_sweeps - 1)
    dampings = np.geomspace(config.damping_start, config.damping_end, n_sweeps - settling)
    after = config.momentum, config.deflection_gain
    accelerated = [Sweep(float(damping), 1.0, *after) for damping in dampings]
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


def first_probe(scan: ScanData, config: SweepConfig) -> Complex:
    """Return the scan's probe with the wanted number of modes, scaled to its counts.

    A background is no light of the probe, and left out.

    A probe that will be refined anyway is also tilted so that its far field lies where the mean
    pattern does: a beam off the detector's centre must not end up as a ramp in the object's phase.
    """
    probe, valid = with_modes(scan.probe, config.probe_modes), scan.valid_pixels
    if config.refine_probe:
        tilt = tilt_px(scan.signal_pattern() * valid, far_field_counts(probe) * valid)
        probe = probe * ramp(valid.shape, tilt, scan.n_px)
    return scale_probe(probe, scan.mean_signal(), valid)


def drift_px(probe: Complex, home: tuple[float, float]) -> tuple[int, int]:
    """Return by how many whole pixels the probe has left the centre `home` [y, x]."""
    y, x = center_px(probe)
    return round(y - home[0]), round(x - home[1])


@dataclass
class SweepState:
    """What sweeps change: object (h, w) and probe (m, N, N), both complex128 here.

    `exposures` are there once intensities or positions have been refined.
    """

    object_: Complex
    probe: Complex
    exposures: Exposures | None = None


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
    visits = _Visits(scan, config, state, pool)
    for number, sweep in enumerate(sweeps):
        object_before, probe_before = state.object_.copy(), state.probe.copy()
        refine = config.refine_probe and number >= FIRST_PROBE_SWEEP
        drawn = batches(pool, config.batch_size, seed, number)
        for k, chosen in enumerate(drawn, 1):
            due = refine and k % probe_interval(len(drawn)) == 0
            visits.update(state, chosen, sweep, refine_probe=due)
        phase = None
        if sweep.deflection:
            phase = visits.missing_phase(state.object_ * object_before.conj())
        object_velocity = sweep.momentum * object_velocity + (state.object_ - object_before)
        state.object_ += sweep.momentum * object_velocity
        if refine:
            beta = min(config.probe_momentum, sweep.momentum)
            probe_velocity = beta * probe_velocity + (state.probe - probe_before)
            state.probe += beta * probe_velocity
            _undo_net(visits.lattice, state, object_velocity, probe_velocity)
            _keep_gauge(state, object_velocity, probe_velocity, energy, home)
        if phase is not None:
            factor = np.exp(1j * sweep.deflection * phase)
            state.object_ *= factor
            object_velocity *= factor
        if visits.refinement.wanted:
            grown = visits.correct(number, sweep.step)
            state.object_ *= grown
            object_velocity *= grown
    if visits.refinement.wanted:
        state.exposures = visits.completed(state, pool)
    if config.refine_probe:
        tilt = tilt_px(far_field_counts(state.probe), far_field_counts(probe_at_start))
        state.probe *= ramp((scan.n_px, scan.n_px), tilt, scan.n_px).conj()
        state.object_ *= ramp(scan.frame.shape, tilt, scan.n_px)


class _Visits(PoolVisits):
    """Visits patterns of a scan; see the top of this module."""

    def __init__(
        self, scan: ScanData, config: SweepConfig, state: SweepState, pool: IndexArray
    ) -> None:
        super().__init__(scan, scan.valid_pixels, state.probe, config, pool, state.exposures)
        self._scan = scan
        self._dark = np.zeros(()) if scan.background is None else scan.background
        self._moments = moment_weights(scan.valid_pixels)

    def completed(self, state: SweepState, pool: IndexArray) -> Exposures:
        """Return all exposures, those of patterns outside the pool, too."""
        exposures = self.refinement.outcome()
        others = np.setdiff1d(np.arange(self._scan.n_patterns), pool)
        if not (len(others) and self._config.refine_intensity):
            return exposures
        positions_px = exposures.positions_px[others]
        where = self._scan.frame.corners(positions_px, self._scan.n_px)
        expected = physics.predict_counts(state.object_, state.probe, *where)
        expected *= exposures.intensities[others, None, None]
        return exposures.scaled(others, *self._noted(expected, others)[:, :2].T)

    def _noted(self, intensity: Real, chosen: IndexArray) -> Real:
        """Return the moments (b, 8) of expected intensities (b, N, N) and of measured counts."""
        counts = self._scan.patterns[chosen].astype(np.float64) - self._dark
        both = [each.reshape(len(each), -1) @ self._moments for each in (intensity, counts)]
        return np.stack(both, axis=-1).reshape(len(chosen), -1)

    def update(
        self, state: SweepState, chosen: IndexArray, sweep: Sweep, *, refine_probe: bool
    ) -> None:
        scan, corners = self._scan, self._corners[chosen]
        power = np.sum(np.abs(state.probe) ** 2, axis=0)
        fitted = self._fitted(sweep)
        floor = fitted.damping * power.max() + (1 - fitted.damping) * power
        weights, pull_weights = self._weights[chosen], self._pull_weights[chosen]
        probes = self._shifted(state.probe, weights)
        pulls = self._shifted(state.probe.conj() / floor, pull_weights)
        patches = physics.gather_patches(state.object_, corners, scan.n_px)[:, None]
        waves = physics.far_field(probes * patches)
        counts = scan.patterns[chosen]
        wanted = physics.impose_counts(waves, counts, scan.valid_pixels, self._dark)
        change = physics.near_field(wanted - waves)
        if self.refinement.noted:
            moments = self._noted(np.sum(np.abs(waves) ** 2, axis=1), chosen)
            displacement = displacement_figures(patches[:, 0], probes, change)
            self.refinement.figures[chosen] = np.hstack([moments, displacement])
        step = fitted.step * np.sum(pulls * change, axis=1)
        physics.scatter_patches(step, corners, state.object_)
        if refine_probe:
            config = self._config
            seen = np.sum(np.abs(patches) ** 2, axis=(0, 1))
            floor = config.probe_damping * seen.max() + (1 - config.probe_damping) * seen
            total = self._shifted_back(patches.conj() * change, pull_weights)
            state.probe += self._probe_length(sweep) * total / floor

    def _shifted(self, waves: Complex, weights: Real) -> Complex:
        """Return waves (m, N, N) shifted as `weights` (b, k) of the nodes say: (b, m, N, N)."""
        bank = physics.shift_probe(waves, self._nodes_px)
        return np.asarray(np.tensordot(weights, bank, axes=1))

    def _shifted_back(self, waves: Complex, weights: Real) -> Complex:
        """Return the sum (m, N, N) of waves (b, m, N, N), each shifted back by its remainder."""
        bank = np.tensordot(weights.T, waves, axes=1)
        parts = [
            physics.shift_probe(wave, -node[None])[0]
            for wave, node in zip(bank, self._nodes_px, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0))


def _undo_net(
    lattice: Lattice | None, state: SweepState, object_velocity: Complex, probe_velocity: Complex
) -> None:
    """Undo what a regular scan cannot know: functions that repeat from position to position."""
    if lattice is None:
        return
    of_probe, of_object = lattice.factors(state.probe)
    for array in (state.probe, probe_velocity):
        array *= of_probe
    for array in (state.object_, object_velocity):
        array *= of_object


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
