"""Archives of the TensorFlow variant: every weight at its place, the scale, and what is refused."""

import hashlib
import math
import re

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.archive import read_bundle, write_bundle
from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    BundleWeightsError,
    CorruptBundleError,
    ForeignBundleError,
)
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.foreign.canonical import canonical_shapes
from ptychodus_torch_plugin.foreign.conversion import convert_archive
from ptychodus_torch_plugin.physics import shape_exit_waves
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

from .lookalikes import (
    PHOTONS,
    PROBE_SCALE,
    KerasGraph,
    keras_members,
    keras_parameters,
    keras_weights,
    pickled,
    probe_of,
    small_keras_members,
)


def assert_weights(found, expected):
    """Every kernel is the transposed one of that place, bit by bit."""
    for name, (kernel, bias) in expected.items():
        np.testing.assert_array_equal(found[f'{name}.weight'], kernel.transpose(3, 2, 0, 1))
        np.testing.assert_array_equal(found[f'{name}.bias'], bias)
    assert len(found) == 2 * len(expected) + 1


# What comes out


@pytest.mark.parametrize('first', [0, 22, 95])
@pytest.mark.parametrize(('n_px', 'gridsize', 'scale'), [(64, 1, 2), (64, 2, 1), (128, 2, 1)])
def test_every_weight_finds_its_place(converted, n_px, gridsize, scale, first):
    weights = keras_weights(n_px, scale, gridsize**2)
    parameters = keras_parameters(n_px, gridsize, scale)
    bundle = converted(keras_members(parameters, KerasGraph(n_px, first=first), weights))
    assert_weights(bundle.weights, weights)
    config = ModelConfig.parse(bundle.model_settings)
    expected = ModelConfig(
        architecture='cnn',
        N=n_px,
        gridsize=gridsize,
        n_filters_scale=scale,
        input_scaling='scan',
    )
    assert config == expected
    shapes = {name: weight.shape for name, weight in bundle.weights.items()}
    assert shapes == canonical_shapes(expected)


OPTIONS = {
    'one patch': ({'object.big': False}, {'patches': 1}, {'object_big': False}),
    'no border': ({'probe.big': False}, {'big': False}, {'probe_big': False}),
    'all in one': ({'pad_object': False}, {'padded': False}, {'pad_object': False}),
    'all in one, the whole patch': (
        {'pad_object': False, 'probe.big': False},
        {'padded': False, 'big': False},
        {'pad_object': False},
    ),
    'softplus': ({'amp_activation': 'softplus'}, {}, {'amp_activation': 'softplus'}),
    'physics': (
        {'probe.mask': True, 'gaussian_smoothing_sigma': 0.5, 'model_type': 'supervised'},
        {},
        {'probe_mask': True, 'gaussian_smoothing_sigma': 0.5, 'model_type': 'supervised'},
    ),
    'padding by default': ({'pad_object': None}, {}, {}),
}


@pytest.mark.parametrize(('said', 'shape', 'expected'), OPTIONS.values(), ids=OPTIONS)
def test_options(converted, said, shape, expected):
    weights = keras_weights(64, 1, 4, **shape)
    options = {name: value for name, value in shape.items() if name != 'patches'}
    graph = KerasGraph(64, activation=said.get('amp_activation', 'sigmoid'), **options)
    bundle = converted(keras_members(keras_parameters(gridsize=2, **said), graph, weights))
    assert_weights(bundle.weights, weights)
    found = {name: bundle.model_settings[name] for name in expected}
    assert found == expected
    untouched = ModelConfig(architecture='cnn', gridsize=2, n_filters_scale=1).to_json()
    others = untouched.keys() - expected.keys() - {'input_scaling'}
    assert {name: bundle.model_settings[name] for name in others} == {
        name: untouched[name] for name in others
    }


def test_layers_may_have_any_names(converted):
    """The graph decides, not the numbers that the names end in."""
    graph = KerasGraph(64)
    swapped = {graph.names['amplitude.center']: 'x', graph.names['phase.center']: 'conv2d_9'}
    text = repr(graph.entries)
    for old, new in swapped.items():
        text = text.replace(f"'{old}'", f"'{new}'")
    graph.entries = eval(text)
    weights = keras_weights()
    assert_weights(converted(small_keras_members(graph=graph, weights=weights)).weights, weights)


def test_the_same_archive_makes_the_same_file(written, tmp_path):
    source = written(small_keras_members())
    for name in ('a.zip', 'b.zip'):
        write_bundle(tmp_path / name, convert_archive(source))
    assert (tmp_path / 'a.zip').read_bytes() == (tmp_path / 'b.zip').read_bytes()
    bundle = read_bundle(tmp_path / 'a.zip')
    assert bundle.backend == 'tensorflow'
    assert bundle.training_settings is None
    assert bundle.history == []
    said = bundle.provenance['converted_from']
    assert said == {
        'program': 'PtychoPINN',
        'framework': 'TensorFlow',
        'version': '1.0',
        'sha256': hashlib.sha256(source.read_bytes()).hexdigest(),
    }


