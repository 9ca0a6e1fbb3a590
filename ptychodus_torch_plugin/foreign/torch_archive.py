"""The PyTorch variant: weights from model.pth, settings from its metadata and params.dill."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.bundle.errors import ForeignBundleError, quoted
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.foreign.archive import Archive
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
from ptychodus_torch_plugin.foreign.torch_file import read_tensors, read_values

TORCH_FILE = f'{MODEL}/model.pth'
PARAMETERS_FILE = f'{MODEL}/params.dill'
METADATA_FILE = 'torch_scaling_metadata.pt'

SCHEMAS = ('ci-entrypoints-v1', 'torch-artifact-v1', 'torch-artifact-v2')
"""Versions of the metadata whose sections are known."""

SCALARS = {
    'model.forward_model.alpha': 1,
    'model.forward_model.beta': 0,
    'model.forward_model.rect_scaler.s1': 1,
    'model.forward_model.rect_scaler.s2': 1,
}
"""Parameters that no prediction of this network uses, and what they are before training."""

_ONLY: dict[str, tuple[object, ...]] = {
    'architecture': ('cnn',),
    'cnn_output_mode': ('amp_phase',),
    'mode': ('Unsupervised', 'Supervised'),
    'object_layout': ('grouped_patches',),
    'use_shared_decoder': (False,),
    'batch_norm': (False,),
    'cbam_bottleneck': (False,),
    'cbam_decoder': (False,),
    'eca_decoder': (False,),
    'spatial_decoder': (False,),
    'physics_forward_mode': ('amplitude',),
    'amplitude_physics_gain': (1.0, 1),
    'intensity_scale_trainable': (False,),
    'probe_mask': (False, True),
    'probe_mask_tensor': (),
}
"""Settings of the network, and the values of those that this package has."""

_NAMES = tuple(
    (re.compile(r'model\.autoencoder\.' + pattern), name)
    for pattern, name in (
        (r'encoder\.blocks\.(\d+)\.(conv[12])', r'encoder.\1.\2'),
        (
            r'encoder\.blocks\.(\d+)\.attention\.ChannelGate\.mlp\.1',
            r'encoder.\1.attention.channel.0',
        ),
        (
            r'encoder\.blocks\.(\d+)\.attention\.ChannelGate\.mlp\.3',
            r'encoder.\1.attention.channel.1',
        ),
        (
            r'encoder\.blocks\.(\d+)\.attention\.SpatialGate\.compress',
            r'encoder.\1.attention.spatial',
        ),
        *(
            pair
            for short, part in (('amp', 'amplitude'), ('phase', 'phase'))
            for pair in (
                (rf'decoder_{short}\.blocks\.(\d+)\.(conv[12])', rf'{part}.decoder.\1.\2'),
                (rf'decoder_{short}\.{short}\.conv1', f'{part}.center'),
                (rf'decoder_{short}\.{short}\.conv_up_block\.(conv[12])', rf'{part}.border.\1'),
                (rf'decoder_{short}\.{short}\.conv2', f'{part}.border.out'),
            )
        ),
    )
)


@dataclass(frozen=True)
class _Settings:
    """What the flat dictionary says, and what the metadata do of the network and of the data."""

    flat: Parameters
    network: Parameters
    data: Parameters
    with_metadata: bool


def read_torch_archive(archive: Archive, version: str) -> ForeignModel:
    """Return the model in an archive of the PyTorch variant.

    Raises
    ------
    BundleError
        A subclass per defect; `ForeignBundleError` names what this package has no model for.
    """
    settings = _settings(archive)
    source = archive.source_of(TORCH_FILE)
    state = read_tensors(archive.read(TORCH_FILE, at_most=WEIGHTS_BYTES), source=source)
    weights = {_canonical(name): tensor for name, tensor in state.items() if name not in SCALARS}
    _check_scalars(state, source)
    config = _config(settings, weights)
    if not config.probe_big:
        weights = {name: each for name, each in weights.items() if '.border.' not in name}
    return ForeignModel(
        framework='PyTorch',
        version=version,
        config=config,
        weights=weights,
        photons=positive(settings.data, 'nphotons', positive(settings.flat, 'nphotons', PHOTONS)),
        probe_scale=positive(
            settings.data, 'probe_scale', positive(settings.flat, 'probe_scale', PROBE_SCALE)
        ),
        probe=None,
        notes=_notes(settings, config),
    )


def _settings(archive: Archive) -> _Settings:
    flat = read_parameters(
        archive.read(PARAMETERS_FILE, at_most=PARAMETERS_BYTES),
        source=archive.source_of(PARAMETERS_FILE),
    )
    source = archive.source_of(METADATA_FILE)
    if METADATA_FILE not in archive.names:
        nothing = Parameters({}, source)
        return _Settings(flat, nothing, nothing, with_metadata=False)
    data = archive.read(METADATA_FILE, at_most=METADATA_BYTES)
    metadata = Parameters(read_values(data, source=source), source)
    metadata.require('schema_version', *SCHEMAS)
    network = metadata
    if 'model_spec' in metadata:
        network = metadata.section('model_spec')
        network.require('parity_scale_mode', 'off')
    return _Settings(
        flat, network.section('model_config'), metadata.section('data_config'), with_metadata=True
    )


def _config(settings: _Settings, weights: Mapping[str, FloatArray]) -> ModelConfig:
    flat, network = settings.flat, settings.network
    found = common_settings(flat)
    _check_options(settings)
    scale = network.integer('n_filters_scale', flat.integer('n_filters_scale', 2))
    stored = any('.attention.channel.' in name for name in weights)
    with_cbam = network.flag('cbam_encoder', default=stored)
    if not with_cbam:
        network.require('eca_encoder', False)
    found |= {
        'n_filters_scale': scale,
        'amp_activation': 'sigmoid' if _activation(settings) == 'sigmoid' else 'swish',
        'probe_big': network.flag('probe_big', default=flat.flag('probe.big', default=True)),
        'probe_mask': network.flag('probe_mask', default=flat.flag('probe.mask', default=False)),
        'cbam_encoder': with_cbam,
    }
    if 'mode' in network:
        found['model_type'] = 'pinn' if network.text('mode') == 'Unsupervised' else 'supervised'
    return model_config(found | _widths(weights, scale, flat.integer('N')), flat.source)


def _check_options(settings: _Settings) -> None:
    """Raise `ForeignBundleError` for an option that no model of this package has."""
    flat, network, data = settings.flat, settings.network, settings.data
    for key, allowed in _ONLY.items():
        network.require(key, *allowed)
    data.require('scale_contract_version', 'legacy_v1')
    data.require('measurement_domain', 'normalized_amplitude')
    data.require('N', flat.integer('N'))
    for each, key in ((network, 'object_big'), (flat, 'object.big')):
        # One patch for many patterns would be made of one pattern there.
        each.require(key, True, *([] if flat.integer('gridsize') > 1 else [False]))


def _widths(weights: Mapping[str, FloatArray], scale: int, n_px: int) -> dict[str, object]:
    """Return how wide the border is: that has changed between releases; the weights know it."""
    center, border = (
        weights.get(f'amplitude.{name}.weight', np.empty(0)).shape
        for name in ('center', 'border.conv1')
    )
    found: dict[str, object] = {}
    if len(center) == 4:
        found['outer_channels'] = 32 * scale - center[1]
    if len(border) == 4 and border[0] != scale * 2048 // n_px:
        found['border_filters'] = border[0]
    return found


def _activation(settings: _Settings) -> str:
    return settings.network.text('amp_activation', settings.flat.text('amp_activation', 'silu'))


def _notes(settings: _Settings, config: ModelConfig) -> tuple[str, ...]:
    flat, activation = settings.flat, _activation(settings)
    notes = {
        f'settings: {METADATA_FILE}': settings.with_metadata,
        f'no {METADATA_FILE}: settings from params.dill and from the shapes of the weights': (
            not settings.with_metadata
        ),
        f'amp_activation = {quoted(activation)} is SiLU in the PyTorch variant: taken as swish': (
            activation not in ('sigmoid', 'swish', 'silu', 'SiLU')
        ),
        'pad_object = False means nothing in the PyTorch variant: taken as True': (
            not flat.flag('pad_object', default=True)
        ),
        'gaussian_smoothing_sigma means nothing in the PyTorch variant: taken as 0': (
            flat.number('gaussian_smoothing_sigma', 0) > 0
        ),
        'probe_mask: a soft disc on the probe there, a hard one on the exit wave here': (
            config.probe_mask
        ),
        'probe_big = False: the weights of the border are left out, for nothing used them': (
            not config.probe_big
        ),
    }
    return (f'weights: {TORCH_FILE}', *(note for note, applies in notes.items() if applies))


def _canonical(name: str) -> str:
    """Return the canonical name of a tensor, or its own where it has none."""
    stem, _, kind = name.rpartition('.')
    for pattern, canonical in _NAMES:
        match = pattern.fullmatch(stem)
        if match:
            return f'{match.expand(canonical)}.{kind}'
    return name


def _check_scalars(state: Mapping[str, FloatArray], source: str) -> None:
    for name, expected in SCALARS.items():
        values = state.get(name)
        if values is not None and not np.all(values == expected):
            raise ForeignBundleError(
                f'{source} has {quoted(name)} = {quoted(values.ravel()[:4].tolist())}; expected '
                f'{expected}, for no model of this package has such a factor. Train the model here '
                'instead.'
            )
