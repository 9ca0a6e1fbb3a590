"""Arithmetic of the reference network, counted from its settings (`specs/model-graph.md`)."""

from __future__ import annotations

from itertools import pairwise

from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ConfigError

BOTTLENECK_PX = 8
KERNEL_TAPS = 9
GATE_TAPS = 49
FLOPS_PER_TAP = 2
"""A multiplication and an addition."""

TRAINING_PASSES = 3
"""A step costs three forward passes: itself, and a gradient each for inputs and weights."""


def forward_flops(config: ModelConfig) -> float:
    """Return the FLOP of all convolutions of 'cnn' for one group of C patterns, one forward pass.

    Twice the multiplications: every convolution of i to o channels with t taps has i o t for each
    of its pixels.  Padding counts as if it were computed.  Activations, pooling, biases, the gates
    of channels (`cbam_encoder`) and the physics are not counted.

    Raises
    ------
    ConfigError
        If the model is not 'cnn'.
    """
    if config.architecture != 'cnn':
        raise ConfigError(
            f"architecture = {config.architecture!r} has no groups to count for; expected 'cnn'."
        )
    return float(FLOPS_PER_TAP * (_encoder(config) + 2 * _decoder(config)))


def training_flops(config: ModelConfig) -> float:
    """Return the FLOP of a training step for each group: three forward passes."""
    return TRAINING_PASSES * forward_flops(config)


def _levels(config: ModelConfig) -> int:
    return (config.N // BOTTLENECK_PX).bit_length() - 1


def _block(side_px: int, *channels: int) -> int:
    """Return the multiplications of 3 x 3 convolutions in a row at one side."""
    return KERNEL_TAPS * side_px**2 * sum(i * o for i, o in pairwise(channels))


def _encoder(config: ModelConfig) -> int:
    total, inputs = 0, config.patterns_per_group
    for level in range(_levels(config)):
        side = config.N >> level
        filters = config.n_filters_scale * 128 >> (_levels(config) - 1 - level)
        total += _block(side, inputs, filters, filters)
        if config.cbam_encoder:
            total += 2 * GATE_TAPS * side**2
        inputs = filters
    return total


def _decoder(config: ModelConfig) -> int:
    total, inputs, side = 0, config.n_filters_scale * 128, BOTTLENECK_PX
    for level in range(_levels(config) - 1):
        filters = config.n_filters_scale * 32 << (_levels(config) - 2 - level)
        total += _block(side, inputs, filters, filters)
        inputs, side = filters, 2 * side
    patches = config.patterns_per_group if config.object_big else 1
    last = config.border_filters or config.n_filters_scale * 2048 // config.N
    if not config.pad_object:
        return total + _block(side, inputs, last, last) + _block(2 * side, last, patches)
    total += _block(side, inputs - config.outer_channels, patches)
    if config.probe_big:
        total += _block(side, config.outer_channels, last, last) + _block(2 * side, last, patches)
    return total
