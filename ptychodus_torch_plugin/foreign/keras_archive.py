"""The TensorFlow variant: weights from model.keras by its graph, the rest from params.dill."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.bundle.errors import CorruptBundleError, ForeignBundleError, quoted
from ptychodus_torch_plugin.bundle.strict_json import decode_json
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.files.keras_weights import read_keras_weights
from ptychodus_torch_plugin.foreign.archive import Archive, open_inner
from ptychodus_torch_plugin.foreign.keras_graph import (
    CONVOLUTION,
    HEADS,
    Layer,
    canonical_convolutions,
    parse_layers,
)
from ptychodus_torch_plugin.foreign.limits import METADATA_BYTES, PARAMETERS_BYTES, WEIGHTS_BYTES
from ptychodus_torch_plugin.foreign.model import (
    MODEL,
    PHOTONS,
    PROBE_SCALE,
    ForeignModel,
    common_settings,
    model_config,
    positive,
)
from ptychodus_torch_plugin.foreign.parameters import Parameters, read_parameters
from ptychodus_torch_plugin.physics import Complex

KERAS_FILE = f'{MODEL}/model.keras'
PARAMETERS_FILE = f'{MODEL}/params.dill'
CONFIG_FILE, WEIGHTS_FILE = 'config.json', 'model.weights.h5'


def read_keras_archive(archive: Archive, version: str) -> ForeignModel:
    """Return the model in an archive of the TensorFlow variant.

    Raises
    ------
    BundleError
        A subclass per defect; `ForeignBundleError` names what this package has no model for.
    """
    parameters = read_parameters(
        archive.read(PARAMETERS_FILE, at_most=PARAMETERS_BYTES),
        source=archive.source_of(PARAMETERS_FILE),
    )
    config = _config(parameters)
    keras = open_inner(
        archive.read(KERAS_FILE, at_most=WEIGHTS_BYTES), archive.source_of(KERAS_FILE)
    )
    description = decode_json(
        keras.read(CONFIG_FILE, at_most=METADATA_BYTES), source=keras.source_of(CONFIG_FILE)
    )
    layers = parse_layers(description, source=keras.source)
    weights = _weights(keras, layers, config)
    _check_activation(layers, config, keras.source)
    return ForeignModel(
        framework='TensorFlow',
        version=version,
        config=config,
        weights=weights,
        photons=positive(parameters, 'nphotons', PHOTONS),
        probe_scale=positive(parameters, 'probe_scale', PROBE_SCALE),
        probe=_probe(parameters, config.N) if 'probe' in parameters else None,
        notes=_notes(parameters, config),
    )


def _config(parameters: Parameters) -> ModelConfig:
    pad_object = parameters.flag('pad_object', default=True)
    probe_big = parameters.flag('probe.big', default=True)
    settings = common_settings(parameters) | {
        'amp_activation': parameters.text('amp_activation', 'sigmoid'),
        'object_big': parameters.flag('object.big', default=True),
        # Without padding the network of PtychoPINN fills the whole patch in any case.
        'probe_big': probe_big or not pad_object,
        'pad_object': pad_object,
        'probe_mask': parameters.flag('probe.mask', default=False),
        'gaussian_smoothing_sigma': parameters.number('gaussian_smoothing_sigma', 0.0),
    }
    return model_config(settings, parameters.source)


def _notes(parameters: Parameters, config: ModelConfig) -> tuple[str, ...]:
    notes = [f'weights: convolutions of {KERAS_FILE}, told apart by its graph']
    if config.probe_big and not parameters.flag('probe.big', default=True):
        notes.append('probe.big = False means nothing where pad_object is False: taken as True')
    return tuple(notes)


def _check_activation(layers: Mapping[str, Layer], config: ModelConfig, source: str) -> None:
    """The parameters are those of a process; the model may have been made before they changed."""
    stated = layers[HEADS['amplitude']].settings.get('activation_name')
    if isinstance(stated, str) and stated != config.amp_activation:
        raise ForeignBundleError(
            f'{source} has amplitudes by {quoted(stated)}, but its parameters say amp_activation = '
            f'{config.amp_activation!r}; expected one of both. Save the model again in a process '
            'that has its parameters.'
        )


def _weights(
    keras: Archive, layers: Mapping[str, Layer], config: ModelConfig
) -> dict[str, FloatArray]:
    """Return kernels (out, in, kh, kw) and biases by canonical name."""
    source = keras.source_of(WEIGHTS_FILE)
    names = canonical_convolutions(layers, config, source=keras.source)
    data = keras.read(WEIGHTS_FILE, at_most=WEIGHTS_BYTES)
    groups = read_keras_weights(data, source=source, at_most=WEIGHTS_BYTES)
    group_of = _group_names(layers)
    others = sorted(groups.keys() - set(group_of.values()))
    if others:
        raise ForeignBundleError(
            f'{source} has weights of {quoted(others[0])}, which no model of this package has; '
            'expected convolutions alone. Train the model here instead.'
        )
    weights = {}
    for name, layer in names.items():
        variables = groups.get(group_of[layer], [])
        if [each.ndim for each in variables] != [4, 1]:
            raise CorruptBundleError(
                f'{source} has {[each.shape for each in variables]} in {group_of[layer]}; expected '
                f'kernel and bias of {name}. Copy the archive again from where it was written.'
            )
        kernel, bias = variables
        weights[f'{name}.weight'] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        weights[f'{name}.bias'] = bias
    return weights


def _group_names(layers: Mapping[str, Layer]) -> dict[str, str]:
    """Return the group of weights of each convolution.

    They are numbered in the order of the layers, whatever these are called.
    """
    names = (name for name, each in layers.items() if each.kind == CONVOLUTION)
    return {name: f'conv2d_{i}' if i else 'conv2d' for i, name in enumerate(names)}


def _probe(parameters: Parameters, n_px: int) -> Complex:
    """Return the probe (1, N, N) complex128."""
    probe = parameters.array('probe')
    if probe.squeeze().shape != (n_px, n_px):
        raise ForeignBundleError(
            f'{parameters.source} has a probe of shape {probe.shape}; expected one mode, '
            f'({n_px}, {n_px}, 1). Train the model here instead.'
        )
    with np.errstate(invalid='ignore', over='ignore'):
        return probe.reshape(1, n_px, n_px).astype(np.complex128)
