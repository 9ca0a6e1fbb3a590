"""Archives of the PyTorch variant: every weight at its place, and what is refused, by name."""

import re
from collections import OrderedDict

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.errors import (
    BundleWeightsError,
    ForeignBundleError,
)
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.foreign.canonical import canonical_shapes
from ptychodus_torch_plugin.foreign.conversion import convert_archive
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

from .lookalikes import PHOTONS, PROBE_SCALE, REBUILD, Call, Storage, pickled
from .torch_lookalikes import (
    torch_file,
    torch_members,
    torch_metadata,
    torch_parameters,
    torch_state,
)

TORCH_FILE = 'diffraction_to_obj/model.pth'
METADATA_FILE = 'torch_scaling_metadata.pt'
RENAMED = (
    ('encoder.blocks.', 'encoder.'),
    ('ChannelGate.mlp.1', 'channel.0'),
    ('ChannelGate.mlp.3', 'channel.1'),
    ('SpatialGate.compress', 'spatial'),
    ('decoder_amp.amp.', 'amplitude.'),
    ('decoder_phase.phase.', 'phase.'),
    ('decoder_amp.blocks.', 'amplitude.decoder.'),
    ('decoder_phase.blocks.', 'phase.decoder.'),
    ('amplitude.conv1', 'amplitude.center'),
    ('amplitude.conv2', 'amplitude.border.out'),
    ('phase.conv1', 'phase.center'),
    ('phase.conv2', 'phase.border.out'),
    ('conv_up_block', 'border'),
)


def expected_weights(state):
    """Return the tensors under canonical names."""
    found = {}
    for name, tensor in state.items():
        if name.startswith('model.autoencoder.'):
            name = name.removeprefix('model.autoencoder.')
            for old, new in RENAMED:
                name = name.replace(old, new)
            found[name] = tensor
    return found


def assert_weights(found, expected):
    assert found.keys() == expected.keys() | {'log_intensity_scale'}
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
        assert found[name].flags.c_contiguous


# What comes out


@pytest.mark.parametrize('era', ['metadata', 'model_spec', 'none'])
@pytest.mark.parametrize(
    ('n_px', 'gridsize', 'scale', 'cbam'),
    [(64, 1, 2, True), (64, 2, 1, False), (128, 2, 1, True), (128, 1, 1, False)],
)
def test_every_weight_finds_its_place(converted, era, n_px, gridsize, scale, cbam):
    state = torch_state(n_px, scale, gridsize**2, cbam=cbam)
    metadata = torch_metadata(n_px, gridsize, scale, cbam_encoder=cbam)
    if era == 'model_spec':
        spec = {'model_config': metadata.pop('model_config'), 'parity_scale_mode': 'off'}
        metadata |= {'model_spec': spec, 'schema_version': 'torch-artifact-v1'}
    parameters = torch_parameters(n_px, gridsize, scale)
    bundle = converted(torch_members(parameters, state, None if era == 'none' else metadata))
    assert_weights(bundle.weights, expected_weights(state))
    expected = ModelConfig(
        architecture='cnn',
        N=n_px,
        gridsize=gridsize,
        n_filters_scale=scale,
        amp_activation='swish',
        cbam_encoder=cbam,
        outer_channels=gridsize**2,
        border_filters=32 * scale if n_px > 64 else None,
        input_scaling='scan',
    )
    assert ModelConfig.parse(bundle.model_settings) == expected
    shapes = {name: weight.shape for name, weight in bundle.weights.items()}
    assert shapes == canonical_shapes(expected)
    assert bundle.backend == 'pytorch'
    assert bundle.provenance['converted_from']['framework'] == 'PyTorch'
    said = 'no torch_scaling_metadata.pt' if era == 'none' else 'settings: torch_scaling_metadata'
    assert sum(line.startswith(said) for line in bundle.provenance['assumed']) == 1


@pytest.mark.parametrize(
    ('changes', 'name', 'value', 'line'),
    [
        ({'amp_activation': 'sigmoid'}, 'amp_activation', 'sigmoid', None),
        ({'amp_activation': 'SiLU'}, 'amp_activation', 'swish', None),
        ({'amp_activation': 'softplus'}, 'amp_activation', 'swish', "'softplus' is SiLU"),
        ({'mode': 'Supervised'}, 'model_type', 'supervised', None),
        ({'probe_mask': True}, 'probe_mask', True, 'a soft disc'),
        ({'eca_encoder': True}, 'cbam_encoder', True, None),
        ({'object_big': False}, 'object_big', True, None),
    ],
)
def test_options_in_the_metadata(converted, changes, name, value, line):
    members = torch_members(torch_parameters(), torch_state(), torch_metadata(**changes))
    bundle = converted(members)
    assert bundle.model_settings[name] == value
    plain = converted(torch_members(torch_parameters(), torch_state(), torch_metadata()))
    more = set(bundle.provenance['assumed']) - set(plain.provenance['assumed'])
    more = [each for each in more if not each.startswith('transmission')]
    assert len(more) == (line is not None)
    assert all(line in each for each in more)


