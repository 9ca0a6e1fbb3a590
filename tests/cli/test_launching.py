"""Several processes of one command: started, told who they are, and ended together."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ptychodus_torch_plugin.cli import launching, parts
from ptychodus_torch_plugin.cli.app import run
from ptychodus_torch_plugin.cli.launching import environments, launch
from ptychodus_torch_plugin.cli.parts import Share, share_of
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.ranks import ALONE, Rank, own_rank
from ptychodus_torch_plugin.sharding import Shard

SCRIPT = """
import os, signal, sys, time
rank = int(os.environ['RANK'])
open(os.path.join(sys.argv[1], str(rank)), 'w').close()
{body}
"""


def launch_script(tmp_path, body, count=2):
    program = [sys.executable, '-c', SCRIPT.format(body=body)]
    start = time.monotonic()
    code = launch([str(tmp_path)], count, program=program)
    return code, time.monotonic() - start


def test_each_process_knows_its_rank_in_both_ways():
    for index, environment in enumerate(environments(3)):
        assert own_rank(environment) == Rank(index, 3, index, 3, 'torchrun')
        assert own_rank({'TF_CONFIG': environment['TF_CONFIG']}).index == index
    addresses = json.loads(environment['TF_CONFIG'])['cluster']['worker']
    assert len({environment['MASTER_PORT'], *addresses}) == 4


def test_all_end_well(tmp_path):
    code, _ = launch_script(tmp_path, 'pass', count=3)
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['0', '1', '2']


@pytest.mark.parametrize(
    ('end', 'expected'),
    [
        ('sys.exit(3)', 3),
        pytest.param('os.kill(os.getpid(), signal.SIGKILL)', 137, marks=pytest.mark.slow),
    ],
)
def test_the_failure_of_one_ends_the_others(tmp_path, capsys, monkeypatch, end, expected):
    """Also those that do not listen to a friendly word, after a while."""
    monkeypatch.setattr(launching, 'GRACE_S', 0.5)
    body = f'signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif rank == 1: {end}\ntime.sleep(100)'
    code, seconds = launch_script(tmp_path, body)
    assert code == expected
    assert seconds < 30
    assert capsys.readouterr().err.startswith(f'rank 1 of 2 ended with exit code {expected}; the')


def test_ctrl_c_reaches_each_process_once(tmp_path):
    body = (
        'heard = []\nsignal.signal(signal.SIGINT, lambda *_: heard.append(1))\n'
        "open(os.path.join(sys.argv[1], f'ready-{rank}'), 'w').close()\n"
        'while not heard: time.sleep(0.01)\ntime.sleep(0.2)\nsys.exit(10 + len(heard))'
    )

    def press():
        while len([*tmp_path.glob('ready-*')]) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    code, _ = launch_script(tmp_path, body)
    assert code == 11


def test_an_error_of_all_is_told_by_each_with_its_rank(tmp_path):
    command = [sys.executable, '-m', 'ptychodus_torch_plugin', 'train', 'missing.h5']
    ran = subprocess.run(
        [*command, '--devices', '2'], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, '')
    errors = [line for line in ran.stderr.splitlines() if 'Error' in line]
    assert errors
    for line in errors:
        assert line.startswith('[rank ')
        assert 'missing.h5: there is no such file' in line
    assert [*tmp_path.iterdir()] == []


def test_processes_on_other_machines_must_be_started_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(['train', 'missing.h5', '--devices', '2', '--num-nodes', '2']) == 2
    assert 'make 4 processes, but this process is alone' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('part', 'merge', 'rank', 'share'),
    [
        (None, False, ALONE, None),
        ('3/16', False, ALONE, Share(Shard(2, 16), merges=False)),
        (None, True, ALONE, Share(None, merges=True)),
        (None, False, Rank(0, 4), Share(Shard(0, 4), merges=True, together=True)),
        (None, False, Rank(3, 4), Share(Shard(3, 4), merges=False, together=True)),
    ],
)
def test_a_process_knows_its_share(part, merge, rank, share):
    assert share_of(part, merge=merge, rank=rank) == share


@pytest.mark.parametrize('part', ['0/4', '5/4', '1', 'a/b', '1/0', '-1/2', '1/2/3'])
def test_a_part_is_one_of_some(part):
    with pytest.raises(ConfigError, match=f'--part {part}: expected K/N'):
        share_of(part, merge=False, rank=ALONE)


def test_two_ways_of_sharing_are_one_too_many():
    for part, merge, rank in [
        ('1/2', True, ALONE),
        ('1/2', False, Rank(0, 2)),
        (None, True, Rank(0, 2)),
    ]:
        with pytest.raises(ConfigError, match='expected one of them'):
            share_of(part, merge=merge, rank=rank)


def test_a_demonstration_is_the_work_of_one(tmp_path, monkeypatch, capsys):
    for name, value in environments(2)[1].items():
        monkeypatch.setenv(name, value)
    assert run(['demo', '--output_dir', str(tmp_path / 'out')]) == 2
    said = capsys.readouterr().err
    assert said.startswith('[rank 1 of 2] Error: demo is the work of one process, but torchrun')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('how', [['--part', '1/2'], ['--merge']])
def test_sweeps_cannot_be_shared(tmp_path, capsys, how):
    where = ['--test_data', str(tmp_path / 'missing.h5'), '--output_dir', str(tmp_path / 'out')]
    assert run(['infer', '--architecture', 'none', *where, *how]) == 2
    assert "architecture 'none' reconstructs a scan by sweeps" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_whoever_waits_learns_that_a_part_will_not_come(tmp_path, monkeypatch):
    shards = [Shard(0, 2), Shard(1, 2)]
    with (
        pytest.raises(OSError, match='disk full'),
        parts.parts_folder(tmp_path, Share(shards[1], merges=False, together=True)),
    ):
        raise OSError('disk full')
    (tmp_path / 'parts' / 'part-1-of-2.npz').touch()
    with pytest.raises(RuntimeError, match='rank 1 of 2 failed: OSError: disk full'):
        parts._wait(tmp_path / 'parts', shards, lambda: False)
    with parts.parts_folder(tmp_path, Share(shards[0], merges=True, together=True)):
        assert not [*(tmp_path / 'parts').glob('*.failed')]
    monkeypatch.setattr(parts, 'PATIENCE_S', 0.2)
    with pytest.raises(RuntimeError, match=r'1 of 2 are missing, the first of them .*part-2-of-2'):
        parts._wait(tmp_path / 'parts', shards, lambda: False)
