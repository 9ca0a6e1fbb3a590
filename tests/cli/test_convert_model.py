"""`convert` and `inspect` of models that PtychoPINN trained."""

import pickle  # noqa: TID251 - to make what must never be loaded

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.archive import read_bundle
from ptychodus_torch_plugin.foreign.conversion import convert_archive
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from tests.foreign.lookalikes import (
    KerasGraph,
    keras_members,
    keras_parameters,
    keras_weights,
    zipped,
)
from tests.foreign.torch_lookalikes import (
    torch_members,
    torch_metadata,
    torch_parameters,
    torch_state,
)


@pytest.fixture
def of_keras(here):
    path = here / 'keras.zip'
    members = keras_members(keras_parameters(), KerasGraph(64), keras_weights())
    path.write_bytes(zipped(members))
    return path.name


@pytest.fixture
def of_torch(here):
    path = here / 'old' / 'wts.h5.zip'
    path.parent.mkdir()
    members = torch_members(torch_parameters(), torch_state(), torch_metadata())
    path.write_bytes(zipped(members))
    return path.relative_to(here)


def test_an_archive_becomes_a_bundle(here, call, of_keras):
    out = call('convert', of_keras, 'new/wts.h5.zip').out
    assert read_bundle('new').weights.keys() == convert_archive(of_keras).weights.keys()
    for words in ('framework TensorFlow', 'N = 64', 'input_scaling = scan', 'new/wts.h5.zip'):
        assert words in out
    assert out.count('intensity_scale: not used') == 1


@pytest.mark.parametrize('source', ['old', 'old/wts.h5.zip'])
def test_as_json(here, call, of_torch, source):
    found = call('convert', source, 'model.zip', '--json').json
    bundle = read_bundle('model.zip')
    assert found['file'] == 'model.zip'
    assert found['model']['cbam_encoder'] is True
    assert found['weights']['tensors'] == len(bundle.weights) == 60
    assert found['weights']['numbers'] == 586_794 - 4 + 1
    assert {name: found[name] for name in bundle.provenance} == bundle.provenance


def test_the_probe_of_a_scan(here, call, of_torch, write_simulated):
    settings = {'N': 64, 'n_positions': 4, 'seed': 8}
    write_simulated('scan.h5', **settings)
    call('convert', of_torch, 'model.zip', '--scan', 'scan.h5')
    probe, taken = simulate_scan(SimulationConfig(**settings)).probe, read_bundle('model.zip').probe
    np.testing.assert_allclose(taken / taken[0, 32, 32], probe / probe[0, 32, 32], rtol=1e-4)


def test_options_for_the_scan_reach_its_reader(here, call, of_torch, write_simulated):
    write_simulated('large.h5', N=80, n_positions=4)
    call('convert', of_torch, 'model.zip', '--scan', 'large.h5', '--crop', 64)
    assert read_bundle('model.zip').probe.shape == (1, 64, 64)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('old', 'model.h5'), "model.h5 ends in '.h5'; expected a name that ends in .zip"),
        (('old', 'old/wts.h5.zip'), 'is a model of PtychoPINN itself, which would be lost'),
        (('old', 'm.zip', '--crop', 32), 'options for reading a scan were given (crop_px)'),
        (('old', 'm.zip', '--scan', 'scan.h5'), 'the model in old/wts.h5.zip is for N = 64'),
        (('scan.h5', 'out.h5', '--scan', 'scan.h5'), '--scan scan.h5 goes with a model archive'),
        (('keras.zip', 'm.zip', '--scan', 'scan.h5'), 'has a probe of its own'),
    ],
)
def test_what_makes_no_sense(
    here, fail, files_below, of_torch, of_keras, write_simulated, arguments, words
):
    write_simulated('scan.h5', n_positions=4)
    before = files_below(here), (here / of_torch).read_bytes()
    assert words in fail('convert', *arguments).last
    assert (files_below(here), (here / of_torch).read_bytes()) == before


def test_what_cannot_be_represented_is_named_and_leaves_nothing(here, fail, files_below):
    metadata = torch_metadata(use_shared_decoder=True)
    members = torch_members(torch_parameters(), torch_state(), metadata)
    (here / 'a.zip').write_bytes(zipped(members))
    assert "has use_shared_decoder = 'True'" in fail('convert', 'a.zip', 'new/b.zip').last
    assert files_below(here) == ['a.zip']


@pytest.mark.parametrize(
    ('kind', 'framework'), [('of_keras', 'TensorFlow'), ('of_torch', 'PyTorch')]
)
def test_inspect_says_what_an_archive_is(here, call, request, kind, framework):
    path = request.getfixturevalue(kind)
    found = call('inspect', path, '--json').json
    assert found['kind'] == 'ptychopinn-model'
    assert found['converted_from']['framework'] == framework
    assert found['model']['N'] == 64
    assert framework in call('inspect', path).out


def test_inspect_names_what_is_wrong(here, fail):
    members = {'manifest.dill': pickle.dumps({'models': [], 'version': '9'}), 'x/model.pth': b''}
    (here / 'a.zip').write_bytes(zipped(members))
    assert 'expected an archive of PtychoPINN' in fail('inspect', 'a.zip').last


def test_a_model_that_is_not_converted_is_refused_with_the_command(here, fail, of_torch):
    arguments = ('infer', '--model_path', of_torch, '--test_data', 'x.h5', '--output_dir', 'o')
    assert 'ptychodus-torch-plugin convert ARCHIVE BUNDLE' in fail(*arguments).last
