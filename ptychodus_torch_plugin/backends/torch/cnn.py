"""The reference network: from a group of diffraction patterns to patches of the object.

An encoder shrinks the patterns to 8 x 8 pixels, and two decoders make the amplitude and the phase
of the patches from that.  The graph is that of PtychoPINN in its TensorFlow variant;
`specs/model-graph.md` has it with every option, and the canonical weight names, which are the names
of this module's parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptychodus_torch_plugin.backends.torch.attention import Attention
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ShapeError

BOTTLENECK_PX = 8
"""Side of what the encoder returns, for every N."""

FIRST_INTENSITY_SCALE = 2.0
"""Transmission of the object where the network says 1: 0.5, a sigmoid's middle, means 1."""

SMALL = 0.03
"""First output weights relative to Glorot's, so that an untrained network is nearly constant."""

CACHE_BYTES = 2**21
"""What a core holds close by of the largest layer; on a larger one it waits for memory."""

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
    'sigmoid': Ending(torch.sigmoid, 0.0, SWISH_HALF),
    'swish': Ending(functional.silu, SWISH_HALF, SWISH_HALF),
    'softplus': Ending(functional.softplus, math.log(math.expm1(0.5)), SWISH_HALF),
    'relu': Ending(functional.relu, 0.5, SWISH_HALF),
}
"""By `amp_activation`; all start at 0.5."""

PHASE = Ending(lambda x: math.pi * torch.tanh(x), 0.0, 0.0)
"""In radians; starts at 0."""


def encoder_filters(config: ModelConfig) -> list[int]:
    """Return the filters of each level of the encoder; each halves the side."""
    return [config.n_filters_scale * 128 >> level for level in reversed(range(_levels(config)))]


def decoder_filters(config: ModelConfig) -> list[int]:
    """Return the filters of each level of a decoder; each doubles the side, up to N / 2."""
    return [config.n_filters_scale * 32 << level for level in reversed(range(_levels(config) - 1))]


