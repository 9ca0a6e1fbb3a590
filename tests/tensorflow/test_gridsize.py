"""`gridsize` alone decides how many patterns a group has, everywhere."""

import numpy as np
import pytest
import tensorflow as tf

from ptychodus_torch_plugin.backends.tensorflow.backend import TensorFlowBackend
from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.tensorflow.cnn_training import CnnTraining
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.scan import ScanData
from tests.parity.scenes import simulated_scan

EXECUTION = ExecutionConfig(accelerator='cpu', logger_backend='none')


def model_of(gridsize: int) -> ModelConfig:
    return ModelConfig(architecture='cnn', N=64, gridsize=gridsize, n_filters_scale=1)


@pytest.fixture(scope='module')
def scan() -> ScanData:
    return simulated_scan(N=64, n_positions=20, seed=2)


@pytest.fixture
def seen(monkeypatch):
    """Numbers of patterns that come by in batches, network and physics."""
    numbers = []
    network, loss, terms = CnnNetwork.call, CnnTraining.loss, CnnTraining._terms

    def watch_network(self, amplitudes):
        patches = network(self, amplitudes)
        numbers.extend([('network in', amplitudes.shape[3]), ('network out', patches.shape[3])])
        return patches

    def watch_loss(self, batch):
        numbers.append(('batch', batch.counts.shape[1]))
        return loss(self, batch)

    def watch_terms(self, batch, patches, merged, valid):
        predicted = self.illumination(merged.seen, scan=batch.scan)
        numbers.append(('physics', predicted.shape[1]))
        return terms(self, batch, patches, merged, valid)

    monkeypatch.setattr(CnnNetwork, 'call', watch_network)
    monkeypatch.setattr(CnnTraining, 'loss', watch_loss)
    monkeypatch.setattr(CnnTraining, '_terms', watch_terms)
    return numbers


@pytest.mark.parametrize(
    'gridsize', [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 3]
)
def test_training_respects_gridsize(scan, seen, gridsize):
    backend, model = TensorFlowBackend(), model_of(gridsize)
    training = TrainingConfig(epochs=1, batch_size=5, n_groups=12).for_model(model)
    built = backend.build(model, Calibration.of([scan], model))
    assert built.network.encoder[0].conv1.weight.shape[2] == gridsize**2
    assert built.network.patterns_per_group == model.patterns_per_group == gridsize**2

    result = backend.fit(built, [scan], training, EXECUTION)

    assert np.isfinite(result.history[-1].loss)
    assert {name for name, _ in seen} == {'batch', 'network in', 'network out', 'physics'}
    assert {number for _, number in seen} == {gridsize**2}


@pytest.mark.parametrize(('built_for', 'trained_with'), [(1, 2), (2, 1), (3, 2)])
def test_a_network_for_other_groups_is_refused_before_the_first_step(
    scan, seen, built_for, trained_with
):
    backend, model = TensorFlowBackend(), model_of(trained_with)
    built = backend.build(model, Calibration.of([scan], model))
    built.network = CnnNetwork(model_of(built_for))
    training = TrainingConfig(epochs=1).for_model(model)

    with pytest.raises(ShapeError, match=rf'groups of {built_for**2} .*{trained_with**2}'):
        backend.fit(built, [scan], training, EXECUTION)

    assert seen == []


def test_a_batch_of_other_groups_is_refused_by_the_network():
    with pytest.raises(ShapeError, match=r'groups of 4 .*got 9'):
        CnnNetwork(model_of(2))(tf.ones((2, 64, 64, 9)))
