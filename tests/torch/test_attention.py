"""The gates of the encoder by themselves, against NumPy in double precision."""

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.backends.torch.attention import Attention
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.foreign.canonical import canonical_shapes
from tests.parity.comparison import assert_close


def attention_of(channels, seed=4):
    attention = Attention(channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attention.parameters():
            spread = 0.3 / parameter[0].numel() ** 0.5
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return attention


def input_of(channels, shape=(6, 9)):
    """Unequal samples and channels, brightest in one corner."""
    y, x = np.indices(shape) / 9
    noise = np.random.default_rng(8).random((2, channels, *shape))
    return noise * np.exp(-y - 2 * x) * (1 + np.arange(channels))[:, None, None]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oracle(x, weights):
    """Pixel by pixel, channel by channel."""

    def squeezed(pooled):
        hidden = np.maximum(weights['channel.0.weight'] @ pooled + weights['channel.0.bias'], 0)
        return weights['channel.1.weight'] @ hidden + weights['channel.1.bias']

    result = np.empty_like(x)
    for number, sample in enumerate(x):
        gate = sigmoid(squeezed(sample.mean((1, 2))) + squeezed(sample.max((1, 2))))
        sample = sample * gate[:, None, None]
        seen = np.pad(np.stack([sample.max(0), sample.mean(0)]), [(0, 0), (3, 3), (3, 3)])
        for i, j in np.ndindex(sample.shape[1:]):
            window = seen[:, i : i + 7, j : j + 7]
            pixel = sigmoid(np.sum(window * weights['spatial.weight'][0]))
            result[number, :, i, j] = sample[:, i, j] * pixel
    return result


@pytest.mark.parametrize('channels', [16, 40])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_channels_are_weighed_first_then_pixels(channels, memory_format):
    attention, values = attention_of(channels), input_of(channels)
    weights = {name: w.double().numpy() for name, w in attention.state_dict().items()}
    tensor = torch.from_numpy(values).float().contiguous(memory_format=memory_format)
    with torch.no_grad():
        weighed = attention(tensor)
    assert_close(weighed, oracle(values, weights), 1e-6, dtype=np.float32)
    assert weights['channel.0.weight'].shape == (channels // 16, channels)


def test_a_gate_lets_through_what_its_weights_say():
    """Large biases open or shut channels; a large kernel, pixels."""
    attention, values = attention_of(16), torch.from_numpy(input_of(16)).float()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        assert torch.allclose(attention(values), values / 4)
        attention.channel[1].bias[:8] = 40
        attention.channel[1].bias[8:] = -40
        weighed = attention(values)
        assert torch.allclose(weighed[:, :8], values[:, :8] / 2)
        assert not weighed[:, 8:].abs().max() > 1e-20
        attention.channel[1].bias.zero_()
        attention.spatial.weight[0, 0, 3, 4] = 1e6
        right = values.amax(1, keepdim=True)[..., 1:]
        expected = values[..., :-1] / 2 * (right > 0)
        assert torch.allclose(attention(values)[..., :-1], expected, atol=1e-6)


def test_a_network_without_it_has_no_weights_of_it():
    config = ModelConfig(architecture='cnn', n_filters_scale=1)
    assert not any('attention' in name for name in CnnNetwork(config).state_dict())
    network = CnnNetwork(config.model_copy(update={'cbam_encoder': True}))
    weights = sum(p.numel() for name, p in network.named_parameters() if 'attention' in name)
    assert weights == 3220


@pytest.mark.parametrize(
    ('n_px', 'scale', 'gridsize', 'count'),
    [
        (64, 2, 1, 2_339_896),
        (64, 2, 2, 2_351_734),
        (64, 1, 1, 586_794),
        (64, 1, 2, 592_584),
        (128, 2, 1, 4_727_900),
        (128, 2, 2, 4_738_874),
    ],
)
def test_as_many_weights_as_the_pytorch_variant_of_the_reference(n_px, scale, gridsize, count):
    """That has four scalars more, which no prediction uses."""
    network = CnnNetwork(
        ModelConfig(
            architecture='cnn',
            N=n_px,
            gridsize=gridsize,
            n_filters_scale=scale,
            cbam_encoder=True,
            outer_channels=gridsize**2,
            border_filters=32 * scale,
        )
    )
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == count - 4


@pytest.mark.parametrize('amp_activation', ['sigmoid', 'swish'])
def test_an_untrained_network_with_it_says_about_one(amp_activation):
    torch.manual_seed(2)
    settings = {'cbam_encoder': True, 'amp_activation': amp_activation, 'n_filters_scale': 1}
    network = CnnNetwork(ModelConfig(architecture='cnn', **settings))
    with torch.no_grad():
        transmission = network.intensity_scale * network(torch.rand(2, 1, 64, 64))
    difference = (transmission - 1).abs().square().mean().sqrt()
    assert 0 < difference < 0.2


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'N': 128, 'gridsize': 2, 'cbam_encoder': True, 'border_filters': 32},
        {'N': 256, 'n_filters_scale': 2, 'cbam_encoder': True, 'outer_channels': 1},
        {'gridsize': 3, 'object_big': False, 'probe_big': False, 'outer_channels': 9},
        {'pad_object': False, 'border_filters': 7, 'N': 128},
        {'pad_object': False, 'probe_big': False, 'gridsize': 2},
    ],
)
def test_the_shapes_are_known_without_a_framework(settings):
    config = ModelConfig(architecture='cnn', **({'n_filters_scale': 1} | settings))
    network = CnnNetwork(config)
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == canonical_shapes(config)
