"""The arithmetic that `benchmarks.flops` counts from the settings is what PyTorch counts."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ptychodus_torch_plugin.backends.torch.model import build_network
from ptychodus_torch_plugin.benchmarks.flops import forward_flops
from ptychodus_torch_plugin.config import ModelConfig

SETTINGS = [
    {},
    {'gridsize': 2},
    {'N': 128, 'n_filters_scale': 1, 'gridsize': 3},
    {'N': 256},
    {'object_big': False, 'gridsize': 2},
    {'probe_big': False},
    {'pad_object': False},
    {'outer_channels': 7, 'border_filters': 20},
    {'cbam_encoder': True},
]

SAVED_AT_MOST = 0.05
"""Share that an implementation may save, at the last layers, of what the graph says."""


def side_px(name, config):
    """Return the side at which the graph has the convolution with this canonical weight."""
    parts = name.split('.')
    if parts[0] == 'encoder':
        return config.N >> int(parts[1])
    if parts[1] == 'decoder':
        return 8 << int(parts[2])
    return config.N if parts[2] == 'out' else config.N // 2


@pytest.mark.parametrize('settings', SETTINGS)
def test_as_many_as_the_framework_counts_for_the_graph(settings):
    config = ModelConfig(architecture='cnn', **settings)
    weights = {
        name: weight
        for name, weight in build_network(config).state_dict().items()
        if weight.ndim == 4
    }
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for name, weight in weights.items():
            side = side_px(name, config)
            x = torch.zeros(1, weight.shape[1], side, side)
            functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
    assert forward_flops(config) == counter.get_total_flops()


@pytest.mark.parametrize('settings', SETTINGS)
def test_the_network_computes_that_and_hardly_less(settings):
    config = ModelConfig(architecture='cnn', **settings)
    amplitudes = torch.ones(1, config.patterns_per_group, config.N, config.N)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_network(config)(amplitudes)
    # The gates of `cbam_encoder` have products that are not counted.
    assert 1 - SAVED_AT_MOST < counter.get_total_flops() / forward_flops(config) < 1.001