@pytest.mark.parametrize(
    ('key', 'value', 'line'),
    [
        ('pad_object', False, 'pad_object = False means nothing'),
        ('gaussian_smoothing_sigma', 0.5, 'gaussian_smoothing_sigma means nothing'),
    ],
)
def test_what_the_variant_ignores(converted, key, value, line):
    bundle = converted(torch_members(torch_parameters(**{key: value}), torch_state()))
    assert bundle.model_settings[key] == ModelConfig.model_fields[key].default
    assert sum(line in each for each in bundle.provenance['assumed']) == 1


def test_without_a_big_probe_the_weights_of_the_border_are_left_out(converted):
    state = torch_state(channels=4)
    members = torch_members(
        torch_parameters(gridsize=2), state, torch_metadata(64, 2, probe_big=False)
    )
    bundle = converted(members)
    kept = {k: v for k, v in expected_weights(state).items() if '.border.' not in k}
    assert_weights(bundle.weights, kept)
    assert sum('border are left out' in line for line in bundle.provenance['assumed']) == 1


@pytest.mark.parametrize('outer', [1, 4, 8])
def test_how_many_channels_make_the_border_is_seen_in_the_weights(converted, outer):
    """Some releases took a fraction of the channels."""
    state = torch_state(channels=4, outer=outer)
    metadata = torch_metadata(64, 2, use_legacy_decoder_channel_override=True)
    bundle = converted(torch_members(torch_parameters(gridsize=2), state, metadata))
    assert bundle.model_settings['outer_channels'] == outer
    assert_weights(bundle.weights, expected_weights(state))


def test_tensors_may_be_parts_and_in_any_order_of_axes(converted):
    """channels_last, and one stretch of memory for several tensors."""
    state = torch_state()
    name = 'model.autoencoder.encoder.blocks.1.conv2.weight'
    values, twin = state[name], 'model.autoencoder.encoder.blocks.1.conv2.bias'
    state[name] = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    def rebuilt(tensors):
        offset = values.shape[0] * 5
        arguments = list(tensors[name].reduced[1])
        tensors[twin] = Call(REBUILD, arguments[0], offset, (64,), (9,), False, OrderedDict())
        return tensors

    members = torch_members(torch_parameters(), state)
    stored = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).ravel()
    flat = {**state, name: stored}
    del flat[twin]

    def described(tensors):
        storage = tensors[name].reduced[1][0]
        strides = tuple(n // 4 for n in state[name].strides)
        shape = state[name].shape
        tensors[name] = Call(REBUILD, storage, 0, shape, strides, False, OrderedDict())
        return rebuilt(tensors)

    members[TORCH_FILE] = torch_file(described, flat, folder='model')
    found = converted(members).weights
    np.testing.assert_array_equal(found['encoder.1.conv2.weight'], values)
    part = stored[values.shape[0] * 5 :: 9][:64]
    np.testing.assert_array_equal(found['encoder.1.conv2.bias'], part)


# Probe and scale


def test_without_a_scan_a_placeholder_stands_in(converted):
    bundle = converted(torch_members(torch_parameters(), torch_state(), torch_metadata()))
    amplitude = np.abs(bundle.probe)
    assert amplitude.shape == (1, 64, 64)
    assert np.sum(amplitude**2, dtype=float) == pytest.approx(PHOTONS)
    np.testing.assert_allclose(amplitude, amplitude[:, ::-1, ::-1], rtol=1e-5)
    assert sum('a Gaussian beam stands in' in line for line in bundle.provenance['assumed']) == 1


@pytest.mark.parametrize('source', ['metadata', 'flat', 'default'])
def test_with_a_scan_its_probe_is_taken(converted, source):
    """As the reference does: the probe as it is stored, over probe_scale."""
    settings = {'N': 64, 'n_positions': 4, 'probe_modes': 2, 'offset_px': (1.5, -2)}
    scan = simulate_scan(SimulationConfig(**settings))
    metadata = torch_metadata() if source == 'metadata' else None
    told = {'probe_scale': 5.0, 'nphotons': 3e3} if source == 'flat' else {}
    bundle = converted(torch_members(torch_parameters(**told), torch_state(), metadata), scan)
    scale = {'metadata': PROBE_SCALE, 'flat': 5.0, 'default': 4.0}[source]
    photons = told.get('nphotons', PHOTONS)
    energy = np.sum(np.abs(scan.probe) ** 2, dtype=float)
    np.testing.assert_allclose(bundle.probe, scan.probe * np.sqrt(photons / energy), rtol=1e-5)
    expected = np.log(np.sqrt(energy) / scale / 32)
    assert bundle.weights['log_intensity_scale'] == pytest.approx(expected, rel=1e-5)
    assert any(scan.fingerprint() in line for line in bundle.provenance['assumed'])


def test_a_scan_of_another_size(written):
    scan = simulate_scan(SimulationConfig(N=32, n_positions=4))
    path = written(torch_members(torch_parameters(), torch_state()))
    with pytest.raises(ShapeError, match=r'patterns of 32 px, but the model in .* is for N = 64'):
        convert_archive(path, scan)


# What is refused


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('architecture', 'fno'),
        ('architecture', 'ffno'),
        ('cnn_output_mode', 'real_imag'),
        ('mode', 'Other'),
        ('object_layout', 'single_patch'),
        ('use_shared_decoder', True),
        ('batch_norm', True),
        ('cbam_bottleneck', True),
        ('cbam_decoder', True),
        ('eca_decoder', True),
        ('spatial_decoder', True),
        ('physics_forward_mode', 'rectangular_scaled'),
        ('amplitude_physics_gain', 4.0),
        ('intensity_scale_trainable', True),
        ('probe_mask', 'disc'),
        ('probe_mask_tensor', Call(REBUILD, Storage('0', 3), 0, (3,), (1,), False, {})),
        ('scale_contract_version', 'ci_intensity_v2'),
        ('measurement_domain', 'count_intensity'),
        ('N', 128),
    ],
)
def test_options_that_this_package_has_not(refused, option, value):
    data = option in ('scale_contract_version', 'measurement_domain', 'N')
    metadata = torch_metadata(data={option: value}) if data else torch_metadata(**{option: value})
    members = torch_members(torch_parameters(), torch_state(), metadata)
    refused(members, ForeignBundleError, f'has {option} = ')


