"""`demo`, made small: simulated and with a user's scan."""

import json
from pathlib import Path

import numpy as np
import pytest

from ptychodus_torch_plugin import load_bundle, read_scan
from ptychodus_torch_plugin.bundle.archive import read_bundle
from ptychodus_torch_plugin.cli import demo
from ptychodus_torch_plugin.config import RunConfig
from ptychodus_torch_plugin.files.product import read_product
from ptychodus_torch_plugin.training_plan import held_out_indices

FILES = [
    'history.json',
    'metrics.json',
    'model',
    'model/wts.h5.zip',
    'object.h5',
    'object.npz',
    'object.png',
    'scan.h5',
    'stages.png',
    'training.png',
]
QUICK = ('--epochs', 1, '--sweeps-before', 3, '--refine', 1, '--accelerator', 'cpu')


@pytest.fixture(scope='module')
def simulated(tmp_path_factory, call):
    """The folder and the result of a demonstration of two training scans."""
    folder = tmp_path_factory.mktemp('demo') / 'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, 'TRAINING_SCANS', 2)
        patch.setattr(demo, 'TRAINING_POSITIONS', 25)
        patch.setattr(demo, 'TEST_POSITIONS', 36)
        ran = call('demo', '--output_dir', folder, '--backend', 'pytorch', *QUICK)
    return folder, ran


def test_it_writes_what_it_promises(simulated, files_below):
    folder, ran = simulated
    assert files_below(folder) == FILES
    for name in FILES:
        if Path(name).suffix and 'history' not in name:
            assert str(folder / name) in ran.out


def test_the_test_scan_is_of_other_photographs(simulated):
    folder, _ = simulated
    scan = read_scan(folder / 'scan.h5')
    assert 'natural-test' in scan.name
    assert scan.n_patterns == 36
    assert scan.mean_counts() == pytest.approx(1e5, rel=0.01)
    trained_on = read_bundle(folder / 'model').provenance['scans']
    assert len(trained_on) == 2
    assert scan.fingerprint() not in [known['sha256'] for known in trained_on]
    assert all('natural-seed' in known['name'] for known in trained_on)


def test_each_stage_is_measured_against_the_truth(simulated):
    folder, ran = simulated
    metrics = json.loads((folder / 'metrics.json').read_text())
    assert list(metrics['stages']) == ['3 sweeps', '3 sweeps + network', metrics['stage']]
    for stage, figures in metrics['stages'].items():
        assert 0 < figures['r_fitted'] < figures['r_held_out'] < 1
        phase = figures['object']['phase_psnr_dB']
        [row] = [line for line in ran.out.splitlines() if line.strip().startswith(f'{stage}  ')]
        assert f' {phase:.1f} ' in row
    assert metrics['training']['epochs'] == 1
    assert metrics['training']['seconds'] > 0
    assert "The object in the files is the one after '3 sweeps + network + 1 sweep'" in ran.out
    assert 'against the true object' in ran.out


def test_the_object_in_product_and_scan_evaluate_alike(simulated, call):
    folder, _ = simulated
    metrics = json.loads((folder / 'metrics.json').read_text())
    found = call('evaluate', folder / 'object.h5', '--truth', folder / 'scan.h5', '--json').json
    told = metrics['stages'][metrics['stage']]['object']
    assert found['phase_psnr_dB'] == pytest.approx(told['phase_psnr_dB'], rel=1e-3)


def test_the_model_loads_and_shows_a_preview(simulated):
    folder, _ = simulated
    assert read_bundle(folder / 'model').preview_png.startswith(b'\x89PNG')
    assert load_bundle(folder / 'model').config.sweeps_after == 1


