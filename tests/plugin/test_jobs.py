"""Jobs as the process that computes does them: what it refuses, what it keeps."""

import logging
from dataclasses import replace

import pytest

from ptychodus_torch_plugin.config import RunConfig
from ptychodus_torch_plugin.errors import OutputError, ScanFileError
from ptychodus_torch_plugin.files.writing import write_ptychodus_npz
from ptychodus_torch_plugin.integration import jobs
from ptychodus_torch_plugin.integration.messages import Finished, TrainFiles

from .scene import measured

SETTINGS = {
    'backend': 'pytorch',
    'model': {'N': 32, 'channels': (4, 8), 'sweeps_before': 2, 'sweeps_after': 0},
    'training': {'epochs': 1, 'thinnings': 1},
    'execution': {'accelerator': 'cpu'},
}


@pytest.fixture
def job(tmp_path):
    file = tmp_path / 'scan.npz'
    write_ptychodus_npz(file, measured())
    run = RunConfig.parse(SETTINGS)
    return TrainFiles(run, [file], file, tmp_path / 'model.zip', tmp_path / 'checkpoints')


def never():
    return False


def do(job, should_stop=never):
    return jobs.do(job, lambda _message: None, should_stop)


def test_a_stop_during_the_test_keeps_the_model(job, caplog):
    caplog.set_level(logging.INFO)
    assert do(job, lambda: 'training done' in caplog.text) == Finished(model_saved=True)
    assert job.bundle.is_file()
    assert 'scan: stopped during the test' in caplog.text


def test_a_test_scan_of_another_size_is_refused_before_the_training(job, tmp_path):
    file = tmp_path / 'test_data.npz'
    write_ptychodus_npz(file, measured(n_px=48))
    with pytest.raises(ScanFileError, match=r'test_data\.npz has patterns of 48 px'):
        do(replace(job, test_file=file))
    assert not job.bundle.exists()


def test_checkpoints_that_cannot_be_kept_are_refused_in_a_sentence(job, tmp_path):
    with pytest.raises(OutputError, match=r'cannot keep checkpoints in .* expected a folder'):
        do(replace(job, checkpoints=tmp_path / 'scan.npz' / 'checkpoints'))


def test_a_folder_of_somebody_else_is_left_alone(job):
    job.checkpoints.mkdir()
    mine = job.checkpoints / 'thesis.txt'
    mine.touch()
    with pytest.raises(OutputError, match='holds other files'):
        do(job)
    assert mine.exists()
