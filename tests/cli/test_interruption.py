"""Ctrl-C keeps the best model; a kill costs nothing that a checkpoint holds."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ptychodus_torch_plugin import load_bundle
from ptychodus_torch_plugin.cli.stopping import Killed, StopRequest

LIMIT_S = 120


def start(*arguments):
    command = [sys.executable, '-m', 'ptychodus_torch_plugin', *map(str, arguments)]
    environment = {**os.environ, 'OMP_WAIT_POLICY': 'PASSIVE'}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(path, process):
    """Wait until a file is there; the process must be at work all the while."""
    end = time.monotonic() + LIMIT_S
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def losses(folder):
    records = json.loads((folder / 'history.json').read_text())['epochs']
    return [(record['loss'], record['validation_loss']) for record in records]


def test_the_first_ctrl_c_asks_the_second_kills():
    told = []
    before = signal.getsignal(signal.SIGINT)
    with StopRequest(lambda: told.append(1)) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert stop()
        assert told == [1]
        with pytest.raises(Killed):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_keeps_the_best_model(here, scan_file, run_file):
    process = start('train', scan_file, '--config', run_file, '--epochs', 2000, '--json')
    wait_for(here / 'training_outputs/checkpoints/last.ckpt', process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert 'the best model so far is kept' in err
    found = json.loads(out)
    assert found['stopped'] == 'request'
    assert 1 <= found['best_epoch'] <= found['epochs'] < 2000
    model = load_bundle(here / 'training_outputs')
    assert model.best_epoch == found['best_epoch']
    assert len(losses(here / 'training_outputs')) == found['epochs']


def test_the_second_ctrl_c_ends_a_training_at_once(
    here, command_line, scan_file, run_file, monkeypatch
):
    """It goes through the training framework, which handles a KeyboardInterrupt its own way."""

    def impatient(_, event):
        if event.phase == 'train':
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr('ptychodus_torch_plugin.cli.progress._Lines.__call__', impatient)
    ran = command_line('train', scan_file, '--config', run_file)
    assert (ran.code, ran.last) == (130, 'Interrupted.')
    assert not (here / 'training_outputs/wts.h5.zip').exists()


def test_a_killed_training_resumes_to_the_same_losses(here, call, scan_file, run_file):
    # As many threads there as here, or sums are rounded in another order.
    settings = ('--config', run_file, '--epochs', 40, '--threads', 1)
    process = start('train', scan_file, *settings, '--output_dir', 'killed')
    wait_for(here / 'killed/checkpoints/last.ckpt', process)
    process.kill()
    process.communicate()
    assert (here / 'killed/run.json').is_file()
    assert not (here / 'killed/wts.h5.zip').exists()
    # Its own run.json is enough.
    call('train', scan_file, '--resume', '--output_dir', 'killed')
    call('train', scan_file, *settings, '--output_dir', 'whole')
    assert len(losses(here / 'killed')) == 40
    np.testing.assert_allclose(losses(here / 'killed'), losses(here / 'whole'), rtol=1e-6)


def test_a_resumed_training_refuses_other_settings(here, fail, scan_file, trained):
    ran = fail('train', scan_file, '--resume', '--output_dir', trained, '--seed', 99)
    assert 'belongs to another run' in ran.last


def test_ctrl_c_in_a_reconstruction_writes_nothing(here, command_line, scan_file, monkeypatch):
    from ptychodus_torch_plugin import api

    def interrupted(*arguments, should_stop, **_):
        os.kill(os.getpid(), signal.SIGINT)
        assert should_stop()
        raise InterruptedError

    monkeypatch.setattr(api, 'reconstruct', interrupted)
    ran = command_line(
        'infer', '--architecture', 'none', '--test_data', scan_file, '--output_dir', 'out'
    )
    assert ran.code == 130
    assert ran.last == 'Stopped during the reconstruction: it was not written.'
    assert list(here.iterdir()) == []
