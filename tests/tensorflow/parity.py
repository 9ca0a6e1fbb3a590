"""Scenes as tensors of TensorFlow; what they are compared by is in `tests/parity`."""

import numpy as np
import tensorflow as tf

from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.backends.tensorflow.sweeps import SweepState
from tests.parity.scenes import PlainScene


def gradient_of(loss, array):
    """Return dL/da + i dL/db (or dL/da) of a loss at the array a + i b (or a).

    That is also TensorFlow's own convention for complex tensors, and PyTorch's.
    """
    tensor = tf.constant(array)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = loss(tensor)
    return value, tape.gradient(value, tensor)


class Scene(PlainScene):
    """The same, as tensors."""

    @property
    def tensors(self):
        return ScanTensors(self.scan)

    @property
    def state(self):
        return SweepState(
            tf.constant(self.object_), SweepState.start(self.tensors, self.probe).probe
        )

    def tensor_prediction(self, object_=None, chosen=None):
        tensors, state = self.tensors, self.state
        chosen = np.arange(len(tensors)) if chosen is None else chosen
        object_ = state.object_ if object_ is None else object_
        patches = physics.gather_patches(object_, tensors.batch_index(chosen), self.n_px)
        return physics.predict_counts(patches, tensors.batch_probes(state.probe, chosen))