def test_more_options_that_this_package_has_not(refused):
    state = torch_state(cbam=False)
    metadata = torch_metadata(cbam_encoder=False, eca_encoder=True)
    refused(torch_members(torch_parameters(), state, metadata), ForeignBundleError, 'eca_encoder')
    state = torch_state(channels=4)
    for parameters, metadata, words in (
        ({}, torch_metadata(64, 2, object_big=False), 'object_big = '),
        ({'object.big': False}, None, 'object.big = '),
    ):
        members = torch_members(torch_parameters(gridsize=2, **parameters), state, metadata)
        refused(members, ForeignBundleError, words)
    metadata = torch_metadata()
    metadata['model_spec'] = {'model_config': metadata['model_config'], 'parity_scale_mode': 'tied'}
    members = torch_members(torch_parameters(), torch_state(), metadata)
    refused(members, ForeignBundleError, 'parity_scale_mode')
    metadata['schema_version'] = 'torch-artifact-v9'
    members = torch_members(torch_parameters(), torch_state(), metadata)
    refused(members, ForeignBundleError, "schema_version = 'torch-artifact-v9'")


@pytest.mark.parametrize('name', ['alpha', 'beta', 'rect_scaler.s1', 'rect_scaler.s2'])
def test_scalars_must_be_as_before_training(refused, converted, name):
    state = torch_state()
    key = f'model.forward_model.{name}'
    state[key] = np.array([0.0 if name == 'beta' else 1.0, 0.5], np.float32)
    refused(torch_members(torch_parameters(), state), ForeignBundleError, re.escape(f"'{key}' = "))
    del state[key]
    converted(torch_members(torch_parameters(), state))


def with_weights(change):
    state = torch_state()
    change(state)
    return torch_members(torch_parameters(), state)


PREFIX = 'model.autoencoder.'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            lambda state: state.pop(f'{PREFIX}encoder.blocks.1.conv1.bias'),
            r"'encoder.1.conv1.bias' is missing; expected shape \(64,\)",
        ),
        (
            lambda state: state.pop(
                f'{PREFIX}encoder.blocks.0.attention.SpatialGate.compress.weight'
            ),
            "'encoder.0.attention.spatial.weight' is missing",
        ),
        (
            lambda state: state.update({f'{PREFIX}decoder_amp.attention.weight': np.ones(3, 'f4')}),
            "'model.autoencoder.decoder_amp.attention.weight' is not expected",
        ),
        (
            lambda state: state.update(
                {f'{PREFIX}decoder_phase.phase.conv2.bias': np.ones(4, 'f4')}
            ),
            r"'phase.border.out.bias' has shape \(4,\); expected \(1,\)",
        ),
        (
            lambda state: state[f'{PREFIX}decoder_amp.amp.conv1.bias'].fill(np.inf),
            "'amplitude.center.bias' has 1 of 1 values NaN or infinite",
        ),
    ],
)
def test_all_faults_of_weights_are_told(refused, change, words):
    refused(with_weights(change), BundleWeightsError, words)


def test_absurd_widths(refused):
    state = torch_state()
    state[f'{PREFIX}decoder_amp.amp.conv1.weight'] = np.ones((1, 40, 3, 3), np.float32)
    refused(torch_members(torch_parameters(), state), ForeignBundleError, 'outer_channels = -8')


def test_the_manifest_decides_on_nothing_alone(refused):
    members = torch_members(torch_parameters(), torch_state())
    members['manifest.dill'] = pickled({'models': ['diffraction_to_obj'], 'version': '1.0'})
    refused(members, ForeignBundleError, "version = '1.0'")
