"""Two processes train one model, as one does with the joined batch; nobody waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptychodus_torch_plugin.cli.launching import environments
from ptychodus_torch_plugin.errors import ConfigError

from .distributed_worker import (
    CNN_CHANGES,
    UNROLLED_CHANGES,
    cnn,
    groups_scan,
    noisy_scan,
    told,
    unrolled,
)

ROOT = Path(__file__).parents[2]
LIMIT_S = 30
"""How long a process may take to learn that another one has failed."""

GRADIENTS, LOSSES = 1e-2, 1e-5
"""Relative differences in single precision: sums in another order, batches of another size.

A rounding can decide which pixel of a pool is the largest, and single gradients then jump; a sample
that is lost or doubled moves all of them by a tenth and more.
"""


@pytest.fixture(scope='module')
def ran(backend, tmp_path_factory):
    """The folder into which two processes have told what they saw, and what they said."""
    folder = tmp_path_factory.mktemp(f'two-{backend}')
    command = [sys.executable, '-m', 'tests.both.distributed_worker', backend, str(folder)]
    children = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment, 'OMP_NUM_THREADS': '1'},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments(2)
    ]
    said = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    return folder, said


def result_of(ran, name):
    folder, _ = ran
    first, second = ({**np.load(folder / f'{name}-{rank}.npz')} for rank in (0, 1))
    assert first.keys() == second.keys()
    return first, second


def assert_same_training(found, expected):
    """Compare losses and Adam's first moments, which are sums of gradients."""
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found['history'], expected['history'], rtol=LOSSES)
    for name, array in expected.items():
        if name.startswith('moments/exp_avg/'):
            scale = max(np.abs(array).max(), 1e-8)
            np.testing.assert_allclose(found[name], array, atol=GRADIENTS * scale, err_msg=name)
        if name.startswith('moments/step/'):
            assert found[name] == array


def test_all_ranks_end_with_the_same_model(ran):
    for name in ('cnn', 'unrolled', 'stopped'):
        first, second = result_of(ran, name)
        for key, array in first.items():
            np.testing.assert_array_equal(array, second[key], err_msg=f'{name}: {key}')


def test_groups_train_as_in_one_process_with_the_joined_batch(backend, ran):
    """The batches of 6, 6, 6 and 1 groups, the last of which one rank has alone."""
    alone = cnn(backend).fit(groups_scan(), batch_size=6, **CNN_CHANGES)
    assert_same_training(result_of(ran, 'cnn')[0], told(alone))


def test_steps_of_the_unrolled_network_are_averaged(backend, ran):
    """As in one process that gathers the gradients of two windows; the last one comes alone."""
    alone = unrolled(backend).fit(noisy_scan(), accum_steps=2, **UNROLLED_CHANGES)
    assert_same_training(result_of(ran, 'unrolled')[0], told(alone))


def test_no_group_is_lost_or_doubled(ran):
    folder, _ = ran
    batches = [json.loads((folder / f'visited-{rank}.json').read_text()) for rank in (0, 1)]
    assert [len(each) for each in batches] == [4, 4]  # every rank takes every step
    visited = [
        group
        for rank in batches
        for indices, weight in rank
        if weight
        for group in map(tuple, indices)
    ]
    assert len(visited) == len(set(visited)) == 19
    assert sorted(weight for rank in batches for _, weight in rank) == [0] + [1] * 6 + [2]


def test_only_the_first_rank_writes_and_nobody_speaks(ran):
    folder, said = ran
    assert not (folder / 'of-rank-1').exists()
    own = folder / 'of-rank-0'
    assert {file.name for file in (own / 'checkpoints').iterdir()} == {'best.ckpt', 'last.ckpt'}
    assert [*own.glob('logs/version_*/metrics.csv')]
    for out, err in said:
        assert (out, err) == ('', '')


def test_a_wish_of_one_rank_stops_all_after_the_same_step(ran):
    """It has it after the first step, and all ask each other after every one."""
    for found in result_of(ran, 'stopped'):
        assert str(found['stopped']) == 'request'
        [step] = {float(a) for name, a in found.items() if name.startswith('moments/step/')}
        assert step == 2


def test_the_others_learn_that_a_rank_has_failed(ran):
    folder, _ = ran
    first, second = (json.loads((folder / f'failed-{r}.json').read_text()) for r in (0, 1))
    assert second['error'] == 'power cut'
    assert first['error'].startswith('rank 0 of 2 lost the other processes of this training')
    assert first['error'].endswith('Look at its own message.')
    assert first['seconds'] < LIMIT_S


def test_more_processes_than_were_started_are_refused(backend, quick, noisy):
    with pytest.raises(ConfigError, match=r'devices = 2 and num_nodes = 3 make 6 .* is alone'):
        quick.fit(noisy, devices=2, num_nodes=3)


def test_processes_that_cannot_find_each_other_are_refused(backend, quick, noisy, monkeypatch):
    """Each framework finds its peers in its own way."""
    foreign = {'pytorch': 'TF_CONFIG', 'tensorflow': 'torchrun'}[backend]
    [own, _] = environments(2)
    for name, value in own.items():
        if (name == 'TF_CONFIG') == (foreign == 'TF_CONFIG'):
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f'{foreign} started 2 processes, but'):
        quick.fit(noisy)