def test_own_data_hold_the_same_patterns_out_of_training_and_of_r(
    here, call, scan_file, monkeypatch
):
    """Whatever the seed: so R on held-out patterns is honest."""
    from ptychodus_torch_plugin import api

    seen = {}

    def spy(name):
        real = getattr(api, name)

        def call_through(*arguments, **options):
            result = real(*arguments, **options)
            seen[name] = (arguments, result)
            return result

        monkeypatch.setattr(api, name, call_through)

    spy('train')
    spy('reconstruct')
    found = call('demo', '--data', scan_file, '--seed', 5, *QUICK, '--json').json
    scan = read_scan(scan_file)
    (scans, _, training, _), model = seen['train']
    (_, _, inference, _), result = seen['reconstruct']
    assert [each.fingerprint() for each in scans] == [scan.fingerprint()]
    expected = held_out_indices(scan, training.held_out_fraction, training.seed)
    assert training.seed == inference.seed == 5
    assert len(expected) == found['held_out_patterns'] == 5
    np.testing.assert_array_equal(result.held_out, expected)
    np.testing.assert_array_equal(
        held_out_indices(scan, inference.held_out_fraction, inference.seed), expected
    )
    assert found['held_out_seen_in_training'] == 0
    assert all(figures['object'] is None for figures in found['stages'].values())
    assert model.config.sweeps.probe_modes == demo.MEASURED_PROBE_MODES == 3
    assert len(read_product('demo-output/object.h5').probe) == 3
    assert sorted(path.name for path in here.iterdir()) == ['demo-output']
    assert set(found['files']) >= {'stages', 'scan', 'model', 'picture', 'product'}


def test_probe_modes_and_reading_options_are_the_users(here, call, scan_file):
    call('demo', '--data', scan_file, '--probe-modes', 1, '--crop', 24, *QUICK)
    product = read_product('demo-output/object.h5')
    assert product.probe.shape == (1, 24, 24)
    assert read_scan('demo-output/scan.h5').n_px == 24


def test_a_scan_of_several_modes_keeps_them(here, write_simulated):
    scan = write_simulated(here / 'two.h5', probe_modes=2, n_positions=9)
    run = demo._run({}, demo._measured(scan))
    assert run.model.sweeps.probe_modes is None
    assert run.model.N == 32


def test_the_simulated_demo_takes_the_defaults(write_simulated, tmp_path):
    scan = write_simulated(tmp_path / 'a.h5', n_positions=9)
    run = demo._run({}, demo._Scans([scan], scan, simulated=True))
    expected = {'model': {'N': 32}, 'training': {'epochs': demo.SIMULATED_EPOCHS}}
    assert run == RunConfig.parse(expected)


def test_the_simulated_demo_takes_the_epochs_it_is_told(write_simulated, tmp_path):
    scan = write_simulated(tmp_path / 'a.h5', n_positions=9)
    told = {'training.epochs': 3}
    run = demo._run(told, demo._Scans([scan], scan, simulated=True))
    assert run.training.epochs == 3


def test_sweeps_alone(here, call, scan_file):
    call('demo', '--data', scan_file, '--architecture', 'none', '--sweeps-before', 2)
    metrics = json.loads((here / 'demo-output/metrics.json').read_text())
    assert list(metrics['stages']) == ['2 sweeps']
    assert not (here / 'demo-output/training.png').exists()


def test_the_reference_network(here, call, write_simulated):
    write_simulated(here / 'scan.h5', N=64, n_positions=16)
    ran = call(
        *('demo', '--data', 'scan.h5', '--gridsize', 2, '--epochs', 1, '--accelerator', 'cpu'),
        *('--quiet', '--output_dir', 'out'),
    )
    metrics = json.loads((here / 'out/metrics.json').read_text())
    assert ran.err == ''
    assert list(metrics['stages']) == ['network']
    assert (metrics['training']['architecture'], metrics['training']['gridsize']) == ('cnn', 2)
    assert len(read_product('out/object.h5').probe) == 1


def test_a_dose_that_is_none_is_refused(here, fail):
    assert 'photons = 0.0' in fail('demo', '--photons', 0).last
    assert list(here.iterdir()) == []


@pytest.mark.parametrize('option', [('--crop', 64), ('--diffraction', 'd.h5')])
def test_reading_options_without_a_file_are_refused(here, fail, option):
    ran = fail('demo', *option)
    assert 'expected --data FILE' in ran.last
    assert option[0].strip('-') in ran.last


def test_an_interrupted_reconstruction_leaves_the_trained_model(
    here, command_line, scan_file, monkeypatch
):
    from ptychodus_torch_plugin import api

    def interrupted(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(api, 'reconstruct', interrupted)
    ran = command_line('demo', '--data', scan_file, *QUICK)
    assert ran.code == 130
    assert load_bundle('demo-output/model').best_epoch == 1
    assert not (here / 'demo-output/object.h5').exists()
