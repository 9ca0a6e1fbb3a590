"""Fourier ring correlation: up to which spatial frequency two images agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import PositionArray, check_array, check_finite
from ptychodus_torch_plugin.errors import ScanValueError

MIN_SIDE_PX = 16
# Fraction of the square over which the window rises and falls.
TAPER = 0.5
HALF_BIT_SNR = math.sqrt(2) - 1
"""Ratio of signal to noise of an image that tells half a bit a pixel: log2(1 + SNR) = 1/2."""

Criterion = Literal['halves', 'noise-free']
"""What was correlated: images of two halves of the data, or an image and one without noise."""


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
        Half-bit threshold: where the curve falls below it, less than half a bit a pixel is left.
    criterion
        What the threshold is for: 'halves' or 'noise-free', see `fourier_ring_correlation`.
    """

    frequencies: PositionArray
    correlation: PositionArray
    threshold: PositionArray
    criterion: Criterion

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

    def resolution_m(self, pixel_size_m: tuple[float, float] | None) -> float | None:
        """Return the same in metres, of the longer side of a pixel; `None` if it is not known."""
        half_period_px = self.resolution_px()
        if half_period_px is None or pixel_size_m is None:
            return None
        return half_period_px * max(pixel_size_m)

    def nyquist_fraction(self) -> float:
        """Return the first crossing as a fraction of Nyquist; 1 if there is none."""
        crossing = self._crossing()
        return 1.0 if crossing is None else crossing / 0.5

    def as_dict(self) -> dict[str, list[float]]:
        """Return the curve for JSON."""
        return {
            'frequency_per_px': self.frequencies.tolist(),
            'correlation': self.correlation.tolist(),
            'threshold': self.threshold.tolist(),
        }


def fourier_ring_correlation(
    a: NDArray[Any], b: NDArray[Any], criterion: Criterion = 'halves'
) -> FRC:
    """Correlate two real or complex images ring by ring in Fourier space.

    The central square is taken, its weighted mean removed, and a cosine-tapered (Tukey) window laid
    over it.  The threshold is a half-bit curve, for the number of independent values of a ring:
    half of them for real images, and fewer by what the window correlates.

    Parameters
    ----------
    a, b : (h, w) float or complex
        Images in register, on the same grid.
    criterion
        'halves': both are made of one half of the data each, and the threshold, which tends to
        0.17, is for the image of all data (see `half_bit_of_halves`).  'noise-free': `b` is the
        truth, or taken for it, and the threshold, which tends to 0.54, is for `a` (see
        `half_bit_of_one`).

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
    half_bit = half_bit_of_halves if criterion == 'halves' else half_bit_of_one
    frequencies = np.arange(1, side // 2 + 1) / side
    return FRC(frequencies, correlation, half_bit(independent * count), criterion)


def _tapered_spectrum(image: NDArray[Any], window: PositionArray) -> NDArray[np.complex128]:
    mean = (window * image).sum() / window.sum()
    return np.asarray(np.fft.fft2(window * (image - mean)), dtype=np.complex128)


def half_bit_of_halves(independent: PositionArray) -> PositionArray:
    """Return the threshold for two halves of the data, in rings of so many independent values.

    Each half has half the SNR s of all data together, s = sqrt(2) - 1; with h = s / 2 and n values
    (h + (2 sqrt(h) + 1) / sqrt(n)) / (1 + h + 2 sqrt(h) / sqrt(n)): van Heel and Schatz, J. Struct.
    Biol. 151, 250 (2005).
    """
    root, half = np.sqrt(independent), HALF_BIT_SNR / 2
    cross = 2 * math.sqrt(half)
    threshold: PositionArray = (half + (cross + 1) / root) / (1 + half + cross / root)
    return threshold


def half_bit_of_one(independent: PositionArray) -> PositionArray:
    """Return the threshold for an image and one without noise, in rings of so many values.

    The same derivation with the noise in one image: its correlation with the signal alone is
    (sqrt(s) + 1 / sqrt(n)) / sqrt(1 + s + 2 sqrt(s) / sqrt(n)).  For many values this is
    sqrt(s / (1 + s)), the C_ref of Rosenthal and Henderson, J. Mol. Biol. 333, 721 (2003), of two
    halves that correlate by h / (1 + h).
    """
    root, signal = np.sqrt(independent), math.sqrt(HALF_BIT_SNR)
    power = 1 + HALF_BIT_SNR + 2 * signal / root
    threshold: PositionArray = (signal + 1 / root) / np.sqrt(power)
    return threshold
