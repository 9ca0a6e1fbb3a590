"""`gridsize` alone decides how many patterns a group has, everywhere."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.backends.torch.backend import TorchBackend
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.torch.cnn_training import CnnTraining
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

EXECUTION = ExecutionConfig(accelerator='cpu', logger_backend='none')


def model_of(gridsize: int) -> ModelConfig:
    return ModelConfig(architecture='cnn', N=64, gridsize=gridsize, n_filters_scale=1)


@pytest.fixture(scope='module')
def scan() -> ScanData:
    return simulate_scan(SimulationConfig(N=64, n_positions=20, object_kind='dead-leaves', seed=2))


class TestWorkflowsComponentsTraining:
    """What a training puts together fits together."""

    @pytest.fixture(autouse=True)
    def no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')

    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
        """Numbers of patterns that come by in loaders, network and physics."""
        numbers: list[tuple[str, int]] = []
        network, loss = CnnNetwork.forward, CnnTraining.loss
        terms = CnnTraining._terms

        def watch_network(self, amplitudes):
            patches = network(self, amplitudes)
            numbers.extend([('network in', amplitudes.shape[1]), ('network out', patches.shape[1])])
            return patches

        def watch_loss(self, batch):
            numbers.append(('loader', batch.counts.shape[1]))
            return loss(self, batch)

        def watch_terms(self, batch, patches, merged, valid):
            predicted = self.illumination(merged.seen, batch.scan)
            numbers.append(('physics', predicted.shape[1]))
            return terms(self, batch, patches, merged, valid)

        monkeypatch.setattr(CnnNetwork, 'forward', watch_network)
        monkeypatch.setattr(CnnTraining, 'loss', watch_loss)
        monkeypatch.setattr(CnnTraining, '_terms', watch_terms)
        yield numbers

    def test_lightning_training_respects_gridsize(self, scan, seen):
        backend = TorchBackend()
        for gridsize in (1, 2, 3):
            seen.clear()
            model = model_of(gridsize)
            training = TrainingConfig(epochs=1, batch_size=5, n_groups=12).for_model(model)
            built = backend.build(model, Calibration.of([scan], model))
            assert built.network.encoder[0].conv1.in_channels == gridsize**2
            assert built.network.patterns_per_group == model.patterns_per_group == gridsize**2

            result = backend.fit(built, [scan], training, EXECUTION)

            assert np.isfinite(result.history[-1].loss)
            assert {name for name, _ in seen} == {'loader', 'network in', 'network out', 'physics'}
            assert {number for _, number in seen} == {gridsize**2}

    @pytest.mark.parametrize(('built_for', 'trained_with'), [(1, 2), (2, 1), (3, 2)])
    def test_a_network_for_other_groups_is_refused_before_the_first_step(
        self, scan, seen, built_for, trained_with
    ):
        backend = TorchBackend()
        model = model_of(trained_with)
        built = backend.build(model, Calibration.of([scan], model))
        built.network = CnnNetwork(model_of(built_for))
        training = TrainingConfig(epochs=1).for_model(model)

        with pytest.raises(ShapeError, match=rf'groups of {built_for**2} .*{trained_with**2}'):
            backend.fit(built, [scan], training, EXECUTION)

        assert seen == []

    def test_a_batch_of_other_groups_is_refused_by_the_network(self):
        network = CnnNetwork(model_of(2))

        with pytest.raises(ShapeError, match=r'groups of 4 .*got 9'):
            network(torch.ones(2, 9, 64, 64))
