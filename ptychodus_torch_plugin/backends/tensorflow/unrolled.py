"""The unrolled network: a small U-Net on the object's canvas, between two stacks of sweeps.

It takes the object after the first sweeps and returns a better one of the same shape (any height
and width).  `specs/model-graph.md` has the graph and the canonical weight names, which are the
paths of this module's attributes.  Channels are the last axis.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.backends.tensorflow.layers import (
    CanonicalModel,
    Composite,
    Convolution,
)

NOISE_FLOOR = 1.0
"""Photons per object pixel below which its noise is taken as that of one photon."""

LEAK = 0.1
"""Slope of the activation for negative values."""

TILE_PX = 1024
"""Largest side of a canvas that is computed in one piece; larger ones are tiled."""


class Block(Composite):
    """Two 3 x 3 convolutions, each followed by a leaky ReLU, which cannot die."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.conv1 = _before_leak(inputs, outputs, rng)
        self.conv2 = _before_leak(outputs, outputs, rng)

    def call(self, x: Tensor) -> Tensor:
        return _leaky_relu(self.conv2(_leaky_relu(self.conv1(x))))


def _leaky_relu(x: Tensor) -> Tensor:
    # Not `tf.nn.leaky_relu`: with its gradient, TensorFlow 2.21 fails to optimise the graph.
    return tf.maximum(x, LEAK * x)


def _before_leak(inputs: int, outputs: int, rng: np.random.Generator) -> Convolution:
    """Return a convolution that starts uniform within 1 / sqrt(values seen), as PyTorch's do."""
    bound = 1 / math.sqrt(9 * inputs)
    weight = rng.uniform(-bound, bound, size=(outputs, inputs, 3, 3))
    bias = rng.uniform(-bound, bound, size=outputs)
    return Convolution(weight.astype(np.float32), bias.astype(np.float32))


class UNet(Composite):
    """(B, h, w, 3) -> (B, h, w, 2), h and w multiples of `multiple`; starts as zero."""

    def __init__(self, channels: tuple[int, ...], rng: np.random.Generator) -> None:
        super().__init__()
        inputs = (3, *channels[:-1])
        self.encoder = [Block(i, o, rng) for i, o in zip(inputs, channels, strict=True)]
        self.decoder = [
            Block(deep + skip, skip, rng)
            for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        ]
        nothing = np.zeros((2, channels[0], 1, 1), np.float32), np.zeros(2, np.float32)
        self.head = Convolution(*nothing)
        self.multiple = 2 ** (len(channels) - 1)
        # Two 3 x 3 convolutions a level reach two pixels of that level, down and up again.
        self.reach_px = 4 * sum(2**level for level in range(len(channels))) + self.multiple

    def call(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(tf.nn.avg_pool2d(x, 2, 2, 'VALID') if level else x)
            skips.append(x)
        skips.pop()
        for block in self.decoder:
            x = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
            x = block(tf.concat([x, skips.pop()], -1))
        return self.head(x)


class UnrolledNetwork(CanonicalModel):
    """Corrects an object (h, w) complex64, knowing how many photons saw each pixel.

    The weights before training are drawn from `seed`.
    """

    def __init__(self, channels: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        self.unet = UNet(channels, np.random.default_rng(seed))

    def call(self, object_: Tensor, photons: Tensor, gauge: Tensor) -> Tensor:
        """Return the corrected object.

        Parameters
        ----------
        object_ : (h, w) complex64
        photons : (h, w) float32
            Photons that fell on each pixel: the network's measure of noise.
        gauge : () complex64
            Mean transmission (`mean_transmission`), divided out so that a global phase or scale of
            the object changes nothing but the same phase and scale of the result.
        """
        noise = tf.math.rsqrt(photons + NOISE_FLOOR)
        plain = object_ / gauge
        features = tf.stack([tf.math.real(plain) - 1, tf.math.imag(plain), noise], -1)[None]
        correction = tf.cast(self._padded(features)[0], tf.float32)
        # Where no photon fell the data say nothing, and the object stays as it was.
        seen = photons / (photons + NOISE_FLOOR)
        # In units of the noise, corrections are of order one at any dose.
        real, imaginary = tf.unstack(correction * (seen * noise)[..., None], axis=-1)
        return object_ + gauge * tf.complex(real, imaginary)

    def _padded(self, features: Tensor) -> Tensor:
        height, width = tf.shape(features)[1], tf.shape(features)[2]
        multiple = self.unet.multiple
        below = tf.repeat(features[:, -1:], -height % multiple, axis=1)
        tall = tf.concat([features, below], 1)
        beside = tf.repeat(tall[:, :, -1:], -width % multiple, axis=2)
        return self.unet(tf.concat([tall, beside], 2))[:, :height, :width]

    def tiled(self, object_: Tensor, photons: Tensor, gauge: Tensor) -> Tensor:
        """Return the corrected object of any size in bounded memory: tiles with wide margins."""
        height, width = object_.shape
        if max(height, width) <= TILE_PX:
            return self(object_, photons, gauge)
        multiple = self.unet.multiple
        margin = -(-self.unet.reach_px // multiple) * multiple
        rows = []
        for y in range(0, height, TILE_PX):
            tiles = []
            for x in range(0, width, TILE_PX):
                top, left = max(0, y - margin), max(0, x - margin)
                outer = (
                    slice(top, y + TILE_PX + margin),
                    slice(left, x + TILE_PX + margin),
                )
                tile = self(object_[outer], photons[outer], gauge)
                tiles.append(tile[y - top : y - top + TILE_PX, x - left : x - left + TILE_PX])
            rows.append(tf.concat(tiles, 1))
        return tf.concat(rows, 0)


def mean_transmission(object_: Tensor, photons: Tensor) -> Tensor:
    """Return the photon-weighted mean of the object, () complex64: rms amplitude, mean phase."""
    weight = photons / tf.reduce_sum(photons)
    mean = tf.reduce_sum(object_ * tf.cast(weight, object_.dtype))
    power = tf.reduce_sum(tf.math.real(object_ * tf.math.conj(object_)) * weight)
    return tf.cast(tf.sqrt(power), mean.dtype) * tf.sign(mean)
