"""`train`: what it takes, and what it writes."""

import json

import pytest

from ptychodus_torch_plugin import RunConfig, load_bundle, read_scan
from ptychodus_torch_plugin.bundle.archive import read_manifest


def test_it_writes_model_settings_history_and_picture(trained, files_below):
    assert files_below(trained) == [
        'checkpoints',
        'checkpoints/best.ckpt',
        'checkpoints/last.ckpt',
        'history.json',
        'logs',
        'logs/version_0',
        'logs/version_0/metrics.csv',
        'run.json',
        'training.png',
        'wts.h5.zip',
    ]
    assert (trained / 'training.png').read_bytes().startswith(b'\x89PNG')
    history = json.loads((trained / 'history.json').read_text())
    assert [record['epoch'] for record in history['epochs']] == [1, 2]
    assert history['best_epoch'] in (1, 2)
    assert history['epochs'][0]['validation_loss'] > 0


def test_the_run_file_has_the_settings_in_force(trained, scan_file):
    run = RunConfig.load(trained / 'run.json')
    assert run.model.N == read_scan(scan_file).n_px == 32
    assert run.model.channels == (4, 8)
    assert run.training.epochs == 2
    assert load_bundle(trained).config == run.model


def test_options_override_the_run_file(here, call, scan_file, other_file, run_file):
    found = call(
        *('train', '--train_data_file', scan_file, '--train-data-file', other_file, '--json'),
        *('--config', run_file, '--nepochs', 1, '--learning-rate', '2e-3', '--seed', 5),
        *('--objective', 'poisson', '--held-out', 0.25, '--probe-modes', 2, '--no-refine-probe'),
        *('--sweeps-before', 2, '--refine', 1, '--no-deterministic', '--precision', '32-true'),
        *('--accelerator', 'cpu', '--threads', 1, '--backend', 'pytorch', '--output-dir', 'out'),
    ).json
    run = RunConfig.load(here / 'out' / 'run.json')
    assert run.backend == 'pytorch'
    assert (run.model.sweeps_before, run.model.sweeps_after) == (2, 1)
    assert run.model.channels == (4, 8)
    assert (run.model.sweeps.probe_modes, run.model.sweeps.refine_probe) == (2, False)
    assert (run.training.epochs, run.execution.learning_rate, run.training.seed) == (1, 2e-3, 5)
    assert (run.training.objective, run.training.held_out_fraction) == ('poisson', 0.25)
    assert (run.execution.deterministic, run.execution.num_threads) == (False, 1)
    assert found['settings'] == run.to_json()
    assert len(found['scans']) == 2
    assert found['epochs'] == found['best_epoch'] == 1
    assert found['backend'] == 'pytorch'
    assert found['files']['model'] == 'out/wts.h5.zip'
    manifest = read_manifest('out/wts.h5.zip')
    assert manifest.shapes('probe.safetensors')['real'] == (2, 32, 32)
    trained_on = [scan['sha256'] for scan in manifest.provenance['scans']]
    assert trained_on == [read_scan(path).fingerprint() for path in (scan_file, other_file)]


def test_nothing_to_train_gives_a_bundle_with_settings_only(here, call, scan_file, files_below):
    ran = call('train', scan_file, '--architecture', 'none', '--sweeps-before', 4)
    assert 'has nothing to train' in ran.err
    manifest = read_manifest('training_outputs')
    assert manifest.shapes('weights.safetensors') == {}
    assert manifest.model_settings['sweeps_before'] == 4
    assert json.loads((here / 'training_outputs/history.json').read_text())['epochs'] == []
    names = ['history.json', 'run.json', 'wts.h5.zip']
    assert files_below(here / 'training_outputs') == names


def test_progress_names_epoch_loss_speed_and_time_left(here, call, scan_file, run_file):
    err = call('train', scan_file, '--config', run_file).err
    [first] = [line for line in err.splitlines() if line.startswith('Training: epoch 1/2')]
    for part in ('loss ', ' patterns/s', ' left', ' %'):
        assert part in first


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--epochs', 0], 'training.epochs = 0'),
        (['--held-out', 0.9], 'held_out_fraction = 0.9'),
        (['--backend', 'jax'], "backend = 'jax' is not known; expected one of"),
        (['--config', 'missing.yaml'], 'missing.yaml does not exist'),
        (['--config', 'wrong.yaml'], 'model.chanels is not a known setting'),
        (['--config', 'broken.json'], 'broken.json is not valid JSON'),
        (['--config', 'other_size.yaml'], 'patterns are 32 x 32 px, but the model is for N = 64'),
        (['--accelerator', 'mps'], "accelerator = 'mps'"),
        (['--resume'], 'training_outputs/checkpoints holds nothing'),
    ],
)
def test_wrong_settings_fail_before_anything_is_written(
    here, fail, scan_file, files_below, arguments, expected
):
    (here / 'wrong.yaml').write_text('model: {chanels: [4]}')
    (here / 'broken.json').write_text('{')
    (here / 'training_outputs').mkdir()
    (here / 'other_size.yaml').write_text('model: {N: 64}')
    before = files_below(here)
    assert expected in fail('train', scan_file, *arguments).last
    assert files_below(here) == before


def test_two_sizes_of_pattern_are_refused(here, fail, scan_file, write_simulated):
    write_simulated(here / 'large.h5', N=64, n_positions=9)
    ran = fail('train', scan_file, 'large.h5')
    assert 'large.h5 has patterns of 64 px' in ran.last
    assert '--crop' in ran.last


def test_one_diffraction_file_is_not_for_many_scans(here, fail, scan_file):
    ran = fail('train', scan_file, scan_file, '--diffraction', 'd.h5')
    assert 'd.h5 belongs to one scan, but 2 were given' in ran.last
