"""Fourier ring correlation: up to which spatial frequency two images agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import PositionArray, check_array, check_finite
from ptychodus_torch_plugin.errors import ScanValueError

MIN_SIDE_PX = 16
# Fraction of the square over which the window rises and falls.
TAPER = 0.5


@dataclass(frozen=True)
class FRC:
    """Fourier ring correlation of two images.

    Attributes
    ----------
    frequencies : (r,) float64
        Spatial frequency of each ring in 1/px, up to Nyquist (0.5); the mean is left out.
    correlation : (r,) float64
        Real part of the normalised correlation over the ring, from -1 to 1.
    threshold : (r,) float64
        Half-bit threshold.
    """

    frequencies: PositionArray
    correlation: PositionArray
    threshold: PositionArray

    def _crossing(self) -> float | None:
        """Return the first frequency in 1/px where the correlation falls below the threshold."""
        margin = self.correlation - self.threshold
        below = np.flatnonzero(margin < 0)
        if len(below) == 0:
            return None
        last = int(below[0])
        if last == 0:
            return float(self.frequencies[0])
        high, low = margin[last - 1], margin[last]
        step = self.frequencies[last] - self.frequencies[last - 1]
        return float(self.frequencies[last - 1] + step * high / (high - low))

    def resolution_px(self) -> float | None:
        """Return the half-period resolution 1 / (2 f) in pixels, at the first crossing f.

        `None` means that the curve never falls below the threshold: the images agree up to
        Nyquist, and the resolution is better than the 1 px that could be shown.
        """
        crossing = self._crossing()
        return None if crossing is None else 0.5 / crossing

    def nyquist_fraction(self) -> float:
        """Return the first crossing as a fraction of Nyquist; 1 if there is none."""
        crossing = self._crossing()
        return 1.0 if crossing is None else crossing / 0.5


def fourier_ring_correlation(a: NDArray[Any], b: NDArray[Any]) -> FRC:
    """Correlate two real or complex images ring by ring in Fourier space.

    The central square is taken, its weighted mean removed, and a cosine-tapered (Tukey) window laid
    over it.  The threshold is the half-bit curve of van Heel and Schatz, J. Struct. Biol. 151, 250
    (2005), with the number of independent values of a ring: half of them for real images, and
    fewer by what the window correlates.

    Parameters
    ----------
    a, b : (h, w) float or complex
        Images in register, on the same grid.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, values are not finite, or the square is smaller than 16 px.
    """
    from scipy.signal.windows import tukey

    check_array(a, 'h w', name='a')
    check_array(b, 'h w', name='b', sizes=dict(zip('hw', a.shape, strict=True)))
    check_finite(a, name='a')
    check_finite(b, name='b')
    side = min(a.shape)
    if side < MIN_SIDE_PX:
        raise ScanValueError(
            f'the square for Fourier ring correlation is {side} px wide; '
            f'expected at least {MIN_SIDE_PX} px. Compare a larger region.'
        )
    first = [(n - side) // 2 for n in a.shape]
    square = tuple(slice(start, start + side) for start in first)
    line = tukey(side, TAPER)
    window = np.outer(line, line)
    one, two = (_tapered_spectrum(image[square], window) for image in (a, b))
    frequency = np.fft.fftfreq(side)
    # Whole numbers: ring r holds the frequencies that round to r cycles per square.
    rings = np.rint(side * np.hypot(frequency[:, None], frequency)).astype(np.int64).ravel()
    kept = slice(1, side // 2 + 1)
    cross, power_a, power_b, count = (
        np.bincount(rings, weights=values.ravel())[kept]
        for values in ((one * two.conj()).real, abs(one) ** 2, abs(two) ** 2, np.ones(one.shape))
    )
    power = np.sqrt(power_a * power_b)
    correlation = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    # A window correlates neighbours; those along a ring of one pixel's width are a line of them.
    independent = (line**2).sum() ** 2 / (side * (line**4).sum())
    if not (np.iscomplexobj(a) or np.iscomplexobj(b)):
        independent /= 2
    return FRC(np.arange(1, side // 2 + 1) / side, correlation, _half_bit(independent * count))


def _tapered_spectrum(image: NDArray[Any], window: PositionArray) -> NDArray[np.complex128]:
    mean = (window * image).sum() / window.sum()
    return np.asarray(np.fft.fft2(window * (image - mean)), dtype=np.complex128)


def _half_bit(independent: PositionArray) -> PositionArray:
    """Return the threshold for rings of so many independent values: an SNR of sqrt(2) - 1."""
    root = np.sqrt(independent)
    threshold: PositionArray = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    return threshold
