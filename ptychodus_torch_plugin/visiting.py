"""What visits of patterns have in common, whatever computes them.

Where each pattern lies and how bright it is, how far a batch may move object and probe, and what is
learnt from all visits of a sweep.  What a visit computes, and the symbols, are in `sweeps`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ptychodus_torch_plugin.arrays import BoolArray, FloatArray, IndexArray, PositionArray
from ptychodus_torch_plugin.config import ModelConfig, SweepConfig
from ptychodus_torch_plugin.config.model import FEWEST_SWEEPS, MOST_SWEEPS
from ptychodus_torch_plugin.deflection import Deflection
from ptychodus_torch_plugin.exposures import Exposures, Refinement
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.lattice import Lattice
from ptychodus_torch_plugin.physics import Complex, Real

if TYPE_CHECKING:
    from ptychodus_torch_plugin.scan import ScanData
    from ptychodus_torch_plugin.sweeps import Sweep

FEW_PHOTONS = 10.0
"""Photons per pixel of the object below which sweeps are damped in full from the start."""

MOST_CROWDED = 0.75
"""How far a batch moves the object at most, in full steps.

The probe answers the same change once more, and momentum repeats both: by full steps even a right
probe is lost.
"""

USUAL_VISITS, USUAL_LOOKS = 20 * 1024, 80
"""How many visits there are of all patterns, and of those that share a place, in all sweeps where
nobody says how many sweeps.

At 74 % overlap 4 to 7 patterns share a place, and 20 sweeps are enough; at 39 % 1.2 to 1.7, and 80
are not too many.
"""

NODES = 3
"""Nodes of the interpolated shift along each axis.

Interpolation between Chebyshev nodes errs by less than 2 / n! (pi f / 2)^n of a wave of f cycles
per pixel: 0.0026 at f = 1/8, where the far field of a probe that is sampled twice as finely as it
has to be ends.
"""


class Placed(Protocol):
    """A scan, as far as it says where its patterns lie."""

    @property
    def frame(self) -> ObjectFrame:
        """The canvas."""

    @property
    def n_px(self) -> int:
        """Side N of a pattern."""

    @property
    def positions_px(self) -> PositionArray:
        """Patch centres (n, 2) float64 [y, x] on the object grid."""


class PoolVisits:
    """Visits patterns of one scan, from a pool.

    Parameters
    ----------
    scan
        Where the patterns lie.
    valid : (N, N) bool
        Where the detector counts.
    probe : (m, N, N) complex
        The first probe, centred.
    config
        Settings of the sweeps.
    pool : (k,) int64
        Patterns that are visited.
    exposures
        What is known of the patterns already.

    Attributes
    ----------
    refinement
        What the visits take down, and the exposures, which are corrected from it.
    """

    def __init__(
        self,
        scan: Placed,
        valid: BoolArray,
        probe: Complex,
        config: SweepConfig,
        pool: IndexArray,
        exposures: Exposures | None,
    ) -> None:
        probe = probe.copy()  # whose it is will change it
        self._config, self._frame, self._n_px = config, scan.frame, scan.n_px
        where = scan.frame, scan.n_px, scan.positions_px
        self.refinement = Refinement(*where, config, pool, exposures)
        self._place()
        corners = self._corners[pool]
        # Many sweeps and updates ask, with few dampings.
        self._crowding = cache(partial(crowding, corners, probe, config.batch_size))
        self._least_damping = least_damping(corners, probe)
        self._deflection = Deflection(
            scan.frame.shape, corners, probe, valid, free_ramp=config.refine_probe
        )
        self._at_first = scan.positions_px[pool] - scan.frame.origin_px, probe

    @cached_property
    def lattice(self) -> Lattice | None:
        """The lattice of the pool's positions, if they have one; only a refined probe asks."""
        return Lattice.found(*self._at_first, self._frame.shape)

    def _place(self) -> None:
        """Look for all patterns where they lie, and as bright as they are.

        Their first pixels are `_corners` (n, 2) int64.  Of the nodes `_nodes_px` (k, 2) the shifted
        probes have the weights `_weights` (n, k) float32, and what they pull with `_pull_weights`.
        """
        exposures, moving = self.refinement.exposures, self._config.refine_positions
        self._corners, remainders = self._frame.corners(exposures.positions_px, self._n_px)
        self._nodes_px, weights = shift_nodes_px(remainders, moving=moving)
        self._weights, self._pull_weights = exposures.weighed(weights)

    def missing_phase(self, change: Complex) -> FloatArray:
        """Return the slow phase (h, w) that the object lacks after a change; see `Deflection`."""
        expected, measured = self.refinement.moments()
        return self._deflection.phase(measured, expected, change)

    def correct(self, number: int, step: float) -> float:
        """Correct intensities and positions; return by what the object has to grow."""
        grown = self.refinement.correct(number, step)
        self._place()
        return grown

    def _fitted(self, sweep: Sweep) -> Sweep:
        """Return a sweep as the object bears it: damped enough, and a step short enough."""
        damping = raised_damping(sweep.damping, self._config, self._least_damping)
        return replace(sweep, damping=damping, step=sweep.step / self._crowding(damping))

    def _probe_length(self, sweep: Sweep) -> float:
        """Return the length of an update of the probe."""
        return sweep.step * probe_step(self._config, self._least_damping)


