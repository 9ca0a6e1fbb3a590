"""Slow variations of the phase, from where the patterns lie on the detector.

Sweeps carry a phase from pattern to pattern, one beam's width at a time: what varies over many
widths takes many sweeps.  But it deflects the beam there, and that shows at once.  If an object o
turns into o exp(i phi), the centre of mass of the far field of an exit wave P o moves by exactly

    <grad phi> / (2 pi)  cycles per pixel,      <.> weighted by |P o|^2

(differential phase contrast: Waddell & Chapman, Optik 54, 83, 1979).  So what a measured pattern is
deflected by and a predicted one is not is a gradient that the object lacks.  `Deflection.phase`
integrates these gradients over the scan, on cells of about an eighth of a pattern:

    phi = argmin  sum_cells W |grad phi - g|^2,      g the mean over patterns, weighted by |P|^2

where W rises from 0 to 1 with the light that fell on a cell.  Of phi no more is taken than its
share 1 - noise / signal (James & Stein, 1961).  What g has that is no gradient tells of the noise,
whatever its source (photons, features finer than the step of the scan, a beam that trembles), for
noise has as much of that as of gradients; the number of photons tells of theirs.

A wrong probe, or anything else that is not in the model, deflects patterns as well.  But sweeps go
down the likelihood, if slowly: so phi is believed as far as it correlates, on scales of the beam,
with the phase by which the last sweep has changed the object itself, and further than it would by
chance: in a scan of few patterns two unrelated phases often seem to agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import BoolArray, FloatArray, IndexArray
from ptychodus_torch_plugin.physics import Complex, Real, far_field

CELLS_IN_A_PATTERN = 8
"""Cells along the side of a pattern, in scans of usual size."""

MOST_CELLS = 2**16
"""Larger scans take larger cells: what varies faster than these is left to the sweeps."""

FULL_AGREEMENT = 0.5
"""Correlation from which on a phase is believed in full: a sweep has its own noise."""

CHANCE = 2.0
"""Standard errors of the correlation of two unrelated phases that are taken for chance."""

FLOOR = 1e-6
"""Weight of a phase of zero, where nothing else is known."""

FEWEST = 0.5
"""Counts of a pattern, at least: an empty one has its centre of mass in the middle."""


def moment_weights(valid: BoolArray) -> FloatArray:
    """Return the (N * N, 4) float32 that turn a pattern into its moments.

    They are its sum over valid pixels, and those of f_y, f_x and f_y^2 + f_x^2, f in cycles per
    object pixel.
    """
    n_px = len(valid)
    f = (np.arange(n_px) - n_px // 2) / n_px
    y, x = np.meshgrid(f, f, indexing='ij')
    weights = np.stack([np.ones_like(y), y, x, y**2 + x**2], axis=-1) * valid[..., None]
    return weights.reshape(-1, 4).astype(np.float32)


def response(probe: Complex, valid: BoolArray) -> float:
    """Return how far the centre of mass moves over valid pixels when the beam moves by one pixel.

    It is 1 where the detector sees all of the beam (m, N, N), and less behind a beam stop; it is
    kept between 0 and 1.
    """
    light = np.sum(np.abs(far_field(probe)) ** 2, axis=0)
    seen = light * valid
    moved = 0.0
    for axis in (0, 1):
        pixel = np.arange(len(valid), dtype=np.float64)
        place = pixel[:, None] if axis == 0 else pixel[None]
        center = np.sum(seen * place) / seen.sum()
        moved -= float(np.sum(np.gradient(light, axis=axis) * valid * (place - center)))
    return float(np.clip(moved / (2 * seen.sum()), 0.0, 1.0))


@dataclass(frozen=True)
class Deflection:
    """Where the patterns of a pool lie, for the integration of what deflects them.

    Attributes
    ----------
    shape
        Height and width of the canvas.
    corners : (k, 2) int64
        First pixels of the patches.
    probe : (m, N, N) complex
        The beam, for its width and for what the detector sees of it.
    valid : (N, N) bool
        Where the detector counts.
    free_ramp
        Whether the deflection that all patterns share is left alone: a probe that is refined takes
        it up.
    """

    shape: tuple[int, int]
    corners: IndexArray
    probe: Complex
    valid: BoolArray
    free_ramp: bool = False

    def phase(self, measured: Real, predicted: Real, change: Complex) -> FloatArray:
        """Return the phase (h, w) float32, in rad, that the object lacks.

        Parameters
        ----------
        measured, predicted : (k, 4) float64
            Moments (`moment_weights`) of the patterns of the pool, without background.
        change : (h, w) complex
            The object after a sweep times the conjugate of what it was before.
        """
        gradients = 2 * np.pi * (_centers(measured) - _centers(predicted))
        if self.free_ramp:
            gradients = gradients - gradients.mean(axis=0)
        noise = float(np.mean((2 * np.pi) ** 2 * _variances(measured)))
        found = float(np.mean(np.sum(gradients**2, axis=1)))
        if found <= noise:
            return np.zeros(self.shape, np.float32)
        integral, share = self._integral(gradients)
        unexplained = 1 - noise / found
        agreement = self._agreement(integral, change, unexplained)
        return self._on_pixels(self._response * min(share, unexplained) * agreement * integral)

    @cached_property
    def _response(self) -> float:
        return response(self.probe, self.valid)

    @cached_property
    def _cell_px(self) -> int:
        cell_px = max(1, len(self.valid) // CELLS_IN_A_PATTERN)
        while np.prod(-(-np.asarray(self.shape) // cell_px)) > MOST_CELLS:
            cell_px *= 2
        return cell_px

    @cached_property
    def _cells(self) -> tuple[int, int]:
        """Rows and columns of cells on the canvas."""
        height, width = self.shape
        return -(-height // self._cell_px), -(-width // self._cell_px)

    def _integral(self, gradients: Real) -> tuple[Real, float]:
        """Return the phase (H, W) on cells with the gradients (k, 2) of patterns, and its share."""
        lit = self._light + FLOOR * self._light.max()
        slopes = [self._cell_px * self._sum(part) / lit for part in gradients.T]
        weights, solver = self._system
        rises = [
            (s[step.behind] + s[step.ahead]) / 2 for s, step in zip(slopes, STEPS, strict=True)
        ]
        rhs = np.zeros(self._cells)
        for rise, weight, step in zip(rises, weights, STEPS, strict=True):
            rhs[step.ahead] += weight * rise
            rhs[step.behind] -= weight * rise
        phase = np.asarray(solver.solve(rhs.ravel())).reshape(self._cells)
        fitted = left = 0.0
        for rise, weight, step in zip(rises, weights, STEPS, strict=True):
            found = phase[step.ahead] - phase[step.behind]
            fitted += float(np.sum(weight * found**2))
            left += float(np.sum(weight * (rise - found) ** 2))
        return phase, max(0.0, 1 - left / fitted) if fitted > 0 else 0.0

    def _agreement(self, phase: Real, change: Complex, unexplained: float) -> float:
        """Return from 0 to 1 how far a phase (H, W) is one that a sweep moves towards itself.

        Of chance it has the share `unexplained`: the noise of photons is known, and allowed for.
        """
        cell_px, (rows, columns) = self._cell_px, self._cells
        padded = np.zeros((rows * cell_px, columns * cell_px), np.complex128)
        padded[: self.shape[0], : self.shape[1]] = change
        moved = np.angle(padded.reshape(rows, cell_px, columns, cell_px).sum(axis=(1, 3)))
        weight = self._trust / self._trust.sum()
        smooth = (self._smoothed(each) for each in (phase, moved))
        first, second = (each - np.sum(weight * each) for each in smooth)
        spread = np.sqrt(np.sum(weight * first**2) * np.sum(weight * second**2))
        if spread == 0:
            return 0.0
        correlation = max(0.0, float(np.sum(weight * first * second) / spread))
        by_chance = (CHANCE * unexplained) ** 2 / self._independent
        beyond_chance = max(0.0, correlation**2 - by_chance)
        return min(1.0, math.sqrt(beyond_chance) / FULL_AGREEMENT)

    @cached_property
    def _independent(self) -> float:
        """How many places the scan has that the beam does not join, at most one a pattern.

        Noise of unit variance on cells, smoothed by the beam, correlates with other such noise by
        1 / sqrt(n), root mean square, n being the trusted cells over sum_lag rho^2, rho the
        correlation of cells that far apart (Bartlett, J. R. Stat. Soc. 98, 536, 1935).
        """
        beam = self._beam
        power = np.abs(np.fft.fft2(beam, [2 * side for side in beam.shape])) ** 2
        joined = np.mean(power**2) / np.sum(beam**2) ** 2
        cells = self._trust.sum() ** 2 / np.sum(self._trust**2)
        return float(min(len(self.corners), cells / joined))

    def _smoothed(self, values: Real) -> Real:
        from scipy.ndimage import convolve

        trust = self._trust + FLOOR
        sums = (convolve(each, self._beam, mode='constant') for each in (trust * values, trust))
        return np.asarray(np.divide(*sums))

    @cached_property
    def _trust(self) -> Real:
        light = self._light
        return np.asarray(light / (light + light[light > FLOOR * light.max()].mean()))

    @cached_property
    def _system(self) -> tuple[list[NDArray[np.float64]], Any]:
        """Weights between neighbouring cells, and the factors of the Laplacian that they make."""
        from scipy import sparse
        from scipy.sparse.linalg import splu

        light, trust = self._light, self._trust
        number = np.arange(light.size).reshape(self._cells)
        weights, rows, columns, values = (
            [],
            [number.ravel()],
            [number.ravel()],
            [np.full(light.size, FLOOR)],
        )
        for step in STEPS:
            weight = np.minimum(trust[step.behind], trust[step.ahead]) + FLOOR
            weights.append(weight)
            a, b, w = number[step.behind].ravel(), number[step.ahead].ravel(), weight.ravel()
            rows += [a, b, a, b]
            columns += [a, b, b, a]
            values += [w, w, -w, -w]
        entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        laplacian = sparse.csc_matrix(entries, shape=(light.size, light.size))
        return weights, splu(laplacian, permc_spec='MMD_AT_PLUS_A')

    @cached_property
    def _light(self) -> Real:
        """Light on each cell, (H, W), each pattern's being 1 in all."""
        return self._sum(np.ones(len(self.corners)))

    def _sum(self, values: Real) -> Real:
        """Return the sum (H, W) over patterns of values (k,) times their beam on the cells."""
        from scipy.ndimage import convolve

        center_px = self.corners + (len(self.valid) - 1) / 2
        placed = _placed(center_px, values, self._cell_px, self._cells)
        return np.asarray(convolve(placed, self._beam, mode='constant'))

    @cached_property
    def _beam(self) -> Real:
        """The beam on cells, (2 r + 1, 2 r + 1), about a pattern's centre, 1 in all."""
        power = np.sum(np.abs(self.probe) ** 2, axis=0).astype(np.float64)
        n_px, cell_px = len(power), self._cell_px
        reach = -(-n_px // (2 * cell_px))
        middle_px = (reach + 0.5) * cell_px - 0.5
        pixels = np.indices(power.shape).reshape(2, -1).T - (n_px - 1) / 2 + middle_px
        beam = _placed(pixels, power.ravel(), cell_px, (2 * reach + 1, 2 * reach + 1))
        return np.asarray(beam / beam.sum())

    def _on_pixels(self, cells: Real) -> FloatArray:
        """Return values on cells (H, W) between their centres, (h, w) float32."""
        y, x = (_interpolation(n, self._cell_px) for n in self.shape)
        return np.asarray(y @ (x @ cells.T).T, dtype=np.float32)


class _Step(NamedTuple):
    """From a cell to its neighbour along an axis."""

    behind: tuple[slice, ...]
    ahead: tuple[slice, ...]


STEPS = (
    _Step((slice(None, -1),), (slice(1, None),)),
    _Step((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
)
"""Down, and to the right."""


def _centers(moments: Real) -> Real:
    """Return the centres of mass (k, 2) [f_y, f_x] of patterns with these moments (k, 4)."""
    return np.asarray(moments[:, 1:3] / np.maximum(moments[:, :1], FEWEST))


def _variances(moments: Real) -> Real:
    """Return the variance (k,) of centres of mass, both axes together, by the chance of photons."""
    total = np.maximum(moments[:, 0], FEWEST)
    spread = moments[:, 3] / total - np.sum(_centers(moments) ** 2, axis=1)
    return np.asarray(np.maximum(spread, 0.0) / total)


def _placed(places_px: Real, values: Real, cell_px: int, cells: tuple[int, int]) -> Real:
    """Share out values (k,) at places (k, 2) among the four cells whose centres are around them."""
    place = (places_px + 0.5) / cell_px - 0.5
    first = np.floor(place).astype(np.int64)
    rest = place - first
    result = np.zeros(cells)
    for step in np.ndindex(2, 2):
        share = np.prod(np.where(step, rest, 1 - rest), axis=1)
        y, x = np.clip(first + step, 0, np.asarray(cells) - 1).T
        np.add.at(result, (y, x), share * values)
    return result


def _interpolation(n_px: int, cell_px: int) -> Any:
    """Return the sparse (n_px, cells) that interpolates between the centres of cells."""
    from scipy import sparse

    n_cells = -(-n_px // cell_px)
    place = np.clip((np.arange(n_px) + 0.5) / cell_px - 0.5, 0, n_cells - 1)
    first = np.minimum(place.astype(np.int64), max(0, n_cells - 2))
    rest, rows = place - first, np.arange(n_px)
    ahead = np.minimum(first + 1, n_cells - 1)
    entries = np.concatenate([1 - rest, rest]), (np.tile(rows, 2), np.concatenate([first, ahead]))
    return sparse.csr_matrix(entries, shape=(n_px, n_cells))
