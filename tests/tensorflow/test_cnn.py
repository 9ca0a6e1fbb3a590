"""The reference network by itself: `specs/model-graph.md` in tests."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ptychodus_torch_plugin.backends.tensorflow import data, layers
from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.bundle.errors import BundleWeightsError
from ptychodus_torch_plugin.errors import ShapeError
from tests.parity.comparison import TOLERANCES, assert_close
from tests.parity.graphs import (
    CNN_COUNTS,
    CNN_OPTIONS,
    amplitudes_of,
    cnn_config,
    middle_of,
    random_weights,
)


def groups_of(config):
    """Return amplitudes of unequal channels (B, N, N, C)."""
    return data.channels_last(amplitudes_of(config))


def shapes_of(network):
    return {name: array.shape for name, array in network.canonical_weights().items()}


def trained(config):
    """Return a network with random weights everywhere, also in its outputs and biases."""
    network = CnnNetwork(config)
    network.set_canonical_weights(random_weights(shapes_of(network)))
    return network


# The graph


class Graph:
    """The written graph, step by step, in double precision from the canonical weights."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = weights

    def conv(self, x, name):
        kernel = tf.transpose(self.weights[f'{name}.weight'], (2, 3, 1, 0))
        return tf.nn.conv2d(x, kernel, 1, 'SAME') + self.weights[f'{name}.bias']

    def two(self, x, name):
        return tf.maximum(
            self.conv(tf.maximum(self.conv(x, f'{name}.conv1'), 0), f'{name}.conv2'), 0
        )

    def enlarged(self, x):
        return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)

    def larger(self, x, name):
        return self.conv(self.enlarged(self.two(x, name)), f'{name}.out')

    def decoded(self, x, name, activation):
        n_px, k = self.config.N, self.config.outer_channels
        for level in range(int(math.log2(n_px)) - 4):
            x = self.enlarged(self.two(x, f'{name}.decoder.{level}'))
        middle = middle_of(n_px)[:, :, None]
        if not self.config.pad_object:
            whole = activation(self.larger(x, f'{name}.whole'))
            return whole if self.config.probe_big else tf.where(middle, whole, 0)
        center = activation(self.conv(x[..., :-k], f'{name}.center'))
        center = tf.pad(center, [[0, 0], [n_px // 4] * 2, [n_px // 4] * 2, [0, 0]])
        if not self.config.probe_big:
            return center
        border = self.larger(x[..., -k:], f'{name}.border')
        return tf.where(middle, center, border / (1 + tf.exp(-border)))

    def attended(self, x, name):
        def gate(pooled):
            for layer in ('0', '1'):
                pooled = pooled @ tf.transpose(self.weights[f'{name}.channel.{layer}.weight'])
                pooled += self.weights[f'{name}.channel.{layer}.bias']
                pooled = tf.maximum(pooled, 0) if layer == '0' else pooled
            return pooled

        gates = gate(tf.reduce_mean(x, (1, 2))) + gate(tf.reduce_max(x, (1, 2)))
        x = x / (1 + tf.exp(-gates[:, None, None]))
        seen = tf.stack([tf.reduce_max(x, -1), tf.reduce_mean(x, -1)], -1)
        kernel = tf.transpose(self.weights[f'{name}.spatial.weight'], (2, 3, 1, 0))
        return x / (1 + tf.exp(-tf.nn.conv2d(seen, kernel, 1, 'SAME')))

    def patches(self, x):
        for level in range(int(math.log2(self.config.N)) - 3):
            x = self.two(x, f'encoder.{level}')
            if self.config.cbam_encoder:
                x = self.attended(x, f'encoder.{level}.attention')
            x = tf.reduce_max([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], 0)
        amplitude = {
            'sigmoid': lambda x: 1 / (1 + tf.exp(-x)),
            'swish': lambda x: x / (1 + tf.exp(-x)),
            'softplus': lambda x: tf.math.log(1 + tf.exp(x)),
            'relu': lambda x: tf.maximum(x, 0),
        }[self.config.amp_activation]
        amplitude = self.decoded(x, 'amplitude', amplitude)
        phase = self.decoded(x, 'phase', lambda x: np.pi * tf.tanh(x))
        return tf.cast(amplitude, tf.complex128) * tf.exp(1j * tf.cast(phase, tf.complex128))


OPTIONS = CNN_OPTIONS | {
    'as the PyTorch variant of the reference': {
        'n_filters_scale': 2,
        'cbam_encoder': True,
        'outer_channels': 1,
        'border_filters': 5,
    },
}


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_the_graph_is_the_written_one(options):
    """Values, and gradients of every weight: also where swish makes amplitudes negative."""
    config = cnn_config(**options)
    network, amplitudes = trained(config), groups_of(config)
    weights = {n: tf.constant(w, tf.float64) for n, w in network.canonical_weights().items()}
    weights.pop('log_intensity_scale')
    variables = network.canonical_variables()
    with tf.GradientTape() as tape:
        tape.watch(weights)
        expected = Graph(config, weights).patches(tf.cast(amplitudes, tf.float64))
        # Any function of the patches that has no symmetry.
        line = np.sin(np.linspace(0, 5, math.prod(expected.shape)))
        wave = line.reshape(expected.shape) + 0.3j
        loss = tf.reduce_sum(tf.math.real(expected * wave))
    wanted = tape.gradient(loss, weights)
    with tf.GradientTape() as tape:
        patches = network(amplitudes)
        loss = tf.reduce_sum(tf.math.real(patches * wave.astype(np.complex64)))
    actual = tape.gradient(loss, {name: variables[name].value for name in weights})
    assert_close(patches, expected, 1e-5, dtype=np.complex64)
    for name, gradient in actual.items():
        gradient = layers.to_canonical(name, gradient.numpy())
        assert_close(gradient, wanted[name], TOLERANCES['gradient'], dtype=np.float32)


@pytest.mark.parametrize(('n_px', 'scale', 'gridsize', 'count'), CNN_COUNTS)
def test_as_many_weights_as_the_reference(n_px, scale, gridsize, count):
    network = CnnNetwork(cnn_config(N=n_px, n_filters_scale=scale, gridsize=gridsize))
    assert sum(math.prod(v.shape) for v in network.trainable_variables) == count
    assert network.count_params() == count + 1  # log_intensity_scale


@pytest.mark.parametrize('object_big', [True, False])
@pytest.mark.parametrize('gridsize', [1, 2, 3])
@pytest.mark.parametrize('n_px', [64, 128, 256])
def test_shapes(n_px, gridsize, object_big):
    config = cnn_config(N=n_px, gridsize=gridsize, object_big=object_big)
    network = CnnNetwork(config)
    patches = network(groups_of(config))
    assert network.patterns_per_group == gridsize**2
    assert patches.shape == (2, n_px, n_px, gridsize**2 if object_big else 1)
    assert patches.dtype == tf.complex64
    assert np.isfinite(patches).all()


def test_the_size_of_the_batch_is_free():
    """Traced once, without a number of groups."""
    config = cnn_config(gridsize=2)
    network, amplitudes = trained(config), groups_of(config)
    traced = tf.function(
        network.__call__, input_signature=[tf.TensorSpec([None, 64, 64, 4], tf.float32)]
    )
    whole = network(amplitudes)
    assert_close(traced(amplitudes), whole, 1e-5, dtype=np.complex64)
    assert_close(traced(amplitudes[1:]), whole[1:], 1e-5, dtype=np.complex64)


# Centre and border


@pytest.mark.parametrize('n_px', [64, 128])
@pytest.mark.parametrize('pad_object', [True, False])
def test_without_a_big_probe_only_the_middle_is_filled(n_px, pad_object):
    config = cnn_config(N=n_px, probe_big=False, pad_object=pad_object)
    patches = data.channels_first(trained(config)(groups_of(config))).numpy()
    np.testing.assert_array_equal(patches != 0, np.broadcast_to(middle_of(n_px), patches.shape))


@pytest.mark.parametrize('n_px', [64, 128])
def test_middle_and_border_come_from_their_own_channels(n_px, monkeypatch):
    decoder = trained(cnn_config(N=n_px)).phase
    monkeypatch.setattr(decoder, 'decoded', lambda x: x)
    middle = middle_of(n_px)
    for part, own in ((middle, np.s_[:28]), (~middle, np.s_[28:])):
        channels = tf.constant(np.random.default_rng(1).normal(size=(1, n_px // 2, n_px // 2, 32)))
        channels = tf.cast(channels, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(channels)
            total = tf.reduce_sum(decoder(channels)[0, :, :, 0] * part)
        seen = np.abs(tape.gradient(total, channels)).max(axis=(0, 1, 2)) > 0
        expected = np.zeros(32, dtype=bool)
        expected[own] = True
        np.testing.assert_array_equal(seen, expected)


# Before training


@pytest.mark.parametrize('amp_activation', ['sigmoid', 'swish', 'softplus', 'relu'])
@pytest.mark.parametrize('pad_object', [True, False])
def test_an_untrained_network_says_about_one(amp_activation, pad_object):
    config = cnn_config(gridsize=2, amp_activation=amp_activation, pad_object=pad_object)
    network = CnnNetwork(config, seed=2)
    patches = data.channels_first(network(groups_of(config))).numpy()
    transmission = float(network.intensity_scale) * patches
    for part in (middle_of(64), ~middle_of(64)):
        difference = np.sqrt(np.mean(np.abs(transmission[..., part] - 1) ** 2))
        assert 0 < difference < 0.2


def test_the_intensity_scale_starts_at_two_and_stays():
    network = CnnNetwork(cnn_config())
    assert float(network.intensity_scale) == pytest.approx(2, rel=1e-6)
    scale = network.canonical_weights()['log_intensity_scale']
    assert (scale.shape, scale.dtype) == ((), np.float32)
    assert not network.log_intensity_scale.trainable


def test_first_weights_depend_on_the_seed_alone():
    def weights(seed):
        return CnnNetwork(cnn_config(gridsize=2), seed).canonical_weights()

    first, other = weights(3), weights(4)
    tf.random.set_seed(7)
    again = weights(3)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        if name.endswith('weight'):
            assert (array != other[name]).all()


def test_first_weights_are_spread_as_written():
    config = cnn_config(n_filters_scale=2, cbam_encoder=True)
    weights = CnnNetwork(config).canonical_weights()
    for name, variance in {
        'encoder.1.conv2.weight': 2 / (9 * 128),
        'phase.decoder.0.conv1.weight': 2 / (9 * 256),
        'amplitude.center.weight': 0.03**2 * 2 / (9 * (60 + 1)),
        'phase.border.out.weight': 0.03**2 * 2 / (9 * (64 + 1)),
        'encoder.2.attention.channel.0.weight': 2 / 256,
        'encoder.2.attention.channel.1.weight': 2 / (256 + 16),
        'encoder.2.attention.spatial.weight': 2 / (49 * 3),
    }.items():
        kernel = weights[name]
        spread = 4 * np.sqrt(2 / kernel.size)  # of a measured variance, in four sigmas
        assert np.var(kernel) == pytest.approx(variance, rel=spread), name
    assert not any(weights[name].any() for name in weights if name.endswith('conv1.bias'))


# Canonical weights


def test_canonical_kernels_have_outputs_first():
    network = trained(cnn_config(gridsize=2))
    weights, variables = network.canonical_weights(), network.canonical_variables()
    assert weights['encoder.0.conv1.weight'].shape == (32, 4, 3, 3)
    assert variables['encoder.0.conv1.weight'].shape == (3, 3, 4, 32)
    for (o, i, h, w), value in np.ndenumerate(weights['encoder.0.conv1.weight']):
        assert variables['encoder.0.conv1.weight'].numpy()[h, w, i, o] == value
    assert weights.keys() == variables.keys()
    assert len(variables) == len(network.variables)


def test_weights_come_back_as_they_were_set():
    network = CnnNetwork(cnn_config(pad_object=False))
    weights = random_weights(shapes_of(network), seed=5)
    network.set_canonical_weights(weights)
    exported = network.canonical_weights()
    assert exported.keys() == weights.keys()
    for name, array in weights.items():
        assert exported[name].dtype == np.float32
        np.testing.assert_array_equal(exported[name], array)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('phase.center.bias'), 'center.bias. is missing'),
        (
            lambda w: w.update({'encoder.0.conv1.weight': np.zeros((3, 3, 1, 32), np.float32)}),
            r'has shape \(3, 3, 1, 32\); expected \(32, 1, 3, 3\)',
        ),
    ],
    ids=['missing', 'native layout'],
)
def test_weights_that_do_not_fit_are_refused_as_a_whole(change, message):
    network = CnnNetwork(cnn_config())
    before = network.canonical_weights()
    weights = random_weights(shapes_of(network))
    change(weights)
    with pytest.raises(BundleWeightsError, match=message):
        network.set_canonical_weights(weights)
    for name, array in network.canonical_weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_moments_of_a_trained_probe_are_no_kernel():
    """Four axes, but (m, N, N, 2) in every backend."""
    moments = np.zeros((3, 64, 64, 2), np.float32)
    assert layers.to_canonical('probe', moments).shape == (3, 64, 64, 2)
    assert layers.to_native('probe', moments).shape == (3, 64, 64, 2)
    assert layers.to_canonical('phase.center.weight', moments).shape == (2, 64, 3, 64)


# What goes in


@pytest.mark.parametrize('probe_big', [True, False])
def test_in_bfloat16_the_patches_are_nearly_the_same(probe_big):
    config = cnn_config(gridsize=2, probe_big=probe_big)
    network, amplitudes = trained(config), groups_of(config)
    patches = network(amplitudes)
    layers.set_precision(network, 'bf16-mixed')
    short = network(amplitudes)
    assert not np.array_equal(short, patches)
    assert_close(short, patches, 0.1, dtype=np.complex64)
    assert {array.dtype for array in network.canonical_weights().values()} == {np.dtype('f4')}
    layers.set_precision(network, '32-true')
    np.testing.assert_array_equal(network(amplitudes), patches)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((2, 64, 64, 4), r'takes groups of 1 pattern\(s\) \(gridsize 1\), but got 4,'),
        ((2, 64, 32, 1), r'shape \(2, 64, 32, 1\); the network expects \(B, 64, 64, 1\)'),
        ((1, 64, 64), r'shape \(1, 64, 64\); the network expects \(B, 64, 64, 1\)'),
    ],
)
def test_groups_of_another_size(shape, message):
    with pytest.raises(ShapeError, match=message):
        CnnNetwork(cnn_config())(tf.zeros(shape))
