"""`train --resume-from`: a trained model goes on, with what its bundle says of it."""

import json
import shutil

import numpy as np
import pytest

from ptychodus_torch_plugin import RunConfig, load_bundle
from ptychodus_torch_plugin.bundle.archive import read_bundle, read_manifest


def went_on(call, scan_file, bundle, *arguments):
    return call('train', scan_file, '--resume-from', bundle, '--accelerator', 'cpu', *arguments)


def test_it_starts_where_the_bundle_ends(here, call, scan_file, trained):
    """With its weights, settings, scales and optimiser: the loss falls on, and not from the top."""
    found = went_on(call, scan_file, trained, '--output_dir', 'more', '--json').json
    run, before = RunConfig.load(here / 'more/run.json'), load_bundle(trained)
    assert (run.model, run.training) == (before.config, before.training)
    bundle = str(trained.resolve())
    assert found['resume_from'] == run.resume_from == found['settings']['resume_from'] == bundle

    after = read_bundle(here / 'more')
    assert after.provenance['started_from'] == [before.provenance]
    assert after.normalisation == read_manifest(trained).normalisation
    steps = [
        {float(v) for n, v in moments.items() if n.startswith('step')}
        for moments in (before.optimizer, after.optimizer)
    ]
    assert steps[1] == {2 * step for step in steps[0]}
    first = json.loads((trained / 'history.json').read_text())['epochs']
    then = json.loads((here / 'more/history.json').read_text())['epochs']
    assert then[0]['loss'] < first[0]['loss']


def test_options_and_run_file_change_the_training_but_not_the_model(
    here, call, scan_file, trained, run_file
):
    # The run file is the one of the first training: it names the same model.
    arguments = ['--config', run_file, '--epochs', 1, '--seed', 5, '--sweeps-before', 3]
    went_on(call, scan_file, trained / 'wts.h5.zip', *arguments, '--learning_rate', '1e-4')
    run = RunConfig.load(here / 'training_outputs/run.json')
    assert (run.training.epochs, run.training.seed, run.training.thinnings) == (1, 5, 1)
    assert run.execution.learning_rate == 1e-4
    assert run.model == load_bundle(trained).config


@pytest.mark.parametrize(
    ('arguments', 'asked', 'has'),
    [
        (['--sweeps-before', 7], 'sweeps_before = 7', 'sweeps_before = 3'),
        (['--gridsize', 2], 'gridsize = 2', 'gridsize = 1'),
        (
            ['--architecture', 'cnn', '--probe-modes', 2],
            "architecture = 'cnn', sweeps.probe_modes = 2",
            "architecture = 'unrolled', sweeps.probe_modes = None",
        ),
        (['--config', 'other.yaml'], 'sweeps.batch_size = 4', 'sweeps.batch_size = 16'),
    ],
)
def test_another_model_is_refused(here, fail, scan_file, trained, arguments, asked, has):
    (here / 'other.yaml').write_text('model: {channels: [4, 8], sweeps: {batch_size: 4}}')
    ran = fail('train', scan_file, '--resume-from', trained, *arguments)
    assert ran.last == (
        f'Error: {asked} was asked for, but the model in {trained}, which the training starts '
        f'from, has {has}; expected the same. Leave the settings of the model out, or train a new '
        'model without --resume-from.'
    )
    assert not (here / 'training_outputs').exists()


def test_two_ways_of_going_on_are_one_too_many(here, fail, scan_file, trained):
    ran = fail('train', scan_file, '--resume', '--resume_from', trained)
    assert f'--resume-from starts anew from {trained}; expected one of them' in ran.last


@pytest.mark.parametrize('name', ['missing.zip', 'scan'])
def test_what_is_no_bundle_is_named(here, fail, scan_file, name):
    shutil.copy(scan_file, here / 'scan')
    assert name in fail('train', scan_file, '--resume-from', name).last
    assert not (here / 'training_outputs').exists()


def test_a_network_on_the_canvas_goes_on_with_patterns_of_another_size(
    here, call, trained, write_simulated
):
    write_simulated(here / 'large.h5', N=64, n_positions=9)
    went_on(call, 'large.h5', trained, '--output_dir', here / 'more')
    before, after = load_bundle(trained), load_bundle(here / 'more')
    assert after.config == before.config.model_copy(update={'N': 64})
    assert after.probe.shape[-1] == 64


@pytest.mark.parametrize('arguments', [(), ('--config', 'own.json')], ids=['', 'other run file'])
def test_an_interrupted_one_can_be_resumed(here, call, scan_file, trained, monkeypatch, arguments):
    """Its run.json knows the bundle, wherever one stands by then: scales are the bundle's."""
    bundle = here / 'first' / 'wts.h5.zip'
    bundle.parent.mkdir()
    shutil.copy(trained / 'wts.h5.zip', bundle)
    monkeypatch.chdir(bundle.parent)
    went_on(call, scan_file, bundle.name, '--output_dir', here / 'whole')
    whole = read_bundle(here / 'whole')
    (here / 'elsewhere').mkdir()
    monkeypatch.chdir(here / 'elsewhere')
    settings = json.loads((here / 'whole/run.json').read_text()) | {'resume_from': None}
    (here / 'elsewhere/own.json').write_text(json.dumps(settings))
    call('train', scan_file, '--resume', '--output_dir', here / 'whole', *arguments)
    again = read_bundle(here / 'whole')
    assert again.provenance['started_from'] == whole.provenance['started_from']
    assert again.normalisation == whole.normalisation
    assert again.history == whole.history
    np.testing.assert_array_equal(again.probe, whole.probe)
