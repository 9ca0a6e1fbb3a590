"""PyTorch and TensorFlow against each other: the same weights, predictions and gradients.

Both are imported without a guard: where one is missing these tests fail, they never skip.
"""

from copy import copy
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch

import tensorflow as tf  # isort: skip - after torch

from ptychodus_torch_plugin.backends.tensorflow import cnn as tf_cnn
from ptychodus_torch_plugin.backends.tensorflow import data as tf_data
from ptychodus_torch_plugin.backends.tensorflow import illumination as tf_illumination
from ptychodus_torch_plugin.backends.tensorflow import layers as tf_layers
from ptychodus_torch_plugin.backends.tensorflow import physics as tf_physics
from ptychodus_torch_plugin.backends.tensorflow import unrolled as tf_unrolled
from ptychodus_torch_plugin.backends.torch import cnn as torch_cnn
from ptychodus_torch_plugin.backends.torch import illumination as torch_illumination
from ptychodus_torch_plugin.backends.torch import physics as torch_physics
from ptychodus_torch_plugin.backends.torch import unrolled as torch_unrolled
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.stitching import canvas_px
from tests.parity.comparison import TOLERANCES, assert_close
from tests.parity.graphs import (
    CANVAS_SHAPES,
    CHANNELS,
    amplitudes_of,
    canvas_arrays,
    cnn_config,
    random_weights,
)
from tests.parity.scenes import simulated_scan

REACH_PX = 6.0


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Two pools of threads in one process mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Answer(NamedTuple):
    """What a framework says: arrays in the layout of NumPy's edge, and gradients by name."""

    arrays: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def assert_same(one: Answer, other: Answer) -> None:
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in other.arrays.items():
        tolerance = TOLERANCES['prediction']
        assert_close(one.arrays[name], array, tolerance, dtype=array.dtype)
    assert one.gradients.keys() == other.gradients.keys()
    for name, gradient in other.gradients.items():
        tolerance = TOLERANCES['gradient']
        assert_close(one.gradients[name], gradient, tolerance, dtype=np.float32)


def torch_network(network, weights):
    network.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return network


def tf_network(network, weights):
    network.set_canonical_weights(weights)
    return network


