"""A training step of 'cnn' in both frameworks: network, merge, illumination, terms of the loss."""

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

import tensorflow as tf  # isort: skip - after torch

from ptychodus_torch_plugin.backends.tensorflow import cnn as tf_cnn
from ptychodus_torch_plugin.backends.tensorflow import data as tf_data
from ptychodus_torch_plugin.backends.tensorflow import illumination as tf_illumination
from ptychodus_torch_plugin.backends.tensorflow import layers as tf_layers
from ptychodus_torch_plugin.backends.tensorflow import physics as tf_physics
from ptychodus_torch_plugin.backends.torch import cnn as torch_cnn
from ptychodus_torch_plugin.backends.torch import illumination as torch_illumination
from ptychodus_torch_plugin.backends.torch import physics as torch_physics
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.stitching import canvas_px
from tests.parity.comparison import TOLERANCES, assert_close, waves_of
from tests.parity.graphs import amplitudes_of, random_weights
from tests.parity.scenes import simulated_scan

REACH_PX = 6.0
MEAN_COUNT = 4.0


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
    found = tape.gradient(loss, {name: v.value for name, v in variables.items()})
    return {
        name: tf_layers.to_canonical(name, gradient.numpy())
        for name, gradient in found.items()
        if gradient is not None
    }


class Step:
    """A step that compares all terms of the loss, and the gradient of the sum of some of them."""

    def __init__(self, config, *, modes=1, probe_trainable=False, losses=('nll', 'tv')):
        n_px, count = config.N, config.patterns_per_group
        batch = 2 if n_px == 64 else 1
        self.config, self.trainable, self.losses = config, probe_trainable, losses
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
        self.truth = waves_of((batch * count, n_px, n_px), 9)
        self.counts = np.ones((batch * count, n_px, n_px), np.float32)
        # Near the prediction, or dark pixels outweigh the others; but not so near that a rounding
        # decides which of them is larger, and not as often above it as below: that would cancel.
        factors = np.random.default_rng(8).uniform(0.3, 1.2, self.counts.shape)
        factors += np.copysign(0.05, factors - 1)
        predicted = self.torch().arrays['predicted'].reshape(self.counts.shape)
        self.counts = (predicted * factors).astype(np.float32)
        # The losses pull at dark pixels as hard as at bright ones, and their phase is a rounding.
        self.valid *= predicted.min(axis=0) > 1e-5 * predicted.max()

    def torch(self):
        network = torch_network(torch_cnn.CnnNetwork(self.config), self.weights)
        network.log_intensity_scale.requires_grad_()
        light = torch_illumination.Illumination(*self.lit, trainable=self.trainable)
        offsets, weight, counts, valid, truth = (
            torch.from_numpy(each)
            for each in (self.offsets, self.weight, self.counts, self.valid, self.truth)
        )
        patches = network(torch.from_numpy(self.amplitudes)) * network.intensity_scale
        merged = torch_illumination.merge(patches, offsets, weight, self.side_px)
        predicted = light(merged.seen, 0)
        said = patches if patches.shape == merged.seen.shape else merged.seen
        compared = predicted.flatten(0, 1), counts, valid, MEAN_COUNT
        terms = {
            'nll': torch_physics.poisson_loss(*compared),
            'mae': torch_physics.amplitude_error(*compared),
            'tv': torch_physics.total_variation(merged.center),
            'realspace': torch_physics.object_error(said.flatten(0, 1), truth, weight),
        }
        sum(terms[name] for name in self.losses).backward()
        arrays = {'patches': patches, 'seen': merged.seen, 'center': merged.center}
        arrays |= {'predicted': predicted, 'exported': light.exported(3.0)} | terms
        named = dict(network.named_parameters()) | {'probe': light.shapes[0]}
        return Answer(
            {n: np.asarray(detached(a)) for n, a in arrays.items()}, torch_gradients(named)
        )

    def tensorflow(self):
        network = tf_network(tf_cnn.CnnNetwork(self.config), self.weights)
        light = tf_illumination.Illumination(*self.lit, trainable=self.trainable)
        named = network.canonical_variables()
        named |= {'probe': light.shapes} if self.trainable else {}
        with tf.GradientTape() as tape:
            tape.watch([variable.value for variable in named.values()])
            patches = network(tf_data.channels_last(self.amplitudes))
            patches *= tf_physics.as_complex(network.intensity_scale)
            merged = tf_illumination.merge(
                patches, tf.constant(self.offsets), tf.constant(self.weight), self.side_px
            )
            predicted = light(merged.seen, scan=0)
            patches = tf_data.channels_first(patches)
            said = patches if patches.shape == merged.seen.shape else merged.seen
            flat = tf.reshape(predicted, self.counts.shape)
            compared = flat, self.counts, self.valid, MEAN_COUNT
            said = tf.reshape(said, self.truth.shape)
            terms = {
                'nll': tf_physics.poisson_loss(*compared),
                'mae': tf_physics.amplitude_error(*compared),
                'tv': tf_physics.total_variation(merged.center),
                'realspace': tf_physics.object_error(said, self.truth, self.weight),
            }
            loss = tf.add_n([terms[name] for name in self.losses])
        arrays = {'patches': patches, 'seen': merged.seen, 'center': merged.center}
        arrays |= {'predicted': predicted, 'exported': light.exported(3.0)} | terms
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
