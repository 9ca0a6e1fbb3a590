"""The process that computes: it is stopped, it fails, it is killed, and nobody waits in vain."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ptychodus_torch_plugin.bundle.archive import read_bundle
from ptychodus_torch_plugin.config import RunConfig
from ptychodus_torch_plugin.errors import BundleError, ConfigError
from ptychodus_torch_plugin.integration import child as child_module
from ptychodus_torch_plugin.integration.child import Child, ChildError
from ptychodus_torch_plugin.integration.messages import (
    Finished,
    FitScan,
    Infer,
    Said,
    Seen,
    Trained,
    Working,
)
from tests.parity.scenes import simulated_scan

SECONDS_TO_NOTICE = 10.0
SECONDS_TO_STOP = 5.0
"""On a busy machine; the trainings here would last much longer."""


def settings(**changes):
    """Return settings of a training that lasts until somebody ends it."""
    values = {
        'backend': 'pytorch',
        'model': {'N': 32, 'channels': (4, 8), 'sweeps_before': 4, 'sweeps_after': 0},
        'training': {'epochs': 500, 'thinnings': 1},
        'execution': {'accelerator': 'cpu'},
    }
    return RunConfig.parse(values | changes)


@pytest.fixture
def job(tmp_path):
    scan = simulated_scan(photons=3e3)
    return FitScan(settings(), scan, tmp_path / 'model.zip', tmp_path / 'checkpoints')


def never():
    return False


def epochs_of(messages):
    return [message.losses[-1][0] for message in messages if isinstance(message, Trained)]


def test_a_killed_process_ends_the_wait_and_the_next_one_goes_on(job):
    seen = []
    with Child() as child, pytest.raises(ChildError, match='killed by signal 9') as error:
        for message in child.run(job, never):
            seen.append(message)
            if epochs_of(seen)[-1:] == [3]:
                killed = time.monotonic()
                os.kill(child.process_id, signal.SIGKILL)
    assert time.monotonic() - killed < SECONDS_TO_NOTICE
    assert 'it goes on from the last complete epoch' in str(error.value)
    assert not job.bundle.exists()

    again = []
    with Child() as child:
        again.extend(child.run(job, lambda: bool(epochs_of(again))))  # one by one
    assert 'going on from the checkpoint' in ' '.join(m.text for m in again if isinstance(m, Said))
    assert epochs_of(again)[0] >= 3
    assert again[-1] == Finished(model_saved=True, stopped=True)
    history = read_bundle(job.bundle).history
    assert [record['epoch'] for record in history] == list(range(1, len(history) + 1))
    assert not job.checkpoints.exists()


def test_a_stop_takes_effect_soon_and_keeps_the_best(job):
    messages, asked = [], []

    def should_stop():
        if len(epochs_of(messages)) >= 2:
            asked.append(time.monotonic())
        return bool(asked)

    with Child() as child:
        messages.extend(child.run(job, should_stop))  # one by one
    assert time.monotonic() - asked[0] < SECONDS_TO_STOP
    assert messages[-1] == Finished(model_saved=True, stopped=True)
    bundle = read_bundle(job.bundle)
    assert bundle.provenance['stopped'] == 'request'
    assert any(isinstance(message, Seen) for message in messages)
    shares = [message.share for message in messages if isinstance(message, Working)]
    assert shares == sorted(shares)


def test_a_stop_while_the_framework_loads_ends_at_once(job):
    threads = threading.active_count()
    with Child() as child:
        begin = time.monotonic()
        assert list(child.run(job, lambda: True)) == [Finished(stopped=True)]
    assert time.monotonic() - begin < SECONDS_TO_STOP
    assert threading.active_count() == threads


@pytest.mark.slow
def test_whoever_stops_listening_can_let_it_end_well(job):
    with Child() as child:
        for message in child.run(job, never):
            if isinstance(message, Trained):
                break
        *_, said, finished = child.end()
    assert said.text.startswith('training stopped; the model of epoch')
    assert finished == Finished(model_saved=True, stopped=True)
    assert read_bundle(job.bundle).history


def test_errors_of_the_package_come_through(job, tmp_path):
    missing = Infer(job.run, tmp_path / 'nothing.zip', job.scan)
    with Child() as child, pytest.raises(BundleError, match=r'nothing\.zip'):
        list(child.run(missing, never))
    # Only when N is known does it show that this network is not made for it.
    cnn = replace(job, run=settings(model={'architecture': 'cnn', 'N': 64}))
    with Child() as child, pytest.raises(ConfigError, match='N = 32 is not supported'):
        list(child.run(cnn, never))


def test_any_other_error_is_told_with_its_kind(job):
    with Child() as child, pytest.raises(ChildError, match='AttributeError') as error:
        list(child.run(replace(job, scan=None), never))
    assert len(str(error.value).splitlines()) == 1
    assert error.value.__notes__[0].startswith('Traceback')


HALF_A_MESSAGE = """
import os, struct, sys
from multiprocessing.connection import Client
connection = Client(sys.argv[1], authkey=bytes.fromhex(sys.stdin.readline()))
connection.recv_bytes()
print('much\\n' * 100_000, end='', flush=True)
print('torn', flush=True)
os.write(connection.fileno(), struct.pack('!i', 100) + b'half')
os._exit(3)
"""


def test_a_process_that_dies_half_way_through_a_message_is_dead(job, tmp_path, monkeypatch):
    (tmp_path / 'half_a_message.py').write_text(HALF_A_MESSAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(child_module, 'WORKER', 'half_a_message')
    with Child() as child, pytest.raises(ChildError, match=r'code 3\..*much \| torn$'):
        list(child.run(job, never))


def test_a_long_name_of_the_folder_for_temporary_files_does_not_matter(job, tmp_path, monkeypatch):
    address = 'multiprocessing.connection.arbitrary_address'
    monkeypatch.setattr(address, lambda _family: str(tmp_path / ('x' * 200)))
    with Child() as child, pytest.raises(BundleError, match=r'nothing\.zip'):
        list(child.run(Infer(job.run, tmp_path / 'nothing.zip', job.scan), never))


def test_files_of_the_current_folder_stand_in_for_nothing(job, tmp_path, monkeypatch):
    (tmp_path / 'numpy.py').write_text('raise RuntimeError')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [path for path in sys.path if path])
    with Child() as child, pytest.raises(BundleError, match=r'nothing\.zip'):
        list(child.run(Infer(job.run, tmp_path / 'nothing.zip', job.scan), never))


def test_a_process_that_cannot_start_says_why(job, monkeypatch):
    monkeypatch.setattr(child_module, 'WORKER', 'no_such_module')
    with Child() as child, pytest.raises(ChildError, match='No module named no_such_module'):
        list(child.run(job, never))


SCRIPT = """
# Nothing guards what a script does when it is imported: it must not run twice.
print('started', flush=True)
from tests.plugin.test_child import *
from pathlib import Path
folder = Path({folder!r})
job = FitScan(settings(), simulated_scan(photons=3e3), folder / 'm.zip', folder / 'checkpoints')
with Child() as child:
    for message in child.run(job, never):
        if isinstance(message, Trained):
            print(child.process_id, flush=True)
"""


def test_it_ends_with_the_process_that_started_it(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    root = str(Path(__file__).parents[2])
    environment = os.environ | {'PYTHONPATH': root}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout.readline() == 'started\n'
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + SECONDS_TO_NOTICE
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(process_id: int) -> bool:
    status = Path(f'/proc/{process_id}/stat')
    return status.exists() and status.read_text().rsplit(')', 1)[1].split()[0] != 'Z'
