"""The NumPy oracle of the physics: slow, plain, in double precision where it matters.

Every backend is tested against these functions.  Axes: n pattern, m incoherent probe mode, N side
of a pattern; an object canvas is (h, w).  `corners` and `remainders_px` come from `frame`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import BoolArray, IndexArray, PositionArray

Complex: TypeAlias = NDArray[np.complexfloating[Any, Any]]
Real: TypeAlias = NDArray[np.floating[Any]]

MIN_INTENSITY = 1e-9
"""Smallest predicted count of a pixel before a logarithm or a division."""

SMALLEST_STEP = 1e-3
"""Length of a gradient of transmission that `total_variation` takes for none."""

POISSON_OVERSHOOT = 1.5
"""Makes the Poisson step of `impose_counts` as long as a full amplitude step near the solution."""


def shift_probe(probe: Complex, remainders_px: PositionArray) -> Complex:
    """Shift every probe mode by every remainder, by the Fourier shift theorem.

    Parameters
    ----------
    probe : (m, N, N) complex
    remainders_px : (n, 2) float64
        [dy, dx]; a positive value moves the probe towards higher rows and columns.

    Returns
    -------
    (n, m, N, N) complex
    """
    frequency = np.fft.fftfreq(probe.shape[-1])
    ramps = np.exp(-2j * np.pi * remainders_px[:, :, None] * frequency)
    kernel = ramps[:, 0, :, None] * ramps[:, 1, None, :]
    return np.fft.ifft2(np.fft.fft2(probe) * kernel[:, None])


def gather_patches(object_: Complex, corners: IndexArray, n_px: int) -> Complex:
    """Return the (n, N, N) patches of the canvas (h, w) whose first pixels are `corners`."""
    return np.stack([object_[y : y + n_px, x : x + n_px] for y, x in corners])


def scatter_patches(patches: NDArray[Any], corners: IndexArray, canvas: NDArray[Any]) -> None:
    """Add (n, N, N) patches onto the canvas (h, w) in place; the adjoint of `gather_patches`."""
    n_px = patches.shape[-1]
    for patch, (y, x) in zip(patches, corners, strict=True):
        canvas[y : y + n_px, x : x + n_px] += patch


def far_field(exit_waves: Complex) -> Complex:
    """Propagate (..., N, N) exit waves: orthonormal FFT, zero frequency at [N//2, N//2]."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(exit_waves, axes=axes)
    return np.fft.fftshift(np.fft.fft2(shifted, norm='ortho'), axes=axes)


def near_field(waves: Complex) -> Complex:
    """Invert `far_field`."""
    axes = (-2, -1)
    shifted = np.fft.ifftshift(waves, axes=axes)
    return np.fft.fftshift(np.fft.ifft2(shifted, norm='ortho'), axes=axes)


def disc(n_px: int) -> BoolArray:
    """Return (N, N) True inside the disc of diameter N / 2 around the centre (N - 1) / 2."""
    line = np.arange(n_px) - (n_px - 1) / 2
    return np.asarray(line[:, None] ** 2 + line**2 <= (n_px / 4) ** 2)


def smoothing_kernel(sigma_px: float) -> Real:
    """Return the 3 x 3 Gaussian filter of a given sigma, its sum being 1."""
    line = np.exp(-0.5 * (np.arange(-1, 2) / sigma_px) ** 2)
    return np.asarray(np.outer(line, line) / line.sum() ** 2)


def shape_exit_waves(waves: Complex, sigma_px: float, *, masked: bool) -> Complex:
    """Return exit waves (..., N, N) after the optional filter and the optional disc of 'cnn'."""
    if sigma_px > 0:
        margin = [(0, 0)] * (waves.ndim - 2) + [(1, 1), (1, 1)]
        padded, (height, width) = np.pad(waves, margin), waves.shape[-2:]
        parts = [
            weight * padded[..., y : y + height, x : x + width]
            for (y, x), weight in np.ndenumerate(smoothing_kernel(sigma_px))
        ]
        waves = np.asarray(np.sum(parts, axis=0))
    return np.where(disc(waves.shape[-1]), waves, 0) if masked else waves


def predict_counts(
    object_: Complex, probe: Complex, corners: IndexArray, remainders_px: PositionArray
) -> Real:
    """Return the expected counts (n, N, N): probe modes add incoherently.

    I = sum over m of |F(P_m shifted by the remainder * patch of the object)|^2
    """
    patches = gather_patches(object_, corners, probe.shape[-1])
    waves = far_field(shift_probe(probe, remainders_px) * patches[:, None])
    return np.asarray(np.sum(np.abs(waves) ** 2, axis=1))


def poisson_loss(predicted: Real, counts: Real, valid: BoolArray, mean_count: float) -> float:
    """Poisson negative log-likelihood per valid pixel, over the mean count of a valid pixel.

    The terms I - k log I are measured from their value at I = k, which depends on the data alone:
    the loss is never negative, and zero for a perfect prediction without noise.

    Parameters
    ----------
    predicted, counts : (n, N, N)
        Expected counts, I or I + b with a background b, and measured counts k.
    valid : (N, N) bool
        Pixels that take part.
    mean_count
        Mean of k over all valid pixels of the *scan*: the loss does not depend on the batch.
    """
    k = np.asarray(counts, dtype=np.float64)[:, valid]
    i = np.maximum(np.asarray(predicted, dtype=np.float64)[:, valid], MIN_INTENSITY)
    best = k - k * np.log(np.maximum(k, MIN_INTENSITY))
    return float(np.mean(i - k * np.log(i) - best) / mean_count)


def amplitude_error(predicted: Real, counts: Real, valid: BoolArray, mean_count: float) -> float:
    """Mean absolute error of amplitudes over valid pixels, over the root of the mean count.

    Parameters as for `poisson_loss`.
    """
    i = np.maximum(np.asarray(predicted, dtype=np.float64)[:, valid], MIN_INTENSITY)
    return float(np.mean(np.abs(np.sqrt(i) - np.sqrt(counts[:, valid]))) / np.sqrt(mean_count))


def object_error(patches: Complex, truth: Complex, weight: Real) -> float:
    """Mean absolute error of patches (n, N, N) of the object, weighted by `weight` (N, N)."""
    return float(np.mean(np.sum(np.abs(patches - truth) * weight, axis=(1, 2))) / np.sum(weight))


def total_variation(objects: Complex) -> float:
    """Mean length of the gradient of objects (n, h, w): small where it is flat with sharp edges.

    The isotropic form of Rudin, Osher & Fatemi, Physica D 60, 259 (1992), for complex values.
    """
    down = np.diff(objects, axis=1)[:, :, :-1]
    right = np.diff(objects, axis=2)[:, :-1]
    return float(np.mean(np.sqrt(np.abs(down) ** 2 + np.abs(right) ** 2 + SMALLEST_STEP**2)))


def impose_counts(
    waves: Complex, counts: Real, valid: BoolArray, background: Real | float = 0.0
) -> Complex:
    """Pull predicted far fields (n, m, N, N) towards the measured counts (n, N, N).

    The amplitude a of a pixel goes to the minimiser of a'^2 - k log a'^2 + (a' - a)^2, which is
    (a + sqrt(a^2 + 8 k)) / 4, with an overshoot of 1.5: where counts are high this is the usual
    modulus constraint, and where they are low it trusts a count no more than Poisson noise allows.
    The proximal form is known from ADMM for Poisson phase retrieval (Chang, Lou, Duan & Marchesini,
    SIAM J. Imaging Sci. 11, 24, 2018).  Bad pixels are left free.

    Where a `background` b, (N, N) or a number, adds to the expected counts, k is replaced by what
    of it the wave is expected to have made, k I / (I + b): the E step of expectation maximisation
    for two independent Poisson sources (Shepp & Vardi, IEEE Trans. Med. Imaging 1, 113, 1982).  It
    is never negative, and the wave rests where I + b = k.
    """
    intensity = np.sum(np.abs(waves) ** 2, axis=1)
    target = (1 + np.sqrt(1 + 8 * counts / np.maximum(intensity + background, MIN_INTENSITY))) / 4
    factor = np.where(valid, 1 + POISSON_OVERSHOOT * (target - 1), 1)
    return np.asarray(waves * factor[:, None])


def illumination(
    probe: Complex, corners: IndexArray, remainders_px: PositionArray, shape: tuple[int, int]
) -> Real:
    """Return the photons that fall on each pixel of a canvas of `shape`, (h, w) float64."""
    canvas = np.zeros(shape)
    for corner, remainder in zip(corners, remainders_px, strict=True):
        shifted = shift_probe(probe, remainder[None])
        scatter_patches(np.sum(np.abs(shifted) ** 2, axis=1), corner[None], canvas)
    return canvas
