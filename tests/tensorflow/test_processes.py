"""How TensorFlow finds the other processes of a training under SLURM."""

import pytest

from ptychodus_torch_plugin.backends.tensorflow.processes import FIRST_PORT, PORTS, _resolver
from ptychodus_torch_plugin.ranks import own_rank

SRUN = {
    'SLURM_JOB_ID': '2003',
    'SLURM_PROCID': '3',
    'SLURM_LOCALID': '1',
    'SLURM_STEP_NUM_TASKS': '4',
    'SLURM_STEP_NUM_NODES': '2',
    'SLURM_STEP_NODELIST': 'node[07-08]',
    'SLURM_STEP_TASKS_PER_NODE': '2(x2)',
}


@pytest.mark.parametrize('n_gpus', [0, 1])
def test_slurm_says_where_the_others_are(monkeypatch, n_gpus):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    resolver = _resolver(own_rank(), n_gpus)
    port = FIRST_PORT + 3 * PORTS
    hosts = ('node07', 'node08')
    expected = [f'{host}:{port + number}' for host in hosts for number in (0, 1)]
    assert resolver.cluster_spec().as_dict() == {'worker': expected}
    assert (resolver.task_type, resolver.task_id) == ('worker', 3)
    assert resolver.num_accelerators() == {'GPU': n_gpus}
