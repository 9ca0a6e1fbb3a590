"""The physics in TensorFlow; `ptychodus_torch_plugin.physics` is the oracle, name by name.

Far fields are centred without moving memory: the probe carries a checkerboard (-1)^(y+x), which by
the shift theorem puts the zero frequency at [N//2, N//2].  Axes: B pattern, m mode.

TensorFlow does not promote types: real factors are cast to the type of what they multiply.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.physics import MIN_INTENSITY, POISSON_OVERSHOOT, SMALLEST_STEP


def checkerboard(n_px: int) -> Tensor:
    """Return (N, N) complex64 of +1 and -1; N is even."""
    line = 1 - 2 * (np.arange(n_px) % 2)
    return tf.constant(np.outer(line, line), tf.complex64)


def shift_ramps(remainders_px: Tensor, n_px: int, dtype: tf.DType = tf.complex64) -> Tensor:
    """Return (n, 2, N) complex factors that shift a probe with checkerboard along [y, x].

    `remainders_px` is (n, 2) float64; the frequencies are centred, as such a probe's spectrum is.
    """
    frequency = np.fft.fftshift(np.fft.fftfreq(n_px))
    phase = -2 * math.pi * remainders_px[:, :, None] * frequency
    return tf.cast(tf.exp(tf.complex(tf.zeros_like(phase), phase)), dtype)


def shift_kernel(ramps: Tensor) -> Tensor:
    """Return (B, 1, N, N) complex64 from the factors (B, 2, N) of `shift_ramps`."""
    return (ramps[:, 0, :, None] * ramps[:, 1, None, :])[:, None]


def shift_probe(probe: Tensor, ramps: Tensor) -> Tensor:
    """Shift every mode of (m, N, N) by every row of `ramps` (B, 2, N); gives (B, m, N, N)."""
    return tf.signal.ifft2d(tf.signal.fft2d(probe) * shift_kernel(ramps))


def patch_index(corners: Tensor, n_px: int, width: int) -> Tensor:
    """Return the flat canvas index (B * N * N,) int64 of every pixel of patches at `corners`."""
    line = tf.range(n_px, dtype=tf.int64)
    rows = (corners[:, 0, None] + line) * tf.cast(width, tf.int64)
    columns = corners[:, 1, None] + line
    return tf.reshape(rows[:, :, None] + columns[:, None, :], [-1])


def gather_patches(object_: Tensor, index: Tensor, n_px: int) -> Tensor:
    """Return patches (B, 1, N, N) of the canvas (h, w); differentiable."""
    return tf.reshape(tf.gather(tf.reshape(object_, [-1]), index), [-1, 1, n_px, n_px])


def scatter_patches(patches: Tensor, index: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the canvas (h, w) on which patches (B, N, N) add up; adjoint of `gather_patches`."""
    # Several times faster on a CPU than `scatter_nd` and `tensor_scatter_nd_add`.
    canvas = tf.math.unsorted_segment_sum(tf.reshape(patches, [-1]), index, shape[0] * shape[1])
    return tf.reshape(canvas, shape)


def window_patches(canvas: Tensor, starts: Tensor, n_px: int) -> Tensor:
    """Return patches (B, N, N) of a canvas (h, w), whose first pixels are `starts` (B, 2) int32."""
    index = patch_index(tf.cast(starts, tf.int64), n_px, tf.shape(canvas)[1])
    return gather_patches(canvas, index, n_px)[:, 0]


def with_patches_added(canvas: Tensor, starts: Tensor, patches: Tensor) -> Tensor:
    """Return a canvas (h, w) with patches (B, N, N) added; the other arguments as above."""
    shape = tf.shape(canvas)
    index = patch_index(tf.cast(starts, tf.int64), patches.shape[-1], shape[1])
    return canvas + scatter_patches(patches, index, shape)


def absolute_square(waves: Tensor) -> Tensor:
    """Return |x|^2 of a complex tensor, several times faster than `abs(x)**2`."""
    return tf.math.real(waves * tf.math.conj(waves))


def as_complex(values: Tensor) -> Tensor:
    """Return real values as complex64; unlike `tf.cast`, without a warning where gradients pass."""
    return tf.complex(values, tf.zeros_like(values))


def far_field(exit_waves: Tensor) -> Tensor:
    """Propagate (..., N, N) exit waves of a probe with checkerboard; centred far field."""
    return tf.signal.fft2d(exit_waves) * (1 / exit_waves.shape[-1])


def near_field(waves: Tensor) -> Tensor:
    """Invert `far_field`."""
    return tf.signal.ifft2d(waves) * float(waves.shape[-1])


