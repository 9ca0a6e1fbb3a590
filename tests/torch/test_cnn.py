"""The reference network by itself: `specs/model-graph.md` in tests."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ptychodus_torch_plugin.backends.torch import cnn
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.errors import ShapeError
from tests.parity import graphs
from tests.parity.graphs import CNN_COUNTS, CNN_OPTIONS, amplitudes_of, cnn_config

from .parity import TOLERANCES, assert_close


def groups_of(config):
    return torch.from_numpy(amplitudes_of(config))


def trained(config, seed=1):
    """Return a network with random weights everywhere, also in its outputs and biases."""
    network = CnnNetwork(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 1.2 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return network


# The graph


class Graph:
    """The written graph, step by step, in double precision from the canonical weights."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = weights

    def conv(self, x, name):
        weight, bias = self.weights[f'{name}.weight'], self.weights[f'{name}.bias']
        return functional.conv2d(x, weight, bias, padding=1)

    def two(self, x, name):
        return self.conv(self.conv(x, f'{name}.conv1').relu(), f'{name}.conv2').relu()

    def enlarged(self, x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def larger(self, x, name):
        return self.conv(self.enlarged(self.two(x, name)), f'{name}.out')

    def weighed(self, x, name):
        def squeezed(x):
            for i in (0, 1):
                weight, bias = (self.weights[f'{name}.channel.{i}.{k}'] for k in ('weight', 'bias'))
                x = torch.einsum('oi,bi->bo', weight, x.clamp_min(0) if i else x) + bias
            return x

        channels = squeezed(x.sum((2, 3)) / x[0, 0].numel()) + squeezed(x.amax((2, 3)))
        x = x / (1 + torch.exp(-channels))[:, :, None, None]
        seen = torch.stack([x.amax(1), x.sum(1) / x.shape[1]], 1)
        kernel = self.weights[f'{name}.spatial.weight']
        return x / (1 + torch.exp(-functional.conv2d(functional.pad(seen, [3] * 4), kernel)))

    def decoded(self, x, name, activation):
        n_px = self.config.N
        for level in range(int(math.log2(n_px)) - 4):
            x = self.enlarged(self.two(x, f'{name}.decoder.{level}'))
        middle = torch.zeros(n_px, n_px, dtype=bool)
        middle[n_px // 4 : 3 * n_px // 4, n_px // 4 : 3 * n_px // 4] = True
        if not self.config.pad_object:
            whole = activation(self.larger(x, f'{name}.whole'))
            return whole if self.config.probe_big else torch.where(middle, whole, 0)
        outer = self.config.outer_channels
        center = activation(self.conv(x[:, :-outer], f'{name}.center'))
        center = functional.pad(center, [n_px // 4] * 4)
        if not self.config.probe_big:
            return center
        border = self.larger(x[:, -outer:], f'{name}.border')
        return torch.where(middle, center, border * border.sigmoid())

    def patches(self, x):
        for level in range(int(math.log2(self.config.N)) - 3):
            x = self.two(x, f'encoder.{level}')
            if self.config.cbam_encoder:
                x = self.weighed(x, f'encoder.{level}.attention')
            x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax(dim=(3, 5))
        amplitude = {
            'sigmoid': lambda x: 1 / (1 + torch.exp(-x)),
            'swish': lambda x: x / (1 + torch.exp(-x)),
            'softplus': lambda x: torch.log(1 + torch.exp(x)),
            'relu': lambda x: x.clamp_min(0),
        }[self.config.amp_activation]
        amplitude = self.decoded(x, 'amplitude', amplitude)
        return amplitude * torch.exp(1j * self.decoded(x, 'phase', lambda x: np.pi * x.tanh()))


OPTIONS = CNN_OPTIONS | {
    'attention': {'gridsize': 2, 'cbam_encoder': True, 'amp_activation': 'swish'},
    "PtychoPINN's PyTorch variant": {
        'N': 128,
        'cbam_encoder': True,
        'outer_channels': 1,
        'border_filters': 32,
    },
    'all in one, few filters': {'pad_object': False, 'border_filters': 3},
}


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_the_graph_is_the_written_one(options):
    """Values, and gradients of every weight: also where swish makes amplitudes negative."""
    config = cnn_config(**options)
    network, amplitudes = trained(config), groups_of(config)
    weights = {name: w.detach().double() for name, w in network.state_dict().items()}
    weights.pop('log_intensity_scale')
    for weight in weights.values():
        weight.requires_grad_()
    expected = Graph(config, weights).patches(amplitudes.double())
    patches = network(amplitudes)
    assert_close(patches, expected.detach(), 1e-5, dtype=np.complex64)
    # Any function of the patches that has no symmetry.
    wave = torch.linspace(0, 5, expected.numel()).sin().reshape(expected.shape) + 0.3j
    torch.sum((expected * wave).real).backward()
    torch.sum((patches * wave).real).backward()
    for name, parameter in network.named_parameters():
        if name in weights:
            tolerance = TOLERANCES['gradient']
            assert_close(parameter.grad, weights[name].grad, tolerance, dtype=np.float32)


@pytest.mark.parametrize(('n_px', 'scale', 'gridsize', 'count'), CNN_COUNTS)
def test_as_many_weights_as_the_reference(n_px, scale, gridsize, count):
    network = CnnNetwork(cnn_config(N=n_px, n_filters_scale=scale, gridsize=gridsize))
    trainable = [p.numel() for p in network.parameters() if p.requires_grad]
    assert sum(trainable) == count
    assert sum(p.numel() for p in network.parameters()) == count + 1  # log_intensity_scale


@pytest.mark.parametrize('object_big', [True, False])
@pytest.mark.parametrize('gridsize', [1, 2, 3])
@pytest.mark.parametrize('n_px', [64, 128, 256])
def test_shapes(n_px, gridsize, object_big):
    config = cnn_config(N=n_px, gridsize=gridsize, object_big=object_big)
    network = CnnNetwork(config)
    with torch.no_grad():
        patches = network(groups_of(config))
    assert network.patterns_per_group == gridsize**2
    assert patches.shape == (2, gridsize**2 if object_big else 1, n_px, n_px)
    assert patches.dtype == torch.complex64
    assert torch.isfinite(torch.view_as_real(patches)).all()


# Centre and border


def middle_of(n_px):
    return torch.from_numpy(graphs.middle_of(n_px))


@pytest.mark.parametrize('n_px', [64, 128])
@pytest.mark.parametrize('pad_object', [True, False])
def test_without_a_big_probe_only_the_middle_is_filled(n_px, pad_object):
    config = cnn_config(N=n_px, probe_big=False, pad_object=pad_object)
    patch = trained(config)(groups_of(config))
    assert torch.equal(patch != 0, middle_of(n_px).expand_as(patch))


@pytest.mark.parametrize('n_px', [64, 128])
def test_middle_and_border_come_from_their_own_channels(n_px, monkeypatch):
    decoder = trained(cnn_config(N=n_px)).phase
    monkeypatch.setattr(decoder, 'decoded', lambda x: x)
    middle = middle_of(n_px)
    for part, own in ((middle, np.s_[:28]), (~middle, np.s_[28:])):
        channels = torch.randn(1, 32, n_px // 2, n_px // 2, requires_grad=True)
        decoder(channels)[..., part].sum().backward()
        seen = channels.grad.abs().amax(dim=(0, 2, 3)) > 0
        expected = torch.zeros(32, dtype=bool)
        expected[own] = True
        assert torch.equal(seen, expected)


# Before training


@pytest.mark.parametrize('amp_activation', ['sigmoid', 'swish', 'softplus', 'relu'])
@pytest.mark.parametrize('pad_object', [True, False])
def test_an_untrained_network_says_about_one(amp_activation, pad_object):
    torch.manual_seed(2)
    config = cnn_config(gridsize=2, amp_activation=amp_activation, pad_object=pad_object)
    network = CnnNetwork(config)
    with torch.no_grad():
        transmission = network.intensity_scale * network(groups_of(config))
    for part in (middle_of(64), ~middle_of(64)):
        difference = (transmission[..., part] - 1).abs().square().mean().sqrt()
        assert 0 < difference < 0.2


def test_the_intensity_scale_starts_at_two_and_stays():
    network = CnnNetwork(cnn_config())
    assert network.intensity_scale.item() == pytest.approx(2, rel=1e-6)
    scale = network.state_dict()['log_intensity_scale']
    assert (scale.shape, scale.dtype) == ((), torch.float32)
    assert not network.log_intensity_scale.requires_grad


def test_first_weights_depend_on_the_seed_alone():
    def weights(seed):
        torch.manual_seed(seed)
        return CnnNetwork(cnn_config(gridsize=2)).state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        if name.endswith('weight'):
            assert (tensor != other[name]).all()


# What goes in


@pytest.mark.parametrize('probe_big', [True, False])
def test_in_bfloat16_the_patches_are_nearly_the_same(probe_big):
    config = cnn_config(gridsize=2, probe_big=probe_big)
    network, amplitudes = trained(config), groups_of(config)
    patches = network(amplitudes)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        short = network(amplitudes)
    assert not torch.equal(short, patches)
    assert_close(short, patches.detach(), 0.1, dtype=np.complex64)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((2, 4, 64, 64), r'takes groups of 1 pattern\(s\) \(gridsize 1\), but got 4,'),
        ((2, 1, 64, 32), r'shape \(2, 1, 64, 32\); the network expects \(B, 1, 64, 64\)'),
        ((1, 64, 64), r'shape \(1, 64, 64\); the network expects \(B, 1, 64, 64\)'),
    ],
)
def test_groups_of_another_size(shape, message):
    with pytest.raises(ShapeError, match=message):
        CnnNetwork(cnn_config())(torch.zeros(shape))


# Speed


@pytest.mark.parametrize('options', [{}, {'pad_object': False, 'gridsize': 2}], ids=str)
def test_groups_that_no_cache_holds_are_computed_in_parts(monkeypatch, options):
    config = cnn_config(**options)
    network = trained(config)
    groups = torch.rand(9, config.patterns_per_group, 64, 64)
    seen = []
    network.encoder[0].conv1.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    network.phase.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    monkeypatch.setattr(cnn, 'CACHE_BYTES', 2 * 4 * 64**2 * 32 // torch.get_num_threads())
    with torch.no_grad():
        parts = network(groups)
    assert seen == [2, 2, 2, 2, 1, 8, 1]
    seen.clear()
    # Training keeps all layers anyway.
    whole = network(groups)
    assert seen == [9, 9]
    assert_close(parts, whole.detach(), TOLERANCES['prediction'], dtype=np.complex64)
