"""Shapes of the canonical weights of 'cnn': `specs/model-graph.md`, without a framework."""

from __future__ import annotations

from itertools import pairwise

from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.config.model import CBAM_REDUCTION

BOTTLENECK_PX = 8
PARTS = ('amplitude', 'phase')

Shapes = dict[str, tuple[int, ...]]


def levels(config: ModelConfig) -> int:
    """Return how often the encoder halves the side N; a decoder doubles it once less."""
    return (config.N // BOTTLENECK_PX).bit_length() - 1


def canonical_shapes(config: ModelConfig) -> Shapes:
    """Return the shape of every weight of a model by its canonical name."""
    shapes: Shapes = {'log_intensity_scale': ()}
    scale, depth = config.n_filters_scale, levels(config)
    encoder = [config.patterns_per_group, *(128 * scale >> depth - 1 - i for i in range(depth))]
    decoder = [128 * scale, *(32 * scale << depth - 2 - i for i in range(depth - 1))]
    for level, (inputs, outputs) in enumerate(pairwise(encoder)):
        shapes |= _block(f'encoder.{level}', inputs, outputs)
        if config.cbam_encoder:
            shapes |= _attention(f'encoder.{level}.attention', outputs)
    for part in PARTS:
        for level, (inputs, outputs) in enumerate(pairwise(decoder)):
            shapes |= _block(f'{part}.decoder.{level}', inputs, outputs)
        shapes |= _ending(part, config)
    return shapes


def _ending(part: str, config: ModelConfig) -> Shapes:
    channels = 32 * config.n_filters_scale
    patches = config.patterns_per_group if config.object_big else 1
    filters = config.border_filters or config.n_filters_scale * 2048 // config.N
    if not config.pad_object:
        return _enlarging(f'{part}.whole', channels, filters, patches)
    outer = config.outer_channels
    shapes = _convolution(f'{part}.center', channels - outer, patches)
    if config.probe_big:
        shapes |= _enlarging(f'{part}.border', outer, filters, patches)
    return shapes


def _enlarging(name: str, inputs: int, filters: int, outputs: int) -> Shapes:
    return _block(name, inputs, filters) | _convolution(f'{name}.out', filters, outputs)


def _block(name: str, inputs: int, outputs: int) -> Shapes:
    first = _convolution(f'{name}.conv1', inputs, outputs)
    return first | _convolution(f'{name}.conv2', outputs, outputs)


def _convolution(name: str, inputs: int, outputs: int) -> Shapes:
    return {f'{name}.weight': (outputs, inputs, 3, 3), f'{name}.bias': (outputs,)}


def _attention(name: str, channels: int) -> Shapes:
    squeezed = channels // CBAM_REDUCTION
    return {
        f'{name}.channel.0.weight': (squeezed, channels),
        f'{name}.channel.0.bias': (squeezed,),
        f'{name}.channel.1.weight': (channels, squeezed),
        f'{name}.channel.1.bias': (channels,),
        f'{name}.spatial.weight': (1, 2, 7, 7),
    }
