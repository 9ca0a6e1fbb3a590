"""`train` and `infer` by two processes, as a user starts them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ptychodus_torch_plugin import write_scan
from ptychodus_torch_plugin.cli.app import run
from ptychodus_torch_plugin.cli.launching import environments
from tests.both.distributed_worker import groups_scan

SMALL = ['--architecture', 'cnn', '--n_filters_scale', '1', '--batch_size', '5', '--epochs', '1']
ROUNDING = 1e-5
"""Relative difference of objects whose patches were added in another order, in other batches."""


@pytest.fixture(scope='module')
def backend():
    """Commands, launcher and parts are the same for both; `tests/both` has what differs."""
    return 'pytorch'


@pytest.fixture(scope='module')
def trained(backend, tmp_path_factory):
    """The folder in which two processes trained a model, and what they said."""
    folder = tmp_path_factory.mktemp(f'commands-{backend}')
    write_scan(folder / 'scan.h5', groups_scan())
    program = [sys.executable, '-m', 'ptychodus_torch_plugin', 'train', 'scan.h5']
    where = ['--backend', backend, '--output_dir', 'out', '--devices', '2', '--json']
    command = [*program, '--gridsize', '2', *SMALL, *where]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return folder, ran


def test_two_processes_leave_one_model_and_speak_once(trained):
    folder, ran = trained
    told = json.loads(ran.stdout)
    assert (told['epochs'], told['settings']['execution']['devices']) == (1, 2)
    lines = [line for line in ran.stderr.splitlines() if not line.startswith('Training')]
    assert lines == ['Reading scan.h5', 'Loading the backend']
    out = folder / 'out'
    assert {path.name for path in out.iterdir()} == {
        'checkpoints', 'history.json', 'logs', 'run.json', 'training.png', 'wts.h5.zip',
    }  # fmt: skip
    assert [path.name for path in (out / 'logs').iterdir()] == ['version_0']


def infer(trained, backend, name, *options):
    folder, _ = trained
    out = folder / name
    where = ['--model_path', str(folder / 'out'), '--output_dir', str(out), '--backend', backend]
    common = ['--inference-batch-size', '4', '--quiet', *options]
    return run(['infer', '--test_data', str(folder / 'scan.h5'), *where, *common]), out


def assert_same_object(out, expected):
    found, alone = (np.load(folder / 'object.npz') for folder in (out, expected))
    scale = np.abs(alone['object']).max()
    np.testing.assert_allclose(found['object'], alone['object'], atol=ROUNDING * scale)
    np.testing.assert_allclose(found['occupancy'], alone['occupancy'], rtol=ROUNDING)
    found, alone = (json.loads((f / 'metrics.json').read_text()) for f in (out, expected))
    for kind in ('r_fitted', 'r_held_out'):
        values = [each['stages']['network'][kind] for each in (found, alone)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.fixture(scope='module')
def alone(trained, backend):
    """The folder of the same reconstruction by one process."""
    code, out = infer(trained, backend, 'alone')
    assert code == 0
    return out


def test_ranks_share_a_scan_and_the_first_one_merges(trained, backend, alone, monkeypatch, capsys):
    """One after the other here: they meet in files."""
    for rank in (2, 1, 0):
        for name, value in environments(3)[rank].items():
            monkeypatch.setenv(name, value)
        code, out = infer(trained, backend, 'shared')
        assert code == 0
        said = capsys.readouterr()
        assert bool(said.out) == (rank == 0)
        assert said.err == ''
        made = {path.name for path in out.iterdir()}
        if rank:
            assert made == {'parts'}
    assert made == {'object.h5', 'object.npz', 'object.png', 'metrics.json'}
    assert_same_object(out, alone)
    assert json.loads((out / 'metrics.json').read_text())['parts'] == 3


def test_jobs_of_an_array_share_a_scan(trained, backend, alone, capsys):
    for part in ('2/2', '1/2'):
        code, out = infer(trained, backend, 'array', '--part', part)
        assert code == 0
    assert [path.name for path in out.iterdir()] == ['parts']
    code, out = infer(trained, backend, 'array', '--merge')
    assert code == 0
    assert_same_object(out, alone)

    code, _ = infer(trained, backend, 'array', '--merge', '--seed', '5')
    assert code == 2
    assert 'another model, of another scan, or with other settings' in capsys.readouterr().err
    (out / 'parts' / 'part-2-of-2.npz').unlink()
    code, _ = infer(trained, backend, 'array', '--merge')
    assert code == 2
    assert (
        '1 of 2 parts are there; expected all. Predict part 2 as well.' in capsys.readouterr().err
    )
