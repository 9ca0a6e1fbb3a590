"""PyTorch and TensorFlow against each other: the same weights, predictions and gradients.

Both are imported without a guard: where one is missing these tests fail, they never skip.
"""

from copy import copy
from functools import cache

import numpy as np
import pytest
import torch

import tensorflow as tf  # isort: skip - after torch

from ptychodus_torch_plugin.backends.tensorflow import physics as tf_physics
from ptychodus_torch_plugin.backends.tensorflow import unrolled as tf_unrolled
from ptychodus_torch_plugin.backends.torch import physics as torch_physics
from ptychodus_torch_plugin.backends.torch import unrolled as torch_unrolled
from tests.parity.cnn_step import (
    Answer,
    Step,
    assert_same,
    tf_gradients,
    tf_network,
    torch_gradients,
    torch_network,
    weights_for,
)
from tests.parity.graphs import CANVAS_SHAPES, CHANNELS, canvas_arrays, cnn_config
from tests.parity.options import CASES, OPTIONS, missing_pairs


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Two pools of threads in one process mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# 'cnn': network, merge, illumination, terms of the loss


def test_each_value_of_an_option_meets_each_of_another():
    assert not missing_pairs(list(CASES.values()))
    assert len(missing_pairs(list(CASES.values())[:-1])) >= 2  # the last case is needed, too
    for case in CASES.values():
        assert all(case[name] in values for name, values in OPTIONS.items())


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_a_step_of_cnn(case):
    options = dict(case)
    loss, modes, trainable = (options.pop(n) for n in ('loss', 'modes', 'probe_trainable'))
    step = Step(cnn_config(**options), modes=modes, probe_trainable=trainable, losses=(loss,))
    expected = step.torch()
    assert expected.arrays['exported'].shape == (modes, case['N'], case['N'])
    lit = loss in ('nll', 'mae')
    assert ('probe' in expected.gradients) == (trainable and lit)
    assert 'log_intensity_scale' in expected.gradients
    assert_same(step.tensorflow(), expected)


FILTERED = {'probe_mask': True, 'gaussian_smoothing_sigma': 0.8}
ATTENTIVE = {'n_filters_scale': 2, 'cbam_encoder': True, 'outer_channels': 3, 'border_filters': 5}


@pytest.mark.parametrize(
    ('modes', 'options'), [(1, FILTERED), (3, FILTERED), (1, ATTENTIVE)], ids=str
)
def test_a_step_of_cnn_with_rarer_options(modes, options):
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
        ('truth', lambda x: x.conj()),
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
