"""The reference network: from a group of diffraction patterns to patches of the object.

An encoder shrinks the patterns to 8 x 8 pixels, and two decoders make the amplitude and the phase
of the patches from that.  The graph is that of PtychoPINN in its TensorFlow variant;
`specs/model-graph.md` has it with every option, and the canonical weight names, which are the paths
of this module's attributes.  Channels are the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.tensorflow.attention import Attention
from ptychodus_torch_plugin.backends.tensorflow.layers import (
    CanonicalModel,
    Composite,
    Convolution,
    new_variable,
)
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ShapeError

BOTTLENECK_PX = 8
"""Side of what the encoder returns, for every N."""

FIRST_INTENSITY_SCALE = 2.0
"""Transmission of the object where the network says 1: 0.5, a sigmoid's middle, means 1."""

SMALL = 0.03
"""First output weights relative to Glorot's, so that an untrained network is nearly constant."""

SWISH_HALF = 0.7399614
"""Where swish is 0.5."""


@dataclass(frozen=True)
class Ending:
    """How a decoder ends, and the biases of its outputs before training."""

    activation: Callable[[Tensor], Tensor]
    bias: float
    border_bias: float
    """Of the border, which always ends in swish."""


AMPLITUDES = {
    'sigmoid': Ending(tf.sigmoid, 0.0, SWISH_HALF),
    'swish': Ending(tf.nn.silu, SWISH_HALF, SWISH_HALF),
    'softplus': Ending(tf.math.softplus, math.log(math.expm1(0.5)), SWISH_HALF),
    'relu': Ending(tf.nn.relu, 0.5, SWISH_HALF),
}
"""By `amp_activation`; all start at 0.5."""

PHASE = Ending(lambda x: math.pi * tf.tanh(x), 0.0, 0.0)
"""In radians; starts at 0."""


def encoder_filters(config: ModelConfig) -> list[int]:
    """Return the filters of each level of the encoder; each halves the side."""
    return [config.n_filters_scale * 128 >> level for level in reversed(range(_levels(config)))]


def decoder_filters(config: ModelConfig) -> list[int]:
    """Return the filters of each level of a decoder; each doubles the side, up to N / 2."""
    return [config.n_filters_scale * 32 << level for level in reversed(range(_levels(config) - 1))]


