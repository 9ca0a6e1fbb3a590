"""Adam with the numbers of PyTorch's, on Keras' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.tensorflow.layers import to_canonical, to_native

SLOTS = ('exp_avg', 'exp_avg_sq')
"""Names of the moments in bundles."""


class Adam(keras.optimizers.Adam):
    """Algorithm 1 of Kingma & Ba, arXiv:1412.6980: epsilon stands beside the corrected root.

    Keras puts it beside the uncorrected one: small gradients then make shorter first steps.
    """

    def __init__(self, variables: dict[str, keras.Variable]) -> None:
        super().__init__(epsilon=1e-8)
        self._named = variables
        self.build(list(variables.values()))

    def apply(self, gradients: Sequence[Tensor]) -> None:
        # In single precision 1 - 0.999 has lost half of its digits.
        step = tf.cast(self.iterations + 1, tf.float64)
        first, second = (
            1 - tf.pow(tf.constant(beta, tf.float64), step) for beta in (self.beta_1, self.beta_2)
        )
        self._length = tf.cast(self.learning_rate, tf.float32) / tf.cast(first, tf.float32)
        self._root = tf.sqrt(tf.cast(second, tf.float32))
        super().apply(gradients)

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        # TensorFlow's own variables: Keras' arithmetic takes far longer to trace.
        first, second = (slot[index].value for slot in (self._momentums, self._velocities))
        first.assign_add((gradient - first) * (1 - self.beta_1))
        second.assign_add((tf.square(gradient) - second) * (1 - self.beta_2))
        scale = tf.sqrt(second) / self._root + self.epsilon
        variable.assign_sub(self._length * first / scale)

    def moments(self) -> dict[str, NDArray[np.float32]]:
        """Return the moments after the last step, in the canonical layout."""
        step = int(self.iterations.numpy())
        if step == 0:
            return {}
        found: dict[str, NDArray[np.float32]] = {}
        for name, variable in self._named.items():
            index = self._get_variable_index(variable)
            pair = self._momentums[index], self._velocities[index]
            for slot, moment in zip(SLOTS, pair, strict=True):
                found[f'{slot}/{name}'] = to_canonical(name, moment.numpy())
            found[f'step/{name}'] = np.array(step, np.float32)
        return found

    def set_moments(self, moments: Mapping[str, FloatArray]) -> None:
        """Take over what `moments` returned."""
        if not moments:
            return
        for name, variable in self._named.items():
            index = self._get_variable_index(variable)
            pair = self._momentums[index], self._velocities[index]
            for slot, moment in zip(SLOTS, pair, strict=True):
                moment.assign(to_native(name, moments[f'{slot}/{name}']))
            self.iterations.assign(int(moments[f'step/{name}']))
