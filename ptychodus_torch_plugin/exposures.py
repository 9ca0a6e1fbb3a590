"""What sweeps may refine of each pattern: how bright the beam was, and where.

During a sweep each visit takes down some figures (`FIGURES`); after it, all intensities and
positions are corrected from them at once.  Axes: n pattern, f figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ptychodus_torch_plugin.arrays import IndexArray, PositionArray
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.physics import MIN_INTENSITY, Complex, Real

MOMENTS, FIGURES = 8, 13
"""Of a visit: the four moments (`deflection.moment_weights`) of the expected counts, and between
them those of the measured ones, without background; first both totals.  Then g_y, g_x, h_yy, h_xx,
h_xy of `displacement_figures`."""

FIRST_INTENSITY_SWEEP = FIRST_POSITION_SWEEP = 2
"""The first sweeps (from 0) after which they are corrected: the object has to take shape first."""

INTENSITY_STEP = 0.5
"""Exponent of the ratio of measured to expected totals by which an intensity is corrected."""

INTENSITY_RANGE = 0.1, 10.0
"""Smallest and largest intensity of a pattern; the mean is 1."""

POSITION_STEP_PX, POSITION_RANGE_PX = 0.3, 3.0
"""How far a position moves along each axis at most, in a sweep and in all."""

NEIGHBOURS = 4
"""Patterns around one that sweeps never see, from which its displacement is known."""

STIFFNESS = 0.01
"""Share of the mean curvature of all patterns that keeps one without structure where it is."""


@dataclass(frozen=True)
class Exposures:
    """What is known of each pattern.

    Attributes
    ----------
    intensities : (n,) float64
        Intensity of the beam relative to the mean over the patterns in use.
    positions_px : (n, 2) float64
        Patch centres [y, x] on the object grid.
    """

    intensities: Real
    positions_px: PositionArray

    @classmethod
    def of(cls, positions_px: PositionArray) -> Exposures:
        """Return equal intensities at the given positions."""
        return cls(np.ones(len(positions_px)), positions_px)

    def weighed(self, weights: Real) -> tuple[Real, Real]:
        """Return weights (n, k) float32 of shifted probes with the amplitude of each pattern.

        The second ones, for what a pattern pulls, are smaller where the beam was bright: no
        pattern takes a longer step than one of mean intensity.  They are the same array where all
        intensities are 1.
        """
        if np.all(self.intensities == 1):
            return weights, weights
        amplitudes = np.sqrt(self.intensities)[:, None]
        shares = np.maximum(self.intensities, 1.0)[:, None]
        bright = (weights * amplitudes).astype(np.float32)
        return bright, (weights * (amplitudes / shares)).astype(np.float32)

    def scaled(self, chosen: IndexArray, expected: Real, measured: Real) -> Exposures:
        """Return these exposures with the intensities of `chosen` (k,) by their totals (k,)."""
        intensities = self.intensities.copy()
        ratio = measured / np.maximum(expected, MIN_INTENSITY)
        intensities[chosen] = np.clip(intensities[chosen] * ratio, *INTENSITY_RANGE)
        return replace(self, intensities=intensities)


class Refinement:
    """Corrects intensities and positions after each sweep, as far as the settings want it.

    Parameters
    ----------
    frame, n_px
        Canvas and side of a patch: no patch leaves the canvas.
    given_px : (n, 2) float64
        Positions of the scan.
    config
        What is wanted.
    pool : (k,) int64
        Patterns that are corrected.
    start
        What is known of them already.

    Attributes
    ----------
    wanted
        Whether anything of the exposures is to be corrected.
    noted
        How many of the figures each visit has to take down.
    figures : (n, FIGURES) float64
        Those of the last visit of each pattern.
    """

    def __init__(
        self,
        frame: ObjectFrame,
        n_px: int,
        given_px: PositionArray,
        config: SweepConfig,
        pool: IndexArray,
        start: Exposures | None,
    ) -> None:
        self.wanted = config.refine_intensity or config.refine_positions
        self.noted = MOMENTS if self.wanted or config.deflection_gain else 0
        if config.refine_positions:
            self.noted = FIGURES
        self._config, self._pool, self._given_px = config, pool, given_px
        low = np.asarray(frame.origin_px) + (n_px - 1) / 2
        high = low + np.asarray(frame.shape) - n_px
        self._low, self._high = (
            np.clip(given_px + sign * POSITION_RANGE_PX, low, high) for sign in (-1, 1)
        )
        self.exposures = start or Exposures.of(given_px)
        self.figures = np.zeros((len(given_px), FIGURES))

    def moments(self) -> tuple[Real, Real]:
        """Return the moments (k, 4) of the expected and of the measured counts of the pool."""
        noted = self.figures[self._pool]
        return noted[:, :MOMENTS:2], noted[:, 1:MOMENTS:2]

    def correct(self, number: int, step: float) -> float:
        """Correct all after sweep `number` from 0, with steps of that length.

        Returns
        -------
        The factor by which the object has to grow, so that the intensities have a mean of 1.
        """
        factor = 1.0
        if self._config.refine_positions and number >= FIRST_POSITION_SWEEP:
            self._correct_positions(step)
        if self._config.refine_intensity and number >= FIRST_INTENSITY_SWEEP:
            factor = self._correct_intensities(step)
        return factor

    def outcome(self) -> Exposures:
        """Return the exposures; patterns outside the pool are displaced as those around them."""
        others = np.setdiff1d(np.arange(len(self._given_px)), self._pool)
        if not (self._config.refine_positions and len(others)):
            return self.exposures
        positions, given = self.exposures.positions_px.copy(), self._given_px
        displaced = (positions - given)[self._pool]
        wanted = given[others] + displacement_field(given[self._pool], displaced, given[others])
        positions[others] = np.clip(wanted, self._low[others], self._high[others])
        return replace(self.exposures, positions_px=positions)

    def _correct_intensities(self, step: float) -> float:
        expected, measured = self.figures[self._pool, :2].T
        ratio = np.maximum(measured, 0.0) / np.maximum(expected, MIN_INTENSITY)
        lowest, highest = INTENSITY_RANGE
        before = self.exposures.intensities
        after = before.copy()
        corrected = before[self._pool] * np.clip(ratio, lowest, highest) ** (INTENSITY_STEP * step)
        mean = float(corrected.mean())
        after[self._pool] = np.clip(corrected / mean, lowest, highest)
        self.exposures = replace(self.exposures, intensities=after)
        return float(np.sqrt(mean))

    def _correct_positions(self, step: float) -> None:
        moved = displacements_px(self.figures[self._pool, MOMENTS:])
        moved = step * np.clip(moved, -POSITION_STEP_PX, POSITION_STEP_PX)
        positions = self.exposures.positions_px.copy()
        positions[self._pool] += moved
        # A shift of all positions is one of the object: nobody knows it.
        drift = (positions - self._given_px)[self._pool].mean(axis=0)
        positions[self._pool] -= drift
        positions[self._pool] = np.clip(positions, self._low, self._high)[self._pool]
        self.exposures = replace(self.exposures, positions_px=positions)


def displacement_field(
    places: PositionArray, displaced: PositionArray, wanted: PositionArray
) -> PositionArray:
    """Return the displacements at `wanted` (k, 2), from those (n, 2) of other `places` (n, 2).

    An affine map, fitted by least squares, and what it leaves over of the nearest four, on average:
    errors of positions are mostly a wrong scale, a rotation, or a drift.
    """
    from scipy.spatial import cKDTree

    middle = places.mean(axis=0)
    terms, wanted_terms = (np.insert(each - middle, 2, 1, axis=1) for each in (places, wanted))
    affine = np.linalg.lstsq(terms, displaced, rcond=None)[0]
    _, nearest = cKDTree(places).query(wanted, k=min(NEIGHBOURS, len(places)))
    left_over = displaced - terms @ affine
    around = left_over[nearest.reshape(len(wanted), -1)].mean(axis=1)
    return np.asarray(wanted_terms @ affine + around)


def most_moved_px(config: SweepConfig) -> int:
    """Return by how many whole pixels the first pixel of a patch may move."""
    return math.ceil(POSITION_RANGE_PX) if config.refine_positions else 0


def displacement_figures(patches: Complex, probes: Complex, change: Complex) -> Real:
    """Return g_y, g_x, h_yy, h_xx, h_xy for each of n patterns, (n, 5).

    A pattern displaced by d sees its patch o of the object as o + d_y D_y o + d_x D_x o, so that
    its exit waves change by P (d_y D_y o + d_x D_x o).  The change Delta psi that the counts demand
    is nearest to that, in least squares, where h d = g: after Odstrcil, Menzel & Guizar-Sicairos,
    Opt. Express 26, 3108 (2018).

    Parameters
    ----------
    patches : (n, N, N)
        o_j.
    probes, change : (n, m, N, N)
        P_jm and Delta psi_jm.
    """
    y, x = (probes * slope[:, None] for slope in slopes(patches))
    pairs = (y, change), (x, change), (y, y), (x, x), (y, x)
    terms = [np.sum((a.conj() * b).real, axis=(1, 2, 3)) for a, b in pairs]
    return np.stack(terms, axis=1)


def slopes(patches: Complex) -> tuple[Complex, Complex]:
    """Return D_y and D_x of patches (n, N, N): central differences, zero at the edges."""
    y, x = np.zeros_like(patches), np.zeros_like(patches)
    y[:, 1:-1] = (patches[:, 2:] - patches[:, :-2]) / 2
    x[:, :, 1:-1] = (patches[:, :, 2:] - patches[:, :, :-2]) / 2
    return y, x


def displacements_px(figures: Real) -> PositionArray:
    """Return the displacements [dy, dx] (n, 2) of `displacement_figures` (n, 5)."""
    g_y, g_x, h_yy, h_xx, h_xy = figures.T
    floor = STIFFNESS * (h_yy + h_xx).mean() / 2
    h_yy, h_xx = h_yy + floor, h_xx + floor
    determinant = np.maximum(h_yy * h_xx - h_xy**2, np.finfo(float).tiny)
    y = (h_xx * g_y - h_xy * g_x) / determinant
    x = (h_yy * g_x - h_xy * g_y) / determinant
    return np.stack([y, x], axis=1)
