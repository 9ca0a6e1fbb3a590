"""What a regular raster cannot tell: functions that repeat from position to position.

If all positions r_j lie on a lattice, a function f with its period is the same seen from each of
them, and probes P f under an object O / f(. - r_0) predict the very same patterns as P under O.
Noise drives sweeps along such functions, the longer the further (the raster grid pathology:
Thibault et al., Ultramicroscopy 109, 338, 2009); on the object they show as a net.

The lattice is found from the positions: it has the frequencies g for which

    S(g) = 1/n sum_j exp(-2 pi i g . r_j)

is nearly as large as it can be, `LEAST_REGULAR`; a jitter of a fourth of the step is enough to have
none.  On it

    f = 1 + sum_g x_g exp(2 pi i g . r)

with r = 0 at pixel [N // 2, N // 2] of the probe, is told by the lens instead: a probe may be out
of focus or aberrated, but the magnitude of its far field, which is the lens' aperture, is known
from the start.  So x is what brings the modes P_m nearest to T_m, which have the phases of their
far fields and the magnitude of the first ones:

    x = argmin  sum_m |P_m (f - 1) - (T_m - P_m)|^2 + e E |x|^2,    E = sum_m |P_m|^2

A share `GAIN` of it is taken after each sweep, for the sweeps go on meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray
from ptychodus_torch_plugin.physics import Complex, far_field, near_field
from ptychodus_torch_plugin.probes import far_field_counts

LEAST_REGULAR = 0.8
"""|S(g)| of a frequency that belongs to a lattice."""

FEW = 2.4
"""|S(g)| is more by this over the number of positions: any few of them agree on some frequency."""

MOST_FREQUENCIES = 12
"""The shortest frequencies are taken, up to so many (and their opposites)."""

SEARCHED_PX = 512
"""Side of the square in the middle of a scan from which frequencies are read off."""

ENOUGH = 2**13
"""Positions that tell how regular a scan is."""

FEWEST_PERIODS = 3
"""A frequency repeats at least so often over the scan, or it is the scan's outline."""

GAIN = 0.5
"""Share of f that is taken after a sweep."""

FIRMNESS = 0.01
"""e above: what hardly changes the probe is left alone."""

MOST = 0.5
"""Sum of all |x_g|, at most: f stays away from zero."""

TURNS = 3
"""Steps of least squares that sharpen a frequency."""


