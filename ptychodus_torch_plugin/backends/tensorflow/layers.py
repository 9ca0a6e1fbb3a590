"""What the networks are made of: convolutions, and weights by their canonical names.

A canonical name is the path of attributes to a variable, as `specs/model-graph.md` has it.
Canonical kernels are (out, in, kh, kw); those of TensorFlow are (kh, kw, in, out).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.bundle.weights import check_weights

PRECISIONS = {'32-true': 'float32', 'bf16-mixed': 'mixed_bfloat16'}
"""Keras' names by `ExecutionConfig.precision`."""


class Convolution(keras.layers.Layer):
    """A 2-D correlation (B, h, w, in) -> (B, h, w, out), zeros beyond the edges ('same').

    Parameters
    ----------
    weight : (out, in, kh, kw) float32
        The kernel before training.
    bias : (out,) float32 or None
        None leaves it out.
    """

    def __init__(self, weight: FloatArray, bias: FloatArray | None) -> None:
        super().__init__(dtype='float32')
        self.weight = new_variable(self, 'weight', to_native('weight', weight))
        self.bias = None if bias is None else new_variable(self, 'bias', bias)
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        result = tf.nn.conv2d(x, self.weight, 1, 'SAME')
        return result if self.bias is None else tf.nn.bias_add(result, self.bias)


class Composite(keras.layers.Layer):
    """A layer made of others, which passes on what those compute in their own precision."""

    def __init__(self) -> None:
        super().__init__(dtype='float32', autocast=False)
        self.built = True  # nothing waits for an input


class CanonicalModel(keras.Model):
    """A network whose weights can be read and set by their canonical names."""

    def __init__(self) -> None:
        super().__init__(dtype='float32', autocast=False)
        self.built = True  # nothing waits for an input

    def canonical_variables(self) -> dict[str, keras.Variable]:
        """Return the variables, trainable or not, by canonical name."""
        return {path: p for path, p in _parts(self, '') if isinstance(p, keras.Variable)}

    def canonical_weights(self) -> dict[str, FloatArray]:
        """Return copies of all weights in the canonical layout, float32."""
        variables = self.canonical_variables()
        return {name: to_canonical(name, variable.numpy()) for name, variable in variables.items()}

    def set_canonical_weights(self, weights: Mapping[str, FloatArray]) -> None:
        """Take over weights in the canonical layout; raise `BundleWeightsError` if they misfit."""
        expected = {name: array.shape for name, array in self.canonical_weights().items()}
        check_weights(weights, expected)
        for name, variable in self.canonical_variables().items():
            variable.assign(to_native(name, weights[name]))


def new_variable(
    layer: keras.layers.Layer, name: str, value: FloatArray, *, trainable: bool = True
) -> keras.Variable:
    """Return a new variable of a layer that starts with `value`, float32."""
    return layer.add_weight(
        name=name,
        shape=value.shape,
        initializer=lambda *_, **__: tf.constant(value, tf.float32),
        trainable=trainable,
    )


def set_precision(network: CanonicalModel, precision: str) -> None:
    """Let the convolutions of a network compute in `ExecutionConfig.precision` from now on.

    Variables stay float32.  A `tf.function` that was traced before does not notice.
    """
    for _, part in _parts(network, ''):
        if isinstance(part, Convolution):
            part.dtype_policy = PRECISIONS[precision]


def to_native(name: str, array: FloatArray) -> FloatArray:
    """Return a variable of a canonical name, or its moments, in the layout of TensorFlow."""
    return np.transpose(array, (2, 3, 1, 0)) if _is_kernel(name, array) else array


def to_canonical(name: str, array: FloatArray) -> FloatArray:
    """Invert `to_native`; always a copy."""
    return np.array(np.transpose(array, (3, 2, 0, 1)) if _is_kernel(name, array) else array)


def _is_kernel(name: str, array: FloatArray) -> bool:
    """Say whether axes differ; a trained probe, also of four axes, is the same everywhere."""
    return name.endswith('weight') and array.ndim == 4


def _parts(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the layers and variables under `part` with the path of attributes to each."""
    if isinstance(part, (keras.layers.Layer, keras.Variable)):
        yield path, part
    if isinstance(part, list):
        named = {str(number): each for number, each in enumerate(part)}
    elif isinstance(part, keras.layers.Layer):
        named = {name: each for name, each in vars(part).items() if not name.startswith('_')}
    else:
        return
    for name, each in named.items():
        yield from _parts(each, f'{path}.{name}' if path else name)