def predict_counts(patches: Tensor, probes: Tensor) -> Tensor:
    """Return expected counts (B, N, N) of patches (B, 1, N, N) under probes (B | 1, m, N, N)."""
    return tf.reduce_sum(absolute_square(far_field(probes * patches)), 1)


def poisson_loss(predicted: Tensor, counts: Tensor, valid: Tensor, mean_count: float) -> Tensor:
    """Return the loss of the oracle; `valid` is (N, N) float32, 1 where a pixel counts."""
    i = tf.maximum(predicted, MIN_INTENSITY)
    best = counts - tf.math.xlogy(counts, counts)
    terms = (i - counts * tf.math.log(i) - best) * valid
    return tf.reduce_sum(terms) / (_length(counts) * tf.reduce_sum(valid) * mean_count)


def amplitude_error(predicted: Tensor, counts: Tensor, valid: Tensor, mean_count: float) -> Tensor:
    """Return the error of the oracle; arguments as for `poisson_loss`."""
    amplitude = tf.sqrt(tf.maximum(predicted, MIN_INTENSITY))
    difference = tf.abs(amplitude - tf.sqrt(counts)) * valid
    pixels = _length(counts) * tf.reduce_sum(valid)
    return tf.reduce_sum(difference) / (pixels * tf.sqrt(mean_count))


def object_error(patches: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return the mean absolute error of patches (n, N, N), weighted by `weight` (N, N)."""
    total = tf.reduce_sum(tf.abs(patches - truth) * weight)
    return total / (_length(patches) * tf.reduce_sum(weight))


def total_variation(objects: Tensor) -> Tensor:
    """Return the mean length of the gradient of objects (n, h, w) complex64."""
    down = (objects[:, 1:] - objects[:, :-1])[:, :, :-1]
    right = (objects[:, :, 1:] - objects[:, :, :-1])[:, :-1]
    square = absolute_square(down) + absolute_square(right) + SMALLEST_STEP**2
    return tf.reduce_mean(tf.sqrt(square))


def displacement_figures(patches: Tensor, probes: Tensor, change: Tensor) -> Tensor:
    """Return g_y, g_x, h_yy, h_xx, h_xy (n, 5); see `exposures.displacement_figures`.

    From patches (n, N, N), and probes and changes of their exit waves, both (n, m, N, N).
    """
    y, x = _slopes(patches)
    pulled = tf.reduce_sum(tf.math.conj(probes) * change, 1)
    power = tf.reduce_sum(absolute_square(probes), 1)
    terms = (
        tf.math.real(tf.math.conj(y) * pulled),
        tf.math.real(tf.math.conj(x) * pulled),
        absolute_square(y) * power,
        absolute_square(x) * power,
        tf.math.real(tf.math.conj(y) * x) * power,
    )
    return tf.stack([tf.reduce_sum(term, (1, 2)) for term in terms], 1)


def _slopes(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slopes of the oracle of patches (n, N, N), zero at the edges."""
    y = (patches[:, 2:] - patches[:, :-2]) / 2
    x = (patches[:, :, 2:] - patches[:, :, :-2]) / 2
    return tf.pad(y, [(0, 0), (1, 1), (0, 0)]), tf.pad(x, [(0, 0), (0, 0), (1, 1)])


def smooth(waves: Tensor, kernel: Tensor) -> Tensor:
    """Filter waves (..., N, N) with a `kernel` (3, 3) float32, zero beyond the edges."""
    n_px = waves.shape[-1]
    parts = tf.stack([tf.math.real(waves), tf.math.imag(waves)])
    filtered = tf.nn.conv2d(
        tf.reshape(parts, [-1, n_px, n_px, 1]), kernel[:, :, None, None], 1, 'SAME'
    )
    real, imaginary = tf.unstack(tf.reshape(filtered, tf.shape(parts)))
    return tf.complex(real, imaginary)


def count_factor(intensity: Tensor, counts: Tensor, valid: Tensor, background: Tensor) -> Tensor:
    """Return (factor - 1) of the oracle's `impose_counts`, (B, N, N): what a wave changes by."""
    counts, valid, background = (
        tf.cast(each, intensity.dtype) for each in (counts, valid, background)
    )
    ratio = counts / tf.maximum(intensity + background, MIN_INTENSITY)
    return (0.25 * (1 + tf.sqrt(1 + 8 * ratio)) - 1) * (POISSON_OVERSHOOT * valid)


def _length(patterns: Tensor) -> Tensor:
    return tf.cast(tf.shape(patterns)[0], tf.float32)
