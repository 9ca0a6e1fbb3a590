"""What an archive of PtychoPINN holds, whichever of its frameworks wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.bundle.errors import ForeignBundleError
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.config.model import CNN_SIZES_PX
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.foreign.parameters import Parameters
from ptychodus_torch_plugin.physics import Complex

MODEL = 'diffraction_to_obj'
"""The one of the two models that is read: it has all weights, and no state of an optimiser."""

POSITIVE = (1e-12, 1e24)
PROBE_SCALE = 4.0
PHOTONS = 1e9
"""What PtychoPINN takes where nothing is said."""


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """A model in the terms of this package, except for its scale, which needs a probe.

    Attributes
    ----------
    framework, version
        Who wrote the archive: 'TensorFlow' or 'PyTorch', and the archive's own version.
    config
        What the model is.
    weights : dict of float32
        By canonical name, kernels (out, in, kh, kw); all but `log_intensity_scale`.
    photons
        Mean total counts of a pattern that the model was told.
    probe_scale
        Divisor of the probe in PtychoPINN.
    probe : (m, N, N) complex or None
        The probe in the archive, on any scale.
    notes
        What was assumed, line by line.
    """

    framework: str
    version: str
    config: ModelConfig
    weights: Mapping[str, FloatArray]
    photons: float
    probe_scale: float
    probe: Complex | None
    notes: tuple[str, ...]


def positive(parameters: Parameters, key: str, default: float) -> float:
    """Return a number above zero, and not absurdly so; `ForeignBundleError` if it is none."""
    value = parameters.number(key, default)
    low, high = POSITIVE
    if not low <= value <= high:
        raise ForeignBundleError(
            f'{parameters.source} has {key} = {value:g}; expected {low:g} to {high:g}.'
        )
    return value


def common_settings(parameters: Parameters) -> dict[str, object]:
    """Return the settings that archives of both frameworks state alike, for `ModelConfig`.

    Raises
    ------
    ForeignBundleError
        If the architecture or N is one that 'cnn' does not have.
    """
    parameters.require('architecture', 'cnn')
    parameters.require('model_type', 'pinn', 'supervised')
    parameters.require('N', *CNN_SIZES_PX)
    return {
        'architecture': 'cnn',
        'model_type': parameters.text('model_type', 'pinn'),
        'N': parameters.integer('N'),
        'gridsize': parameters.integer('gridsize'),
        'n_filters_scale': parameters.integer('n_filters_scale', 2),
        'input_scaling': 'scan',
    }


def model_config(settings: Mapping[str, object], source: str) -> ModelConfig:
    """Return the settings as those of a model; `ForeignBundleError` if no model has them."""
    try:
        return ModelConfig.parse(settings, source=source)
    except ConfigError as error:
        raise ForeignBundleError(f'{error} Train the model here instead.') from error