@dataclass(frozen=True)
class Lattice:
    """The frequencies at which the positions of a scan repeat.

    Attributes
    ----------
    frequencies : (k, 2) float64
        [y, x] in cycles per pixel, each with its opposite.
    phases : (k,) complex128
        Factors exp(-2 pi i g . r_0) of an object whose first pixel is at [0, 0], r_0 being where
        the probe's pixel [N // 2, N // 2] comes to lie.
    aperture : (N, N) float64
        Magnitude of the far field of the first probe, all modes together.
    shape
        Height and width of the canvas.
    """

    frequencies: NDArray[np.float64]
    phases: NDArray[np.complex128]
    aperture: NDArray[np.float64]
    shape: tuple[int, int]

    @classmethod
    def found(
        cls, positions_px: PositionArray, probe: Complex, shape: tuple[int, int]
    ) -> Lattice | None:
        """Return the lattice of a scan, or None if it has none.

        Parameters
        ----------
        positions_px : (n, 2) float64
            Patch centres [y, x] on the canvas.
        probe : (m, N, N) complex
            The first probe.
        shape
            Height and width of the canvas.
        """
        half = lattice_frequencies(positions_px)
        if not len(half):
            return None
        frequencies = np.concatenate([half, -half])
        n_px = probe.shape[-1]
        sums = regularity(positions_px + n_px // 2 - (n_px - 1) / 2, frequencies)
        return cls(frequencies, sums / np.abs(sums), np.sqrt(far_field_counts(probe)), shape)

    def factors(self, probe: Complex) -> tuple[ComplexArray, ComplexArray]:
        """Return what to multiply a probe (m, N, N) and an object (h, w) by.

        They are f (N, N) and 1 / f (h, w), complex64.
        """
        x = GAIN * self._told_by_the_lens(probe)
        x *= min(1.0, MOST / max(float(np.abs(x).sum()), MOST))
        of_probe = self._sum(x, self.aperture.shape, self._middle)
        return of_probe, 1 / self._sum(x * self.phases, self.shape)

    def _told_by_the_lens(self, probe: Complex) -> Complex:
        """Return x (k,) for modes (m, N, N) under which an object of its own has grown."""
        waves = far_field(probe)
        magnitude = np.sqrt(np.sum(np.abs(waves) ** 2, axis=0))
        magnitude = np.maximum(magnitude, np.finfo(np.float32).eps * magnitude.max())
        missing = near_field(waves * (self.aperture / magnitude - 1))
        power = np.sum(np.abs(probe) ** 2, axis=0).ravel()
        demand = np.sum(probe.conj() * missing, axis=0).ravel()
        basis = self._basis
        system = (basis.conj() * power) @ basis.T
        system += FIRMNESS * power.sum() * np.eye(len(system))
        return np.asarray(np.linalg.solve(system, basis.conj() @ demand))

    @cached_property
    def _basis(self) -> Complex:
        """Waves (k, N * N) on the grid of the probe, whose centre is at [N // 2, N // 2]."""
        y, x = _waves(self.frequencies, self.aperture.shape, self._middle)
        return np.asarray((y[:, :, None] * x[:, None]).reshape(len(y), -1))

    @property
    def _middle(self) -> int:
        return len(self.aperture) // 2

    def _sum(self, x: Complex, shape: tuple[int, ...], middle: int = 0) -> ComplexArray:
        """Return 1 + sum_g x_g exp(2 pi i g . r), complex64, with r = 0 at [middle, middle]."""
        along_y, along_x = _waves(self.frequencies, shape, middle)
        weighted = (x[:, None] * along_y).astype(np.complex64)
        return np.asarray(1 + weighted.T @ along_x.astype(np.complex64))


def lattice_frequencies(positions_px: PositionArray) -> PositionArray:
    """Return the shortest frequencies (k, 2) float64 [y, x] at which positions (n, 2) repeat.

    In cycles per pixel, none beyond 1/2; of a frequency and its opposite only one.
    """
    low, high = positions_px.min(axis=0), positions_px.max(axis=0)
    inner = positions_px[np.all(np.abs(positions_px - (low + high) / 2) <= SEARCHED_PX / 2, axis=1)]
    some, some_inner = _some(positions_px), _some(inner)
    least = LEAST_REGULAR + FEW / len(positions_px)
    found: list[PositionArray] = []
    for start in _peaks(inner):
        g = _sharpened(some, _sharpened(some_inner, start))
        # Peaks whose neighbourhoods overlap, and a peak beside its opposite, may end at the same g.
        again = any(np.all(np.abs(g - s * h) * (high - low) < 0.5) for h in found for s in (1, -1))
        regular = np.abs(regularity(some, g[None]))[0] >= least
        if regular and not again and np.abs(g).max() <= 0.5:
            found.append(g)
        # Peaks are a little off: among twice as many are the shortest.
        if len(found) == 2 * MOST_FREQUENCIES:
            break
    found.sort(key=lambda g: (round(float(np.hypot(*g)), 6), *g))
    return np.reshape(found[:MOST_FREQUENCIES], (-1, 2))


def regularity(positions_px: PositionArray, frequencies: PositionArray) -> NDArray[np.complex128]:
    """Return S(g) (k,), the mean of exp(-2 pi i g . r) over positions r (n, 2), for g (k, 2)."""
    return np.array([np.exp(-2j * np.pi * (positions_px @ g)).mean() for g in frequencies])


def _peaks(positions_px: PositionArray) -> PositionArray:
    """Return about where |S| has its peaks, (k, 2), the shortest first, without most opposites."""
    from scipy.ndimage import maximum_filter

    if len(positions_px) == 0:
        return np.empty((0, 2))
    # Two samples a pixel, and twice the extent: frequencies up to 1, two to the width of a peak.
    place = np.rint(2 * (positions_px - positions_px.min(axis=0))).astype(np.int64)
    size = 2 * place.max(axis=0) + 2
    counts = np.zeros(size)
    np.add.at(counts, tuple(place.T), 1.0)
    height = np.abs(np.fft.rfft2(counts)) / len(place)
    is_peak = (height == maximum_filter(height, 5, mode='wrap')) & (height > LEAST_REGULAR / 2)
    rows, columns = np.nonzero(is_peak)
    y, x = 2 * np.fft.fftfreq(size[0])[rows], 2 * np.fft.rfftfreq(size[1])[columns]
    periods = np.hypot(y, x) * np.ptp(positions_px, axis=0).min()
    once = (periods >= FEWEST_PERIODS) & ((x > 0) | (y > 0)) & (np.maximum(np.abs(y), x) < 0.6)
    peaks = np.stack([y, x], axis=-1)[once]
    return np.asarray(peaks[np.argsort(periods[once], kind='stable')])


def _some(positions_px: PositionArray) -> PositionArray:
    """Return `ENOUGH` positions at random, always the same ones, or all."""
    if len(positions_px) <= ENOUGH:
        return positions_px
    return np.random.default_rng(0).choice(positions_px, ENOUGH, replace=False)


def _sharpened(positions_px: PositionArray, g: PositionArray) -> PositionArray:
    """Return the frequency [y, x] near `g` that fits positions (n, 2) best.

    A frequency that is a little off shows as a phase that grows over the scan.
    """
    centred = positions_px - positions_px.mean(axis=0)
    for _ in range(TURNS):
        waves = np.exp(-2j * np.pi * (centred @ g))
        phase = np.angle(waves * waves.mean().conj())
        g = g + np.linalg.lstsq(centred, phase, rcond=None)[0] / (2 * np.pi)
    return np.asarray(g)


def _waves(
    frequencies: PositionArray, shape: tuple[int, ...], middle: int
) -> tuple[Complex, Complex]:
    """Return exp(2 pi i g_y y) (k, h) and exp(2 pi i g_x x) (k, w), with zero at `middle`."""
    y, x = (
        np.exp(2j * np.pi * np.outer(g, np.arange(size) - middle))
        for g, size in zip(frequencies.T, shape, strict=True)
    )
    return y, x