def test_a_folder_is_read_through_its_file(written):
    source = written(small_keras_members())
    assert convert_archive(source.parent).provenance == convert_archive(source).provenance


# Probe and scale


@pytest.mark.parametrize('shape', [(64, 64, 1), (64, 64), (1, 64, 64, 1)])
@pytest.mark.parametrize('factor', [1, 250])
@pytest.mark.parametrize(
    'physics', [{}, {'probe.mask': True}, {'gaussian_smoothing_sigma': 0.8, 'probe.mask': True}]
)
def test_the_scale_is_that_of_the_reference(converted, shape, factor, physics):
    """The reference predicts sqrt(n) / (N / 2) |F(P_ref o)|; here |F(P s o)| must be the same.

    Whatever the scale on which it stores the probe, it takes its mean amplitude inside the disc of
    diameter N / 2 for 1 / probe_scale.
    """
    stored = factor * probe_of(64)
    bundle = converted(small_keras_members({'probe': stored.reshape(shape), **physics}))
    y, x = np.indices((64, 64)) - 31.5
    inside = np.hypot(y, x) < 16
    reference = stored / (PROBE_SCALE * np.mean(np.abs(stored) * inside))
    probe = bundle.probe[0].astype(complex)
    assert bundle.probe.shape == (1, 64, 64)
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(PHOTONS)
    np.testing.assert_allclose(probe / probe[40, 30], reference / reference[40, 30], atol=1e-5)
    # The probe with which the network is trained further has more energy: what the filter and the
    # mask leave of it is n.
    sigma, masked = physics.get('gaussian_smoothing_sigma', 0), physics.get('probe.mask', False)
    left = np.sum(np.abs(shape_exit_waves(probe, sigma, masked=masked)) ** 2)
    probe *= np.sqrt(PHOTONS / left)
    transmission = math.exp(bundle.weights['log_intensity_scale'])
    expected = np.sqrt(PHOTONS) / 32 * reference
    error = np.abs(transmission * probe - expected).max()
    assert error < 1e-6 * np.abs(expected).max()


def test_normalisation(converted):
    bundle = converted(small_keras_members())
    assert bundle.normalisation.mean_counts == PHOTONS
    assert bundle.normalisation.input_scale == pytest.approx(math.sqrt(PHOTONS) / 32)


def test_what_was_assumed_is_said(converted):
    lines = converted(small_keras_members()).provenance['assumed']
    for words in ('probe: that of the archive', 'intensity_scale: not used', 'input_scaling'):
        assert sum(words in line for line in lines) == 1
    ignored = 'probe.big = False means nothing'
    assert not any(ignored in line for line in lines)
    shape = {'padded': False, 'big': False}
    parameters = {'pad_object': False, 'probe.big': False}
    members = small_keras_members(parameters, KerasGraph(64, **shape), keras_weights(**shape))
    assert any(ignored in line for line in converted(members).provenance['assumed'])


def test_an_archive_without_probe_gets_a_placeholder(converted):
    bundle = converted(small_keras_members({'probe': None}))
    amplitude = np.abs(bundle.probe[0])
    np.testing.assert_allclose(amplitude, amplitude[::-1, ::-1], rtol=1e-5)
    assert any('a Gaussian beam stands in' in line for line in bundle.provenance['assumed'])


def test_a_scan_is_not_wanted_where_there_is_a_probe(written):
    scan = simulate_scan(SimulationConfig(N=64, n_positions=4))
    with pytest.raises(ConfigError, match=r'has a probe of its own, but the scan .* was given'):
        convert_archive(written(small_keras_members()), scan)


# What is refused


@pytest.mark.parametrize(
    ('key', 'value', 'error'),
    [
        ('N', 96, ForeignBundleError),
        ('N', 'big', ForeignBundleError),
        ('N', None, BundleContentError),
        ('gridsize', 9, ForeignBundleError),
        ('gridsize', None, BundleContentError),
        ('architecture', 'fno', ForeignBundleError),
        ('model_type', 'other', ForeignBundleError),
        ('amp_activation', 'tanh', ForeignBundleError),
        ('n_filters_scale', 0.5, BundleContentError),
        ('object.big', 'yes', BundleContentError),
        ('gaussian_smoothing_sigma', 11.0, ForeignBundleError),
        ('nphotons', 0, ForeignBundleError),
        ('nphotons', 1e300, ForeignBundleError),
        ('probe_scale', -1.0, ForeignBundleError),
        ('probe', np.ones((64, 64, 2)), ForeignBundleError),
        ('probe', np.zeros((64, 64, 1)), ForeignBundleError),
        ('probe', np.full((64, 64), np.nan), ForeignBundleError),
        ('probe', [1, 2], BundleContentError),
    ],
)
def test_refused_parameters(refused, key, value, error):
    refused(small_keras_members({key: value}), error, rf'\b{re.escape(key)}\b')


@pytest.mark.parametrize('words', ['N = 128', 'gridsize = 2', 'n_filters_scale = 3'])
def test_parameters_of_another_network(refused, words):
    key, value = words.split(' = ')
    error = ForeignBundleError if key == 'N' else BundleWeightsError
    refused(small_keras_members({key: int(value)}), error, 'the network')


