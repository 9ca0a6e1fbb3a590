"""How PyTorch finds the other processes of a training under SLURM, and how it shares the work."""

import pytest
from lightning.pytorch.strategies import DDPStrategy

from ptychodus_torch_plugin.backends.torch.processes import Team
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.ranks import own_rank

SRUN = {
    'SLURM_JOB_ID': '12003',
    'SLURM_PROCID': '3',
    'SLURM_LOCALID': '1',
    'SLURM_NODEID': '1',
    'SLURM_NTASKS': '4',
    'SLURM_NTASKS_PER_NODE': '2',
    'SLURM_STEP_NUM_TASKS': '4',
    'SLURM_STEP_NUM_NODES': '2',
    'SLURM_NODELIST': 'node[07-08]',
}


@pytest.fixture
def srun(monkeypatch):
    for name in ('MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '')  # so that what is set below is taken back
        monkeypatch.delenv(name)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)


def test_slurm_says_where_the_others_are(srun):
    settings = Team(own_rank()).trainer_settings('auto', unused=False)
    assert (settings['devices'], settings['num_nodes']) == (2, 2)
    assert isinstance(settings['strategy'], DDPStrategy)
    [known] = settings['plugins']
    assert (known.main_address, known.main_port) == ('node07', 15000 + 2003)
    assert (known.global_rank(), known.world_size(), known.local_rank()) == (3, 4, 1)
    known.validate_settings(settings['devices'], settings['num_nodes'])


def test_tasks_without_a_place_are_refused(srun, monkeypatch):
    monkeypatch.delenv('SLURM_NTASKS_PER_NODE')
    with pytest.raises(ConfigError, match='Use --ntasks-per-node'):
        Team(own_rank()).trainer_settings('auto', unused=False)


def test_alone_slurm_is_not_asked(srun, monkeypatch):
    monkeypatch.delenv('SLURM_STEP_NUM_TASKS')
    settings = Team(own_rank()).trainer_settings('ddp', unused=False)
    assert (settings['devices'], settings['strategy']) == (1, 'auto')
    assert not settings['plugins'][0].creates_processes_externally
