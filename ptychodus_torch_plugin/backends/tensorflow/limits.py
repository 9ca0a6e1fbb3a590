"""What the machine can do in TensorFlow: convolutions and Fourier transforms.

See `protocol.Kernel`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ptychodus_torch_plugin.backends.protocol import Kernel
from ptychodus_torch_plugin.backends.tensorflow.devices import threads as limited_threads
from ptychodus_torch_plugin.config import ExecutionConfig

DTYPES = {'32-true': tf.float32, 'bf16-mixed': tf.bfloat16}

CONVOLUTIONS = ((16, 64, 32), (16, 128, 16), (8, 128, 32))
"""Images, channels and side: sizes as the networks have them."""

FFT_SIDES_PX = (64, 128, 256)
FFT_BYTES = (2**19, 2**21)
"""Sizes of a batch: half of what a core's cache holds, and all of it."""


def limits(threads: int) -> dict[str, list[Kernel]]:
    """Return kernels at so many threads; see `protocol.OffersLimits`."""
    execution = ExecutionConfig(num_threads=threads)
    with limited_threads(execution):
        named = {f'convolution {name}': convolutions(dtype) for name, dtype in DTYPES.items()}
        return named | {f'fft2 {side_px}': transforms(side_px) for side_px in FFT_SIDES_PX}


def convolutions(dtype: tf.DType) -> list[Kernel]:
    """Return 3 x 3 convolutions, channels last."""
    return [_convolution(*size, dtype) for size in CONVOLUTIONS]


def transforms(side_px: int) -> list[Kernel]:
    """Return batches of 2-D transforms of complex64."""
    return [_transform(max(1, size // (8 * side_px**2)), side_px) for size in FFT_BYTES]


def _convolution(images: int, channels: int, side_px: int, dtype: tf.DType) -> Kernel:
    x = tf.cast(tf.random.normal((images, side_px, side_px, channels)), dtype)
    kernel = tf.cast(tf.random.normal((3, 3, channels, channels)), dtype)
    run = _compiled(lambda x: tf.nn.conv2d(x, kernel, strides=1, padding='SAME'), x)
    return Kernel(run, 2.0 * 9 * images * side_px**2 * channels**2, 'FLOP')


def _transform(count: int, side_px: int) -> Kernel:
    parts = tf.random.normal((2, count, side_px, side_px))
    return Kernel(_compiled(tf.signal.fft2d, tf.complex(*tf.unstack(parts))), count, 'transforms')


def _compiled(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> Callable[[], object]:
    graph = tf.function(function)

    def run() -> object:
        with tf.device('/CPU:0'):
            return graph(x)

    return run