@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        ({'probe.big': False}, r'with .conv2d_34. and 5 more beyond these'),
        ({'pad_object': False}, 'convolutions or more between the input and amp'),
        ({'amp_activation': 'relu'}, "amplitudes by 'sigmoid', but its parameters say .* 'relu'"),
    ],
)
def test_parameters_that_contradict_the_graph(refused, parameters, words):
    refused(small_keras_members(parameters), ForeignBundleError, words)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('strides', [2, 2]),
        ('padding', 'valid'),
        ('dilation_rate', [2, 1]),
        ('use_bias', False),
        ('use_bias', 1),
        ('groups', 2),
        ('activation', 'tanh'),
        ('activation', {'class_name': 'Other'}),
        ('data_format', 'channels_first'),
    ],
)
def test_layers_of_another_kind(refused, key, value):
    graph = KerasGraph(64)
    name = graph.names['phase.decoder.1.conv2']
    (entry,) = [each for each in graph.entries if each['name'] == name]
    entry['config'][key] = value
    words = f"layer '{name}' with {key} = .* for phase.decoder.1.conv2"
    refused(small_keras_members(graph=graph), ForeignBundleError, words)


def without(graph, name):
    graph.entries = [each for each in graph.entries if each['name'] != name]


def skip(graph, name, source):
    """Let a layer take its values from another one."""
    (entry,) = [each for each in graph.entries if each['name'] == name]
    entry['inbound_nodes'] = graph.entries[-1]['inbound_nodes'][:0]
    entry['inbound_nodes'].append({'args': [tensor(each) for each in source], 'kwargs': {}})


def tensor(name):
    return {'class_name': '__keras_tensor__', 'config': {'keras_history': [name, 0, 0]}}


GRAPHS = {
    'no amplitude': (lambda graph: without(graph, 'amp'), 'without the layer amp'),
    'shorter': (
        lambda graph: skip(graph, graph.names['encoder.1.conv2'], ['max_pooling2d_0']),
        'with 10 convolutions or more',
    ),
    'a loop': (
        lambda graph: skip(graph, graph.names['encoder.0.conv1'], [graph.names['encoder.1.conv1']]),
        'with 12 convolutions or more',
    ),
    'skip connection': (
        lambda graph: skip(
            graph, 'max_pooling2d_2', [graph.names[f'encoder.{n}.conv2'] for n in (1, 2)]
        ),
        'from several convolutions at once',
    ),
    'heads exchanged': (
        lambda graph: (skip(graph, 'amp', ['phi']), skip(graph, 'phi', ['amp'])),
        'with 0 convolutions or more',
    ),
    'one decoder': (
        lambda graph: skip(graph, 'phi', [graph.names['amplitude.center']]),
        'more beyond these',
    ),
}


@pytest.mark.parametrize(('change', 'words'), GRAPHS.values(), ids=GRAPHS)
def test_other_graphs(refused, change, words):
    graph = KerasGraph(64)
    change(graph)
    refused(small_keras_members(graph=graph), ForeignBundleError, words)


@pytest.mark.parametrize(
    ('data', 'error', 'words'),
    [
        (b'[]', BundleContentError, 'does not describe layers'),
        (b'{"config": {"layers": [{}]}}', BundleContentError, 'does not describe layers'),
        (b'{"config": {"layers": 3}}', BundleContentError, 'does not describe layers'),
        (b'{', CorruptBundleError, 'config.json .* JSON'),
        (b'{"config": ' + b'[' * 40 + b']' * 40 + b'}', BundleLimitError, 'nested'),
        (b' ' * (2**20 + 1), BundleLimitError, 'config.json .* at most 1048576'),
    ],
)
def test_descriptions_that_are_none(refused, data, error, words):
    refused(small_keras_members(**{'config.json': data}), error, words)


def test_two_layers_of_one_name_or_too_many(refused):
    graph = KerasGraph(64)
    graph.entries.append(graph.entries[0])
    refused(small_keras_members(graph=graph), BundleContentError, 'two layers of one name')
    for number in range(600):
        graph.add('InputLayer', f'more_{number}')
    refused(small_keras_members(graph=graph), BundleLimitError, '645 layers; expected at most 512')


def test_manifests(refused):
    for manifest, words in (
        ({'models': ['diffraction_to_obj'], 'version': '1.1'}, "version = '1.1'"),
        ({'models': ['diffraction_to_obj'], 'version': '2.0-pytorch'}, 'version = '),
        ({'models': ['autoencoder'], 'version': '1.0'}, 'does not name the model'),
        ({'models': 'diffraction_to_obj', 'version': '1.0'}, 'does not name the model'),
        (
            {'models': ['diffraction_to_obj'], 'version': '1.0', 'backend': 'pytorch'},
            "backend = 'pytorch'",
        ),
    ):
        members = small_keras_members() | {'manifest.dill': pickled(manifest)}
        refused(members, ForeignBundleError, words)
