"""The processes that train one network together, and what they agree about besides gradients."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor, distributed

from ptychodus_torch_plugin.backends.protocol import ShouldStop, never_stop
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError, TrainingError
from ptychodus_torch_plugin.ranks import ALONE, Rank, check_count
from ptychodus_torch_plugin.sharding import Shard

PATIENCE = timedelta(minutes=10)
"""How long a process waits for another one that is alive and says nothing."""

HOW_TO_START = (
    'Start them with: torchrun --nproc_per_node DEVICES -m ptychodus_torch_plugin train ..., with '
    'srun, or with train --devices.'
)


def check_devices(execution: ExecutionConfig, rank: Rank) -> None:
    """Raise `ConfigError` if the processes are not those asked for, or share in a wrong way."""
    known = ['auto', *StrategyRegistry.available_strategies()]
    if execution.strategy not in known:
        raise ConfigError(
            f"strategy = {execution.strategy!r} is not known to Lightning; expected 'auto', or one "
            f'of {", ".join(known[1:])}.'
        )
    if not rank.alone and execution.strategy not in ('auto', 'ddp'):
        raise ConfigError(
            f'strategy = {execution.strategy!r} divides variables among {rank.count} processes; '
            "expected 'auto' or 'ddp', where each has them all."
        )
    check_count(rank, execution.devices, execution.num_nodes, how=HOW_TO_START)


class Team:
    """The processes that train together, seen from one of them; alone, all is as without.

    Attributes
    ----------
    rank
        Which of them this is.
    shard
        Its share of the work.
    """

    def __init__(self, rank: Rank = ALONE, should_stop: ShouldStop = never_stop) -> None:
        self.rank, self.shard = rank, Shard(rank.index, rank.count)
        self._should_stop = should_stop
        self._known: bool | None = None

    def summed(self, *values: float) -> list[float]:
        """Return the sums of values over all ranks."""
        if self.rank.alone:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return [float(each) for each in sums.tolist()]

    def joint_loss(self, loss: float) -> float:
        """Return the mean of a loss over all ranks; they ask each other for `stop` on the way."""
        if self.rank.alone:
            return loss
        total, wishes = self.summed(loss, float(self._should_stop()))
        self._known = wishes > 0
        return total / self.rank.count

    def stop(self) -> bool:
        """Return whether anybody wants to stop; all ranks ask together, and get one answer.

        A rank that stopped a step before the others would leave them waiting for its gradients.
        """
        known, self._known = self._known, None
        return self.summed(float(self._should_stop()))[0] > 0 if known is None else known

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Let all ranks have the tensors of the first one, in place; they lie on the CPU."""
        if not self.rank.alone:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def trainer_settings(self, strategy: str, *, unused: bool) -> dict[str, Any]:
        """Return what Lightning's trainer must know of the processes.

        Parameters
        ----------
        strategy
            Lightning's name of one.
        unused
            Whether the loss may not look at some variable that is trained.
        """
        if self.rank.alone:
            alone = 'auto' if strategy == 'ddp' else strategy
            return {'devices': 1, 'strategy': alone, 'plugins': [LightningEnvironment()]}
        return {
            'devices': self.rank.local_count,
            'num_nodes': self.rank.nodes,
            'strategy': DDPStrategy(find_unused_parameters=unused),
            'plugins': [_environment(self.rank)],
            # `sharding` deals out the work.
            'use_distributed_sampler': False,
        }


@contextmanager
def team(rank: Rank, device: torch.device, should_stop: ShouldStop) -> Iterator[Team]:
    """Give the team, connected; if anything fails here, the others fail at once, too.

    Raises
    ------
    TrainingError
        If another process ended, or says nothing for `PATIENCE`.
    """
    if rank.alone:
        yield Team(rank, should_stop)
        return
    try:
        _connect(rank, device)
        yield Team(rank, should_stop)
    except BaseException as error:
        # Whoever waits for this process learns now that it will not come.
        _disconnect()
        if _is_of_others(error):
            raise TrainingError(
                f'{rank} lost the other processes of this training ({_first_line(error)}): one of '
                'them has ended, or said nothing for too long; expected all of them to the end. '
                'Look at its own message.'
            ) from error
        raise


def _connect(rank: Rank, device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.set_device(rank.local_index)
    if distributed.is_initialized():
        return
    known = _environment(rank)
    distributed.init_process_group(
        'gloo' if device.type == 'cpu' else 'cpu:gloo,cuda:nccl',
        init_method=f'tcp://{known.main_address}:{known.main_port}',
        rank=rank.index,
        world_size=rank.count,
        timeout=PATIENCE,
    )
    # Kept for a second training in this process.
    atexit.register(_disconnect)


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _environment(rank: Rank) -> ClusterEnvironment:
    if rank.source == 'torchrun':
        return TorchElasticEnvironment()
    if rank.source != 'srun':
        raise ConfigError(
            f'{rank.source} started {rank.count} processes, but PyTorch does not find its peers by '
            f'it; expected torchrun or srun. {HOW_TO_START}'
        )
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise ConfigError(f'{error} Use --ntasks-per-node.') from error


def _is_of_others(error: BaseException) -> bool:
    """Return whether an error says that a process at the other end has gone."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and ('gloo' in str(error) or 'NCCL' in str(error))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition('\n')[0].rstrip('.')