def weights_for(network, **options):
    """Return random weights for a network of PyTorch; the scale of its output stays."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    kept = {n: t.numpy() for n, t in network.state_dict().items() if not t.ndim}
    return random_weights(shapes, **options) | kept


def torch_gradients(variables):
    return {name: v.grad.numpy() for name, v in variables.items() if v.grad is not None}


def tf_gradients(tape, loss, variables):
    found = tape.gradient(loss, {n: v.value for n, v in variables.items() if v.trainable})
    return {name: tf_layers.to_canonical(name, g.numpy()) for name, g in found.items()}


# 'cnn': network, merge, illumination, likelihood


class Step:
    """A training step of 'cnn' in both frameworks."""

    def __init__(self, config, *, modes=1, probe_trainable=False, batch=2):
        n_px, count = config.N, config.patterns_per_group
        self.config, self.trainable = config, probe_trainable
        self.amplitudes = amplitudes_of(config, batch)
        offsets = np.random.default_rng(7).uniform(-REACH_PX, REACH_PX, (batch, count, 2))
        self.offsets = (offsets - offsets.mean(axis=1, keepdims=True) / 2).astype(np.float32)
        y, x = np.indices((n_px, n_px)) / n_px
        self.weight = np.exp(-((y - 0.4) ** 2) - 2 * (x - 0.6) ** 2).astype(np.float32)
        self.weights = weights_for(torch_cnn.CnnNetwork(config))
        self.scan = scan_of(n_px, modes)
        self.valid = self.scan.valid_pixels.astype(np.float32)
        self.side_px = canvas_px(n_px, 2 * REACH_PX)
        self.lit = [self.scan], config, Calibration.of([self.scan], config)
        self.counts = np.ones((batch * count, n_px, n_px), np.float32)
        # Counts near the prediction: far above it, a dark pixel's rounding is all of the gradient.
        factors = np.random.default_rng(8).uniform(0.5, 1.6, self.counts.shape)
        predicted = self.torch().arrays['predicted'].reshape(self.counts.shape)
        self.counts = (predicted * factors).astype(np.float32)

    def torch(self):
        network = torch_network(torch_cnn.CnnNetwork(self.config), self.weights)
        light = torch_illumination.Illumination(*self.lit, trainable=self.trainable)
        offsets, weight, counts, valid = (
            torch.from_numpy(each) for each in (self.offsets, self.weight, self.counts, self.valid)
        )
        patches = network(torch.from_numpy(self.amplitudes))
        merged = torch_illumination.merge(
            patches * network.intensity_scale, offsets, weight, self.side_px
        )
        predicted = light(merged.seen, 0)
        loss = torch_physics.poisson_loss(predicted.flatten(0, 1), counts, valid, 4.0)
        loss = loss + torch_physics.total_variation(merged.center)
        loss.backward()
        arrays = {'patches': patches, 'seen': merged.seen, 'center': merged.center}
        arrays |= {'predicted': predicted, 'loss': loss, 'exported': light.exported(3.0)}
        named = dict(network.named_parameters()) | {'probe': light.shapes[0]}
        return Answer(
            {n: np.asarray(detached(a)) for n, a in arrays.items()}, torch_gradients(named)
        )

    def tensorflow(self):
        network = tf_network(tf_cnn.CnnNetwork(self.config), self.weights)
        light = tf_illumination.Illumination(*self.lit, trainable=self.trainable)
        with tf.GradientTape() as tape:
            patches = network(tf_data.channels_last(self.amplitudes))
            merged = tf_illumination.merge(
                patches * tf.cast(network.intensity_scale, tf.complex64),
                tf.constant(self.offsets),
                tf.constant(self.weight),
                self.side_px,
            )
            predicted = light(merged.seen, scan=0)
            flat = tf.reshape(predicted, self.counts.shape)
            loss = tf_physics.poisson_loss(flat, self.counts, self.valid, 4.0)
            loss += tf_physics.total_variation(merged.center)
        arrays = {'patches': tf_data.channels_first(patches), 'seen': merged.seen}
        arrays |= {'center': merged.center, 'predicted': predicted, 'loss': loss}
        arrays |= {'exported': light.exported(3.0)}
        named = network.canonical_variables()
        named |= {'probe': light.shapes} if self.trainable else {}
        return Answer(
            {n: np.asarray(a) for n, a in arrays.items()}, tf_gradients(tape, loss, named)
        )


def detached(array):
    return array.detach() if isinstance(array, torch.Tensor) else array


@cache
def scan_of(n_px, modes):
    """Return a few patterns of unequal modes, with bad pixels."""
    scan = simulated_scan(N=n_px, n_positions=9, step_px=9.0, probe_modes=modes)
    bad_pixels = np.random.default_rng(1).random((n_px, n_px)) < 0.03
    return replace(scan, bad_pixels=bad_pixels)


CASES = {
    'defaults': {},
    '2 x 2': {'gridsize': 2, 'amp_activation': 'swish'},
    '2 x 2, one patch': {'gridsize': 2, 'object_big': False, 'amp_activation': 'softplus'},
    '3 x 3': {'gridsize': 3, 'probe_big': False, 'amp_activation': 'relu'},
    '3 x 3, one patch, all in one': {'gridsize': 3, 'object_big': False, 'pad_object': False},
    'all in one, only the middle': {'pad_object': False, 'probe_big': False},
    '2 x 2, 128 px': {'gridsize': 2, 'N': 128},
    '128 px, all in one, relu': {'N': 128, 'pad_object': False, 'amp_activation': 'relu'},
    '3 x 3, 128 px, one patch': {
        'gridsize': 3,
        'N': 128,
        'object_big': False,
        'probe_big': False,
        'amp_activation': 'swish',
    },
    'attention': {
        'gridsize': 2,
        'n_filters_scale': 2,
        'cbam_encoder': True,
        'outer_channels': 3,
        'border_filters': 5,
    },
    'mask and filter': {'gridsize': 2, 'probe_mask': True, 'gaussian_smoothing_sigma': 0.8},
}


@pytest.mark.parametrize('options', CASES.values(), ids=CASES)
def test_a_step_of_cnn(options):
    step = Step(cnn_config(**options))
    assert_same(step.tensorflow(), step.torch())


@pytest.mark.parametrize('options', [{}, {'probe_mask': True, 'gaussian_smoothing_sigma': 0.8}])
@pytest.mark.parametrize('modes', [1, 3])
def test_a_step_of_cnn_that_trains_the_probe(modes, options):
    step = Step(cnn_config(gridsize=2, **options), modes=modes, probe_trainable=True)
    expected = step.torch()
    assert expected.gradients['probe'].shape == (modes, 64, 64, 2)
    assert_same(step.tensorflow(), expected)


@cache
def group_of_four():
    """Return a step and what PyTorch says of it."""
    step = Step(cnn_config(gridsize=2))
    return step, step.torch()


@pytest.mark.parametrize(
    ('name', 'spoil'),
    [
        ('amplitudes', lambda x: np.roll(x, 1, axis=-1)),
        ('amplitudes', lambda x: np.roll(x, 1, axis=-2)),
        ('amplitudes', lambda x: x.swapaxes(-2, -1)),
        ('amplitudes', lambda x: x[:, ::-1]),
        ('offsets', lambda x: x + np.float32([1, 0])),
        ('offsets', lambda x: x[..., ::-1]),
        ('offsets', lambda x: x[:, ::-1]),
        ('counts', lambda x: x[::-1]),
        ('counts', lambda x: x.swapaxes(-2, -1)),
        ('weight', lambda x: x.T),
        ('valid', lambda x: x.T),
        ('weights', lambda w: {n: x.swapaxes(-2, -1) if x.ndim == 4 else x for n, x in w.items()}),
    ],
)
def test_the_comparison_notices(name, spoil):
    step, expected = group_of_four()
    step = copy(step)
    spoiled = spoil(getattr(step, name))
    if isinstance(spoiled, np.ndarray):
        spoiled = np.ascontiguousarray(spoiled)
    setattr(step, name, spoiled)
    with pytest.raises(AssertionError, match='off by'):
        assert_same(step.tensorflow(), expected)


# 'unrolled'


@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('shape', CANVAS_SHAPES)
def test_the_unrolled_network(shape, channels):
    arrays = canvas_arrays(shape)
    network = torch_unrolled.UnrolledNetwork(channels)
    weights = weights_for(network, gain=2)
    torch_network(network, weights)
    tensors = [torch.from_numpy(array) for array in arrays]
    gauge = torch_unrolled.mean_transmission(*tensors)
    result = network(*tensors, gauge)
    torch_physics.absolute_square(result).sum().backward()
    expected = Answer(
        {'gauge': np.asarray(gauge), 'result': np.asarray(result.detach())},
        torch_gradients(dict(network.named_parameters())),
    )

    own = tf_network(tf_unrolled.UnrolledNetwork(channels), weights)
    with tf.GradientTape() as tape:
        gauge = tf_unrolled.mean_transmission(*arrays)
        result = own(*(tf.constant(array) for array in arrays), gauge)
        loss = tf.reduce_sum(tf_physics.absolute_square(result))
    actual = Answer(
        {'gauge': np.asarray(gauge), 'result': np.asarray(result)},
        tf_gradients(tape, loss, own.canonical_variables()),
    )
    assert_same(actual, expected)