def shift_nodes_px(
    remainders_px: PositionArray, *, moving: bool = False
) -> tuple[PositionArray, Real]:
    """Return shifts between which those by `remainders_px` (n, 2) are interpolated.

    They are the same whatever the remainders, if these are `moving`.

    Returns
    -------
    nodes_px : (k, 2) float64
        Shifts [dy, dx]: a grid of Chebyshev's nodes on [-0.5, 0.5], or one of zero if all
        remainders are zero.
    weights : (n, k) float32
        What each counts for each remainder: products of Lagrange's polynomials.
    """
    if not (moving or np.any(remainders_px)):
        return np.zeros((1, 2)), np.ones((len(remainders_px), 1), np.float32)
    line = np.cos((2 * np.arange(NODES) + 1) * np.pi / (2 * NODES)) / 2
    axes = np.ones((2, NODES, len(remainders_px)), np.float32)
    for k, node in enumerate(line):
        for other in np.delete(line, k):
            axes[:, k] *= (remainders_px.T - other) / (node - other)
    weights = (axes[0][:, None] * axes[1]).reshape(NODES**2, -1).T
    nodes = np.stack(np.meshgrid(line, line, indexing='ij'), axis=-1).reshape(-1, 2)
    return nodes, np.ascontiguousarray(weights)


def crowding(corners: IndexArray, probe: Complex, batch_size: int, damping: float) -> float:
    """Return by what to divide steps, so that a batch moves the object by `MOST_CROWDED` at most.

    By one, unless too many patterns of a batch share a place.

    Parameters
    ----------
    corners : (n, 2) int64
        First pixels of the patches that batches are drawn from.
    probe : (m, N, N) complex
        Two patterns share a place if they start in the same square; it has the area that the beam
        would have if it moved all of it as far as it moves its brightest pixel.
    batch_size
        Patterns of a batch.
    damping
        The less, the further dim pixels are moved, and the larger is that area.
    """
    share, _ = _sharing(corners, probe, damping)
    return max(1.0, min(batch_size, len(corners)) * share / MOST_CROWDED)


def sweeps_before(config: ModelConfig, scan: ScanData) -> int:
    """Return the number of sweeps before the network, or that of all sweeps without one.

    If nobody says a number, the more the fewer patterns there are, and the fewer of them share a
    place: what one tells then spreads slowly.  The squares of places are those of `crowding`, fully
    damped.
    """
    if config.sweeps_before is not None:
        return config.sweeps_before
    corners, _ = scan.frame.corners(scan.positions_px, scan.n_px)
    share, _ = _sharing(corners, scan.probe, damping=1.0)
    n_patterns = len(corners)
    wanted = max(USUAL_VISITS / n_patterns, USUAL_LOOKS / (n_patterns * share))
    return min(MOST_SWEEPS, max(FEWEST_SWEEPS, math.ceil(wanted)))


def least_damping(corners: IndexArray, probe: Complex) -> float:
    """Return the damping that a scan needs at least: 1 if it has `FEW_PHOTONS` per pixel, or fewer.

    Small dampings move dimly lit pixels as far as bright ones.  Of few photons that is noise, which
    momentum repeats until it grows.  Photons are those at the peak of a probe that is scaled to the
    counts, of all patterns that share a place; parameters are those of `crowding`, fully damped.
    """
    share, peak = _sharing(corners, probe, damping=1.0)
    photons_per_px = peak * len(corners) * share
    return FEW_PHOTONS / max(photons_per_px, FEW_PHOTONS)


def raised_damping(damping: float, config: SweepConfig, least: float) -> float:
    """Return `damping`, of the course of `config`, as it is when that starts at `least` or above.

    The course stays geometric: were it cut off below `least`, most sweeps would have the same.
    """
    start, end = config.damping_start, config.damping_end
    if start < least < end and damping < end:
        share = math.log(damping / end) / math.log(start / end)
        return end * math.exp(share * math.log(least / end))
    return max(damping, least)


def probe_step(config: SweepConfig, least_damping: float) -> float:
    """Return the length of an update of the probe under a full step of the object.

    Few photons per pixel teach no probe: it is shorter the more a scan has to be damped
    (`least_damping`), and zero where there are `FEW_PHOTONS` or fewer.
    """
    return config.probe_step * (1 - least_damping**2)


def _sharing(corners: IndexArray, probe: Complex, damping: float) -> tuple[float, float]:
    """Return the chance that two patterns share a place, and the peak intensity of the probe."""
    power = np.sum(np.abs(np.asarray(probe, np.complex128)) ** 2, axis=0)
    moved = power / (damping * power.max() + (1 - damping) * power)
    side_px = max(1, round(float(np.sqrt(moved.sum()))))
    rows, columns = (corners // side_px).T
    # One number a square: pairs take forty times as long to sort.
    _, counts = np.unique(rows * (columns.max() + 1) + columns, return_counts=True)
    return float(np.sum((counts / len(corners)) ** 2)), float(power.max())
