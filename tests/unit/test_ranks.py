"""Which rank a process is, by what its launcher says; contradictions are refused."""

import json

import pytest

from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.ranks import ALONE, Rank, check_count, own_rank, workers

TORCHRUN = {'RANK': '5', 'WORLD_SIZE': '8', 'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '4'}
SRUN = {
    'SLURM_PROCID': '5',
    'SLURM_STEP_NUM_TASKS': '8',
    'SLURM_LOCALID': '1',
    'SLURM_STEP_NUM_NODES': '2',
}
CLUSTER = {'chief': ['a:1'], 'worker': ['a:2', 'b:1', 'b:2']}


def tf_config(kind='worker', index=1, cluster=CLUSTER):
    return {'TF_CONFIG': json.dumps({'cluster': cluster, 'task': {'type': kind, 'index': index}})}


@pytest.mark.parametrize(
    'environment',
    [
        {},
        {'TF_CONFIG': ''},
        # A batch script, which is one process whatever it has been given.
        {'SLURM_NTASKS': '8', 'SLURM_PROCID': '0', 'SLURM_LOCALID': '0'},
    ],
)
def test_without_a_launcher_a_process_is_alone(environment):
    assert own_rank(environment) == ALONE
    assert ALONE.alone
    assert ALONE.first


@pytest.mark.parametrize(
    ('environment', 'rank'),
    [
        (TORCHRUN, Rank(5, 8, 1, 4, 'torchrun')),
        (SRUN, Rank(5, 8, 1, 4, 'srun')),
        (tf_config(), Rank(2, 4, 0, 2, 'TF_CONFIG')),
        (tf_config('chief', 0), Rank(0, 4, 0, 2, 'TF_CONFIG')),
        # One torchrun for each machine, which srun starts.
        (TORCHRUN | SRUN | {'SLURM_PROCID': '1', 'SLURM_STEP_NUM_TASKS': '2'}, None),
        (tf_config('worker', 1, {'worker': ['a:1', 'b:1']}) | {'RANK': '1', 'WORLD_SIZE': '2'}
         | {'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '2'}, Rank(1, 2, 1, 2, 'torchrun')),
    ],
)  # fmt: skip
def test_each_launcher_is_understood(environment, rank):
    assert own_rank(environment) == (rank or own_rank(TORCHRUN))


def test_a_rank_knows_machines_and_who_speaks():
    rank = own_rank(TORCHRUN)
    assert (rank.nodes, rank.first, rank.alone) == (2, False, False)
    assert str(rank) == 'rank 5 of 8'
    assert own_rank(TORCHRUN | {'RANK': '0', 'LOCAL_RANK': '0'}).first


@pytest.mark.parametrize(
    ('environment', 'said'),
    [
        ({'RANK': '1'}, 'WORLD_SIZE is missing'),
        ({'WORLD_SIZE': '2'}, 'RANK is missing'),
        (TORCHRUN | {'RANK': 'one'}, "RANK is 'one'"),
        (TORCHRUN | {'RANK': '8'}, 'number 8 of 8'),
        (TORCHRUN | {'RANK': '-1'}, "RANK is '-1'"),
        (TORCHRUN | {'LOCAL_RANK': '4'}, 'number 4 of 4'),
        (TORCHRUN | {'LOCAL_WORLD_SIZE': '3'}, 'as many processes on every machine'),
        ({'SLURM_STEP_NUM_TASKS': '2'}, 'SLURM_PROCID is missing'),
        (SRUN | {'SLURM_STEP_NUM_NODES': '3'}, 'ntasks-per-node'),
        (SRUN | tf_config(), r'TF_CONFIG says .* rank 2 of 4, but srun says rank 5 of 8'),
        (TORCHRUN | tf_config(), 'torchrun says .* but TF_CONFIG says'),
        (tf_config('worker', 3), "'worker' number 3, but its cluster has 1 of type 'chief', 3 of"),
        (tf_config('ps', 0), "'ps' number 0"),
        (tf_config('worker', '1'), "number '1'"),
        (tf_config('worker', 0, CLUSTER | {'ps': ['c:1']}), 'chief and worker alone'),
        (tf_config('worker', 0, {'worker': []}), 'not empty'),
        (tf_config('worker', 0, {'worker': 'a:1'}), 'as lists'),
        (tf_config('worker', 0, {'worker': ['a:1', 'a:1']}), 'address of its own'),
        (tf_config('chief', 0, {'chief': ['a:1', 'b:1']}), 'one chief at most'),
        ({'TF_CONFIG': 'worker'}, 'expected JSON such as'),
        ({'TF_CONFIG': '{"cluster": {}}'}, 'expected JSON such as'),
        ({'TF_CONFIG': '[1]'}, 'expected JSON such as'),
    ],
)
def test_contradictions_are_refused(environment, said):
    with pytest.raises(ConfigError, match=said):
        own_rank(environment)


def test_the_chief_comes_first():
    assert [address for _, _, address in workers(tf_config()['TF_CONFIG'])] == [
        'a:1', 'a:2', 'b:1', 'b:2',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('rank', 'devices', 'nodes', 'fits'),
    [
        (ALONE, 1, 1, True),
        (ALONE, 2, 1, False),
        (own_rank(TORCHRUN), 1, 1, True),  # whatever was started
        (own_rank(TORCHRUN), 4, 2, True),
        (own_rank(TORCHRUN), 8, 1, True),
        (own_rank(TORCHRUN), 4, 1, False),
    ],
)
def test_settings_must_fit_what_was_started(rank, devices, nodes, fits):
    if fits:
        check_count(rank, devices, nodes, how='')
        return
    with pytest.raises(ConfigError, match=rf'devices = {devices} .* as many as that\. Use srun'):
        check_count(rank, devices, nodes, how='Use srun.')
