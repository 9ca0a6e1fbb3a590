"""CBAM, what a level of the encoder of 'cnn' may do before pooling: `cbam_encoder`.

Convolutional block attention (Woo, Park, Lee & Kweon, ECCV 2018): each channel is weighed by what
it holds anywhere, then each pixel by what it holds in any channel.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.backends.tensorflow.layers import (
    Composite,
    Convolution,
    new_variable,
)
from ptychodus_torch_plugin.config.model import CBAM_REDUCTION

SPATIAL_PX = 7
"""Side of the kernel that looks at a pixel and its surroundings."""


class Attention(Composite):
    """Channels (B, h, w, c) times a gate for each channel, then times a gate for each pixel."""

    def __init__(self, channels: int, rng: np.random.Generator) -> None:
        super().__init__()
        squeezed = channels // CBAM_REDUCTION
        spread = math.sqrt(2 / (channels + squeezed))
        self.channel = [
            Linear(channels, squeezed, math.sqrt(2 / channels), rng),
            Linear(squeezed, channels, spread, rng),
        ]
        spread = math.sqrt(2 / (SPATIAL_PX**2 * 3))
        weight = rng.normal(scale=spread, size=(1, 2, SPATIAL_PX, SPATIAL_PX))
        self.spatial = Convolution(weight.astype(np.float32), None)

    def call(self, x: Tensor) -> Tensor:
        pooled = tf.reduce_mean(x, (1, 2)), tf.reduce_max(x, (1, 2))
        gates = tf.sigmoid(self._weighed(pooled[0]) + self._weighed(pooled[1]))
        x *= gates[:, None, None]
        seen = tf.stack([tf.reduce_max(x, -1), tf.reduce_mean(x, -1)], -1)
        return x * tf.sigmoid(self.spatial(seen))

    def _weighed(self, pooled: Tensor) -> Tensor:
        first, second = self.channel
        return second(tf.nn.relu(first(pooled)))


class Linear(Composite):
    """A product (B, in) -> (B, out) with a weight (out, in), and a bias."""

    def __init__(self, inputs: int, outputs: int, spread: float, rng: np.random.Generator) -> None:
        super().__init__()
        weight = rng.normal(scale=spread, size=(outputs, inputs)).astype(np.float32)
        self.weight = new_variable(self, 'weight', weight)
        self.bias = new_variable(self, 'bias', np.zeros(outputs, np.float32))

    def call(self, x: Tensor) -> Tensor:
        weight, bias = (tf.cast(variable, x.dtype) for variable in (self.weight, self.bias))
        return tf.matmul(x, weight, transpose_b=True) + bias
