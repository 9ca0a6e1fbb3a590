"""Scenes as tensors of PyTorch; what they are compared by is in `tests/parity`."""

import torch

from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import SweepState
from tests.parity.comparison import TOLERANCES, assert_close, waves_of
from tests.parity.scenes import PlainScene

__all__ = ['CPU', 'TOLERANCES', 'Scene', 'assert_close', 'board', 'waves_of']

CPU = torch.device('cpu')


def board(n_px):
    return physics.checkerboard(n_px, CPU)


class Scene(PlainScene):
    """The same, as tensors."""

    @property
    def tensors(self):
        return ScanTensors(self.scan, CPU)

    @property
    def state(self):
        state = SweepState.start(self.tensors, self.probe)
        state.object_ = torch.from_numpy(self.object_)
        return state

    def tensor_prediction(self, object_=None, chosen=None):
        tensors, state = self.tensors, self.state
        chosen = torch.arange(len(tensors)) if chosen is None else chosen
        object_ = state.object_ if object_ is None else object_
        patches = physics.gather_patches(object_, tensors.batch_index(chosen), self.n_px)
        return physics.predict_counts(patches, tensors.batch_probes(state.probe, chosen))
