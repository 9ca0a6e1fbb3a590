"""Converted models of PtychoPINN say what they said there: an independent network in each variant.

The archives are written by `torch.save`, and by HDF5 as Keras lays it out.
"""

import io
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.nn import functional

from ptychodus_torch_plugin import load_bundle
from ptychodus_torch_plugin.bundle.archive import write_bundle
from ptychodus_torch_plugin.foreign.conversion import convert_archive
from ptychodus_torch_plugin.foreign.torch_file import read_tensors, read_values
from tests.foreign.lookalikes import (
    KerasGraph,
    keras_members,
    keras_parameters,
    keras_weights,
    zipped,
)
from tests.foreign.torch_lookalikes import (
    torch_members,
    torch_metadata,
    torch_parameters,
    torch_state,
)
from tests.parity.comparison import assert_close


def saved(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def groups_of(n_px, channels):
    """Normalised amplitudes (2, C, N, N), unequal channels, brightest off the centre."""
    y, x = np.indices((n_px, n_px)) / n_px
    bright = 0.2 + np.exp(-20 * (y - 0.4) ** 2 - 8 * (x - 0.7) ** 2)
    noise = np.random.default_rng(n_px).random((2, channels, n_px, n_px))
    return noise * bright * (1 + np.arange(channels))[:, None, None]


@pytest.fixture
def network_of(tmp_path):
    """Convert an archive, write the bundle, load it; return its network."""

    def load(members):
        (tmp_path / 'archive.zip').write_bytes(zipped(members))
        write_bundle(tmp_path / 'wts.h5.zip', convert_archive(tmp_path / 'archive.zip'))
        return load_bundle(tmp_path, backend='pytorch').trained.network

    return load


def outside(n_px):
    mask = torch.ones(n_px, n_px, dtype=torch.float64)
    mask[n_px // 4 : -(n_px // 4), n_px // 4 : -(n_px // 4)] = 0
    return mask


def swish(x):
    return x * x.sigmoid()


# PyTorch


class TorchVariant:
    """The reference's PyTorch network by the names of its state."""

    def __init__(self, state, activation):
        self.state = {name: tensor.double() for name, tensor in state.items()}
        self.activation = activation

    def parameters(self, name):
        name = f'model.autoencoder.{name}'
        return self.state[f'{name}.weight'], self.state.get(f'{name}.bias')

    def conv(self, x, name):
        return functional.conv2d(x, *self.parameters(name), padding='same')

    def two(self, x, name):
        return self.conv(self.conv(x, f'{name}.conv1').relu(), f'{name}.conv2').relu()

    def levels(self, name):
        return sum(f'{name}.blocks.{level}.conv1.bias' in ''.join(self.state) for level in range(6))

    def attention(self, x, name):
        def mlp(x):
            x = functional.linear(x, *self.parameters(f'{name}.ChannelGate.mlp.1')).relu()
            return functional.linear(x, *self.parameters(f'{name}.ChannelGate.mlp.3'))

        scale = (mlp(x.mean((2, 3))) + mlp(x.amax((2, 3)))).sigmoid()
        x = x * scale[:, :, None, None]
        pooled = torch.cat((x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)), 1)
        return x * self.conv(pooled, f'{name}.SpatialGate.compress').sigmoid()

    def decoder(self, x, part, activation, n_px):
        for level in range(self.levels(f'decoder_{part}')):
            x = functional.interpolate(
                self.two(x, f'decoder_{part}.blocks.{level}'), scale_factor=2
            )
        head = f'decoder_{part}.{part}'
        outer = self.parameters(f'{head}.conv_up_block.conv1')[0].shape[1]
        center = activation(self.conv(x[:, :-outer], f'{head}.conv1'))
        border = functional.interpolate(
            self.two(x[:, -outer:], f'{head}.conv_up_block'), scale_factor=2
        )
        border = swish(self.conv(border, f'{head}.conv2'))
        return functional.pad(center, (n_px // 4,) * 4) + border * outside(n_px)

    def patches(self, x):
        n_px = x.shape[-1]
        for level in range(self.levels('encoder')):
            x = self.two(x, f'encoder.blocks.{level}')
            if any('ChannelGate' in name for name in self.state):
                x = self.attention(x, f'encoder.blocks.{level}.attention')
            x = functional.max_pool2d(x, 2)
        phase = self.decoder(x, 'phase', lambda x: np.pi * x.tanh(), n_px)
        return self.decoder(x, 'amp', self.activation, n_px) * torch.exp(1j * phase)


@pytest.mark.parametrize('with_metadata', [True, False])
@pytest.mark.parametrize(
    ('n_px', 'gridsize', 'scale', 'cbam', 'activation'),
    [
        (64, 1, 2, True, 'sigmoid'),
        (64, 2, 1, True, 'silu'),
        (64, 2, 1, False, 'relu'),
        (128, 1, 1, True, 'swish'),
        (128, 2, 1, True, 'sigmoid'),
    ],
)
def test_the_pytorch_variant(network_of, n_px, gridsize, scale, cbam, activation, with_metadata):
    arrays = torch_state(n_px, scale, gridsize**2, cbam=cbam)
    state = OrderedDict(
        (name, torch.from_numpy(3 * array if array.ndim == 2 else array))
        for name, array in arrays.items()
    )
    # As load_state_dict leaves it behind, and in the layout that training on a GPU prefers.
    state._metadata = OrderedDict({'': {'version': 1}})
    name = 'model.autoencoder.encoder.blocks.1.conv1.weight'
    state[name] = state[name].contiguous(memory_format=torch.channels_last)
    said = {'cbam_encoder': cbam, 'amp_activation': activation}
    parameters = torch_parameters(n_px, gridsize, scale, amp_activation=activation)
    members = torch_members(parameters, {})
    members['diffraction_to_obj/model.pth'] = saved(state)
    if with_metadata:
        metadata = torch_metadata(n_px, gridsize, scale, **said)
        members['torch_scaling_metadata.pt'] = saved(metadata)
    amplitudes = torch.from_numpy(groups_of(n_px, gridsize**2))
    function = torch.sigmoid if activation == 'sigmoid' else swish
    expected = TorchVariant(state, function).patches(amplitudes)
    with torch.no_grad():
        patches = network_of(members)(amplitudes.float())
    assert_close(patches, expected, 1e-5, dtype=np.complex64)


def test_what_torch_saves_is_read_bit_by_bit():
    whole = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors = {
        'whole': whole,
        'turned': whole.permute(2, 0, 1),
        'part': whole[1:, ::2, 3],
        'scalar': torch.tensor(2.5),
        'parameter': torch.nn.Parameter(whole * 2).detach(),
    }
    found = read_tensors(saved(tensors), source='x')
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
    values = {'a': [1, 2.5, None, True], 'b': {'c': ('x', -3)}, 'd': OrderedDict(e=1)}
    plain = read_values(saved(values), source='x')
    assert {name: plain[name] for name in 'ab'} == {name: values[name] for name in 'ab'}
    assert plain['d'].entries == {'e': 1}


def test_the_old_format_of_torch_is_refused():
    with pytest.raises(ValueError, match=r'no.* zip archive'):
        read_tensors(saved({}, _use_new_zipfile_serialization=False), source='x')


# TensorFlow


class KerasVariant:
    """The reference's TensorFlow network, channels last."""

    def __init__(self, weights, activation, *, padded, big):
        self.weights = {k: [torch.from_numpy(a).double() for a in v] for k, v in weights.items()}
        self.activation, self.padded, self.big = activation, padded, big

    def conv(self, x, name):
        kernel, bias = self.weights[name]
        return functional.conv2d(x, kernel.permute(3, 2, 0, 1), padding=1) + bias[:, None, None]

    def two(self, x, name):
        return self.conv(self.conv(x, f'{name}.conv1').relu(), f'{name}.conv2').relu()

    def up(self, x, name):
        return self.two(x, name).repeat_interleave(2, 2).repeat_interleave(2, 3)

    def decoder(self, x, part, activation, n_px):
        level = 0
        while f'{part}.decoder.{level}.conv1' in self.weights:
            x = self.up(x, f'{part}.decoder.{level}')
            level += 1
        if not self.padded:
            return activation(self.conv(self.up(x, f'{part}.whole'), f'{part}.whole.out'))
        center = activation(self.conv(x[:, :-4], f'{part}.center'))
        center = functional.pad(center, [n_px // 4] * 4)
        if not self.big:
            return center
        border = self.conv(self.up(x[:, -4:], f'{part}.border'), f'{part}.border.out')
        return center + outside(n_px) * swish(border)

    def patches(self, x):
        n_px, level = x.shape[-1], 0
        while f'encoder.{level}.conv1' in self.weights:
            x = functional.max_pool2d(self.two(x, f'encoder.{level}'), 2)
            level += 1
        phase = self.decoder(x, 'phase', lambda x: np.pi * x.tanh(), n_px)
        return self.decoder(x, 'amplitude', self.activation, n_px) * torch.exp(1j * phase)


ACTIVATIONS = {
    'sigmoid': torch.sigmoid,
    'swish': swish,
    'softplus': functional.softplus,
    'relu': torch.relu,
}


@pytest.mark.parametrize(
    ('n_px', 'gridsize', 'scale', 'activation', 'padded', 'big'),
    [
        (64, 1, 2, 'sigmoid', True, True),
        (64, 2, 1, 'swish', True, True),
        (128, 1, 1, 'softplus', True, True),
        (128, 2, 1, 'relu', True, False),
        (64, 2, 1, 'sigmoid', False, True),
        (64, 1, 1, 'swish', False, False),
    ],
)
def test_the_tensorflow_variant(network_of, n_px, gridsize, scale, activation, padded, big):
    options = {'padded': padded, 'big': big}
    weights = keras_weights(n_px, scale, gridsize**2, **options)
    graph = KerasGraph(n_px, activation=activation, **options)
    said = {'amp_activation': activation, 'pad_object': padded, 'probe.big': big}
    members = keras_members(keras_parameters(n_px, gridsize, scale, **said), graph, weights)
    amplitudes = torch.from_numpy(groups_of(n_px, gridsize**2))
    expected = KerasVariant(weights, ACTIVATIONS[activation], **options).patches(amplitudes)
    with torch.no_grad():
        patches = network_of(members)(amplitudes.float())
    assert_close(patches, expected, 1e-5, dtype=np.complex64)