def _levels(config: ModelConfig) -> int:
    return (config.N // BOTTLENECK_PX).bit_length() - 1


class CnnNetwork(CanonicalModel):
    """Amplitudes of groups of patterns (B, N, N, C) to complex patches (B, N, N, C | 1).

    The weights before training are drawn from `seed`.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.n_px, self.gridsize = config.N, config.gridsize
        self.patterns_per_group = config.patterns_per_group
        filters = encoder_filters(config)
        inputs = (self.patterns_per_group, *filters[:-1])
        block = AttentiveBlock if config.cbam_encoder else Block
        self.encoder = [block(i, o, rng) for i, o in zip(inputs, filters, strict=True)]
        decoder = PaddedDecoder if config.pad_object else WholeDecoder
        self.amplitude = decoder(config, AMPLITUDES[config.amp_activation], rng)
        self.phase = decoder(config, PHASE, rng)
        first = np.array(math.log(FIRST_INTENSITY_SCALE), np.float32)
        self.log_intensity_scale = new_variable(self, 'log_intensity_scale', first, trainable=False)
        self._graphs: dict[str, Callable[[Tensor], Tensor]] = {}

    @property
    def intensity_scale(self) -> Tensor:
        """Factor () float32 from the network's patches to the object's transmission."""
        return tf.exp(self.log_intensity_scale)

    def call(self, amplitudes: Tensor) -> Tensor:
        """Return the patches, complex64, without `intensity_scale`.

        Parameters
        ----------
        amplitudes : (B, N, N, C) float32
            Square roots of counts, over the scalar of the training set.

        Raises
        ------
        ShapeError
            If the groups have another size than the network was made for.
        """
        self._check_shape(amplitudes)
        x = amplitudes
        for block in self.encoder:
            x = tf.nn.max_pool2d(block(x), 2, 2, 'VALID')
        # Single precision, even where layers run in a shorter one.
        amplitude, phase = (tf.cast(part(x), tf.float32) for part in (self.amplitude, self.phase))
        return tf.complex(amplitude * tf.cos(phase), amplitude * tf.sin(phase))

    def predicted(self, amplitudes: Tensor) -> Tensor:
        """Return what `call` does, faster: by a graph, which serves batches of every size.

        It is traced once for each precision, and lives as long as the network.
        """
        self._check_shape(amplitudes)
        precision = self.encoder[0].conv1.compute_dtype
        if precision not in self._graphs:
            groups = tf.TensorSpec((None, self.n_px, self.n_px, self.patterns_per_group))
            self._graphs[precision] = tf.function(
                lambda x: self(x), input_signature=[groups], autograph=False
            )
        return self._graphs[precision](amplitudes)

    def _check_shape(self, amplitudes: Tensor) -> None:
        shape, n_px = tuple(amplitudes.shape), self.n_px
        if len(shape) != 4 or shape[1:3] != (n_px, n_px):
            raise ShapeError(
                f'amplitudes has shape {shape}; the network expects (B, {n_px}, {n_px}, '
                f'{self.patterns_per_group}). Give groups of patterns of N = {n_px}, or a model '
                'that was made for patterns of this size.'
            )
        if shape[3] != self.patterns_per_group:
            raise ShapeError(
                f'the network takes groups of {self.patterns_per_group} pattern(s) (gridsize '
                f'{self.gridsize}), but got {shape[3]}, in amplitudes of shape {shape}. Group the '
                'patterns with the gridsize of the model.'
            )


class Block(Composite):
    """Two 3 x 3 convolutions, each followed by a ReLU."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.conv1 = _before_relu(inputs, outputs, rng)
        self.conv2 = _before_relu(outputs, outputs, rng)

    def call(self, x: Tensor) -> Tensor:
        return tf.nn.relu(self.conv2(tf.nn.relu(self.conv1(x))))


def _before_relu(inputs: int, outputs: int, rng: np.random.Generator) -> Convolution:
    """Return a convolution with the start of He et al., arXiv:1502.01852."""
    weight = rng.normal(scale=math.sqrt(2 / (9 * inputs)), size=(outputs, inputs, 3, 3))
    return Convolution(weight.astype(np.float32), np.zeros(outputs, np.float32))


class AttentiveBlock(Block):
    """A block, and its channels and pixels weighed."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        super().__init__(inputs, outputs, rng)
        self.attention = Attention(outputs, rng)

    def call(self, x: Tensor) -> Tensor:
        return self.attention(super().call(x))


class Output(Convolution):
    """A 3 x 3 convolution before an activation; returns about `bias` before training."""

    def __init__(self, inputs: int, outputs: int, bias: float, rng: np.random.Generator) -> None:
        spread = SMALL * math.sqrt(2 / (9 * (inputs + outputs)))
        weight: FloatArray = rng.normal(scale=spread, size=(outputs, inputs, 3, 3)).astype('f4')
        super().__init__(weight, np.full(outputs, bias, np.float32))


class EnlargingOutput(Output):
    """The same convolution of an input that is enlarged by repeating pixels, h -> 2 h.

    It is computed before enlarging, as one convolution for each of the four pixels that come from
    one: along an axis, pixel 2i of the result needs input pixels i - 1 and i, and pixel 2i + 1
    needs i and i + 1.  So the enlarged channels, by far the largest tensors, need not exist.
    """

    def call(self, x: Tensor) -> Tensor:
        # [a, t, k]: whether tap k of the kernel falls on input pixel i - 1 + t, for pixel 2i + a.
        taps = [[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]]
        taps = tf.constant(taps, self.compute_dtype)
        kernel = tf.convert_to_tensor(self.weight)
        folded = tf.einsum('atk,bul,klio->tuiabo', taps, taps, kernel)
        folded = tf.reshape(folded, [3, 3, kernel.shape[2], -1])
        four = tf.nn.conv2d(x, folded, 1, 'SAME')
        return tf.nn.bias_add(tf.nn.depth_to_space(four, 2), self.bias)


class EnlargingBlock(Block):
    """A block, and its output at twice the resolution, before the activation."""

    def __init__(
        self, inputs: int, filters: int, outputs: int, bias: float, rng: np.random.Generator
    ) -> None:
        super().__init__(inputs, filters, rng)
        self.out = EnlargingOutput(filters, outputs, bias, rng)

    def call(self, x: Tensor) -> Tensor:
        return self.out(super().call(x))


class Decoder(Composite):
    """What both kinds of decoders share: layers from the encoder's result to half the side N."""

    def __init__(self, config: ModelConfig, ending: Ending, rng: np.random.Generator) -> None:
        super().__init__()
        filters = decoder_filters(config)
        inputs = (encoder_filters(config)[-1], *filters[:-1])
        self.decoder = [Block(i, o, rng) for i, o in zip(inputs, filters, strict=True)]
        self.activation = ending.activation
        self.probe_big = config.probe_big
        self.margin_px = config.N // 4

    def decoded(self, x: Tensor) -> Tensor:
        """Return (B, N / 2, N / 2, s * 32) of (B, 8, 8, s * 128)."""
        for block in self.decoder:
            # Not `tf.image.resize`, whose gradient is not deterministic on a GPU.
            x = tf.repeat(tf.repeat(block(x), 2, axis=1), 2, axis=2)
        return x

    def padded(self, center: Tensor) -> Tensor:
        """Return the central half (B, N / 2, N / 2, c) with zeros around it, (B, N, N, c)."""
        margin = [self.margin_px] * 2
        return tf.pad(center, [[0, 0], margin, margin, [0, 0]])


class PaddedDecoder(Decoder):
    """Different channels make the centre of the patch and what lies around it."""

    def __init__(self, config: ModelConfig, ending: Ending, rng: np.random.Generator) -> None:
        super().__init__(config, ending, rng)
        self.outer, patches = config.outer_channels, _patches(config)
        inputs = decoder_filters(config)[-1] - self.outer
        self.center = Output(inputs, patches, ending.bias, rng)
        if self.probe_big:
            filters = _last_filters(config)
            self.border = EnlargingBlock(self.outer, filters, patches, ending.border_bias, rng)
            inside = np.pad(np.ones((config.N // 2, config.N // 2)), self.margin_px)
            self.outside = (1 - inside[:, :, None]).astype(np.float32)

    def call(self, x: Tensor) -> Tensor:
        x = self.decoded(x)
        center = self.padded(self.activation(self.center(x[..., : -self.outer])))
        if not self.probe_big:
            return center
        border = tf.nn.silu(self.border(x[..., -self.outer :]))
        return center + tf.cast(self.outside, border.dtype) * border


class WholeDecoder(Decoder):
    """All channels make the whole patch."""

    def __init__(self, config: ModelConfig, ending: Ending, rng: np.random.Generator) -> None:
        super().__init__(config, ending, rng)
        inputs, filters = decoder_filters(config)[-1], _last_filters(config)
        self.whole = EnlargingBlock(inputs, filters, _patches(config), ending.bias, rng)

    def call(self, x: Tensor) -> Tensor:
        whole = self.activation(self.whole(self.decoded(x)))
        if self.probe_big:
            return whole
        inside = slice(self.margin_px, -self.margin_px)
        return self.padded(whole[:, inside, inside])


def _patches(config: ModelConfig) -> int:
    return config.patterns_per_group if config.object_big else 1


def _last_filters(config: ModelConfig) -> int:
    """Return the filters of the layers that end at the full side N."""
    return config.border_filters or config.n_filters_scale * 2048 // config.N