def _levels(config: ModelConfig) -> int:
    return (config.N // BOTTLENECK_PX).bit_length() - 1


class CnnNetwork(nn.Module):
    """Amplitudes of groups of patterns (B, C, N, N) to complex patches (B, C | 1, N, N)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_px, self.gridsize = config.N, config.gridsize
        self.patterns_per_group = config.patterns_per_group
        filters = encoder_filters(config)
        inputs = (self.patterns_per_group, *filters[:-1])
        block = AttentiveBlock if config.cbam_encoder else Block
        self.encoder = nn.ModuleList(block(i, o) for i, o in zip(inputs, filters, strict=True))
        decoder = PaddedDecoder if config.pad_object else WholeDecoder
        self.amplitude = decoder(config, AMPLITUDES[config.amp_activation])
        self.phase = decoder(config, PHASE)
        channels = max(decoder_filters(config)[-1], _last_filters(config))
        self._largest_decoded = channels * (config.N // 2) ** 2
        scale = torch.tensor(math.log(FIRST_INTENSITY_SCALE), dtype=torch.float32)
        self.log_intensity_scale = nn.Parameter(scale, requires_grad=False)

    @property
    def intensity_scale(self) -> Tensor:
        """Factor () float32 from the network's patches to the object's transmission."""
        return self.log_intensity_scale.exp()

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Return the patches, complex64, without `intensity_scale`.

        Parameters
        ----------
        amplitudes : (B, C, N, N) float32
            Square roots of counts, over the scalar of the training set.

        Raises
        ------
        ShapeError
            If the groups have another size than the network was made for.
        """
        self._check_shape(amplitudes)
        # A copy, because one channel counts as channels-last already and would be left as it is;
        # the gradients of the convolutions are up to twice as fast in this layout.
        x = amplitudes.clone(memory_format=torch.channels_last)
        for block in self.encoder:
            assert isinstance(block, Block)
            x = _in_parts(block.pooled, x, block.conv1.out_channels * x[0, 0].numel())
        # Single precision, even where layers run in a shorter one.
        amplitude, phase = (self._decoded(part, x) for part in (self.amplitude, self.phase))
        # Not torch.polar: its gradient is wrong for negative amplitudes, which swish can make.
        return torch.complex(amplitude * phase.cos(), amplitude * phase.sin())

    def _decoded(self, part: nn.Module, x: Tensor) -> Tensor:
        """Return the amplitude or the phase (B, c, N, N) float32 of the encoder's result."""
        return _in_parts(part, x, self._largest_decoded).float()

    def _check_shape(self, amplitudes: Tensor) -> None:
        shape, n_px = tuple(amplitudes.shape), self.n_px
        if len(shape) != 4 or shape[2:] != (n_px, n_px):
            raise ShapeError(
                f'amplitudes has shape {shape}; the network expects (B, '
                f'{self.patterns_per_group}, {n_px}, {n_px}). Give groups of patterns of N = '
                f'{n_px}, or a model that was made for patterns of this size.'
            )
        if shape[1] != self.patterns_per_group:
            raise ShapeError(
                f'the network takes groups of {self.patterns_per_group} pattern(s) (gridsize '
                f'{self.gridsize}), but got {shape[1]}, in amplitudes of shape {shape}. Group the '
                'patterns with the gridsize of the model.'
            )


class Block(nn.Module):
    """Two 3 x 3 convolutions, each followed by a ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
            nn.init.zeros_(_bias(conv))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self._before_relu(x), inplace=True)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the maxima of 2 x 2 pixels of the block."""
        # A maximum of ReLUs is the ReLU of a maximum, of which there are four times fewer.
        return functional.relu(functional.max_pool2d(self._before_relu(x), 2), inplace=True)

    def _before_relu(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv2(functional.relu(self.conv1(x), inplace=True))
        return result


class AttentiveBlock(Block):
    """A block, and its channels and pixels weighed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.attention = Attention(outputs)

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = self.attention(super().forward(x))
        return weighed

    def pooled(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(self(x), 2)


class Output(nn.Conv2d):
    """A 3 x 3 convolution before an activation; returns about `bias` before training."""

    def __init__(self, inputs: int, outputs: int, bias: float) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        nn.init.xavier_normal_(self.weight, gain=SMALL)
        nn.init.constant_(_bias(self), bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.out_channels > 1:
            return super().forward(x)
        return _spread(x, self.weight.flip(2, 3), _bias(self), 1)


class EnlargingOutput(Output):
    """The same convolution of an input that is enlarged by repeating pixels, h -> 2 h.

    It is computed before enlarging, as one convolution for each of the four pixels that come from
    one: along an axis, pixel 2i of the result needs input pixels i - 1 and i, and pixel 2i + 1
    needs i and i + 1.  So the enlarged channels, by far the largest tensors, need not exist.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, bias: float) -> None:
        super().__init__(inputs, outputs, bias)
        # [a, t, k]: whether tap k of the kernel falls on input pixel i - 1 + t, for pixel 2i + a.
        taps = [[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]]
        self.register_buffer('taps', torch.tensor(taps, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.out_channels == 1:
            # What input pixel i adds to pixels 2i - 1 to 2i + 2 of the result.
            spread = self.taps[(1, 0, 1, 0), (2, 1, 1, 0)]
            kernel = torch.einsum('pk,ql,oikl->oipq', spread, spread, self.weight)
            return _spread(x, kernel, _bias(self), 2)
        kernels = torch.einsum('atk,bul,oikl->oabitu', self.taps, self.taps, self.weight)
        kernels = kernels.reshape(-1, self.in_channels, 3, 3)
        biases = _bias(self)[:, None].expand(-1, 4).reshape(-1)
        return functional.pixel_shuffle(functional.conv2d(x, kernels, biases, padding=1), 2)


def _spread(x: Tensor, kernel: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Return (B, 1, s h, s w) float32: to it each pixel of (B, i, h, w) adds by (1, i, k, k).

    A convolution with a single output would leave most of a vector unit idle.
    """
    side = kernel.shape[-1]
    values = kernel.permute(0, 2, 3, 1).flatten(0, 2) @ x.flatten(2)
    shape = stride * x.shape[2], stride * x.shape[3]
    return functional.fold(values.float(), shape, side, padding=1, stride=stride) + bias


class EnlargingBlock(Block):
    """A block, and its output at twice the resolution, before the activation."""

    def __init__(self, inputs: int, filters: int, outputs: int, bias: float) -> None:
        super().__init__(inputs, filters)
        self.out = EnlargingOutput(filters, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(super().forward(x))


class Decoder(nn.Module):
    """What both kinds of decoders share: layers from the encoder's result to half the side N."""

    def __init__(self, config: ModelConfig, ending: Ending) -> None:
        super().__init__()
        filters = decoder_filters(config)
        inputs = (encoder_filters(config)[-1], *filters[:-1])
        self.decoder = nn.ModuleList(Block(i, o) for i, o in zip(inputs, filters, strict=True))
        self.activation = ending.activation
        self.probe_big = config.probe_big
        self.margin_px = config.N // 4

    def decoded(self, x: Tensor) -> Tensor:
        """Return (B, s * 32, N / 2, N / 2) of (B, s * 128, 8, 8)."""
        for block in self.decoder:
            x = functional.interpolate(block(x), scale_factor=2, mode='nearest')
        return x

    def padded(self, center: Tensor) -> Tensor:
        """Return the central half (..., N / 2, N / 2) with zeros around it, (..., N, N)."""
        return functional.pad(center, [self.margin_px] * 4)


class PaddedDecoder(Decoder):
    """Different channels make the centre of the patch and what lies around it."""

    outside: Tensor

    def __init__(self, config: ModelConfig, ending: Ending) -> None:
        super().__init__(config, ending)
        self.outer, patches = config.outer_channels, _patches(config)
        self.center = Output(decoder_filters(config)[-1] - self.outer, patches, ending.bias)
        if self.probe_big:
            filters = _last_filters(config)
            self.border = EnlargingBlock(self.outer, filters, patches, ending.border_bias)
            outside = 1 - self.padded(torch.ones(config.N // 2, config.N // 2))
            self.register_buffer('outside', outside, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.decoded(x)
        center = self.padded(self.activation(self.center(x[:, : -self.outer])))
        if not self.probe_big:
            return center
        return center + self.outside * functional.silu(self.border(x[:, -self.outer :]))


class WholeDecoder(Decoder):
    """All channels make the whole patch."""

    def __init__(self, config: ModelConfig, ending: Ending) -> None:
        super().__init__(config, ending)
        inputs, filters = decoder_filters(config)[-1], _last_filters(config)
        self.whole = EnlargingBlock(inputs, filters, _patches(config), ending.bias)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.activation(self.whole(self.decoded(x)))
        if self.probe_big:
            return whole
        inside = slice(self.margin_px, -self.margin_px)
        return self.padded(whole[..., inside, inside])


def _in_parts(layers: Callable[[Tensor], Tensor], x: Tensor, per_group: int) -> Tensor:
    """Return what layers make of groups (B, ...), on a CPU so many at once as its caches hold.

    `per_group` is the number of values of a group in the largest layer.  Training keeps all layers
    anyway, and accelerators want many groups at once.
    """
    if torch.is_grad_enabled() or x.device.type != 'cpu':
        return layers(x)
    at_once = max(1, CACHE_BYTES * torch.get_num_threads() // (4 * per_group))
    return layers(x) if len(x) <= at_once else torch.cat([layers(y) for y in x.split(at_once)])


def _patches(config: ModelConfig) -> int:
    return config.patterns_per_group if config.object_big else 1


def _last_filters(config: ModelConfig) -> int:
    """Return the filters of the layers that end at the full side N."""
    return config.border_filters or config.n_filters_scale * 2048 // config.N


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
