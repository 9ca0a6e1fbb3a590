"""The processes that train one network together, and what they agree about besides gradients.

They are those of a `tf.distribute.MultiWorkerMirroredStrategy`; each has variables of its own,
which stay alike because all apply the same sums of gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.backends.protocol import ShouldStop, never_stop
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError, TrainingError
from ptychodus_torch_plugin.ranks import ALONE, TF_CONFIG, Rank, check_count
from ptychodus_torch_plugin.sharding import Shard

HOW_TO_START = (
    'Start them with TF_CONFIG in the environment of each, with srun, or with train --devices.'
)
FIRST_PORT, PORTS, JOBS = 16384, 8, 2000
"""A SLURM job gets PORTS of JOBS ranges of ports, below those that systems hand out themselves."""


def check_devices(execution: ExecutionConfig, rank: Rank) -> None:
    """Raise `ConfigError` if the processes are not those asked for, or share in a wrong way."""
    if execution.strategy != 'auto':
        raise ConfigError(
            f'strategy = {execution.strategy!r} is not known to the TensorFlow backend; expected '
            "'auto', which is MultiWorkerMirroredStrategy where there are several processes."
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

    def __init__(
        self, rank: Rank = ALONE, should_stop: ShouldStop = never_stop, strategy: Any = None
    ) -> None:
        self.rank, self.shard = rank, Shard(rank.index, rank.count)
        self._should_stop, self._strategy = should_stop, strategy
        self._known: bool | None = None
        self._sum = tf.function(self.summed_tensors, autograph=False)

    def summed_tensors(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums of tensors over all ranks; call it inside a `tf.function`."""
        if self.rank.alone:
            return list(tensors)

        def reduced(values: list[Tensor]) -> Any:
            here = [tf.identity(value) for value in values]
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)

        return list(self._strategy.run(reduced, args=(list(tensors),)))

    def summed(self, *values: float) -> list[float]:
        """Return the sums of values over all ranks."""
        if self.rank.alone:
            return list(values)
        [sums] = self._sum([tf.constant(values, tf.float64)])
        return [float(each) for each in sums.numpy()]

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


@contextmanager
def team(rank: Rank, should_stop: ShouldStop) -> Iterator[Team]:
    """Give the team, connected; TensorFlow must not have computed in this process before.

    Raises
    ------
    ConfigError
        If the peers cannot be found.
    TrainingError
        If another process ended.
    """
    if rank.alone:
        yield Team(rank, should_stop)
        return
    try:
        yield Team(rank, should_stop, _strategy(rank))
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise TrainingError(
            f'{rank} lost the other processes of this training: one of them has ended; expected '
            'all of them to the end. Look at its own message.'
        ) from error


@cache
def _strategy(rank: Rank) -> Any:
    """Return the strategy of this process, which can be made once."""
    gpus = tf.config.list_physical_devices('GPU')
    if len(gpus) > 1:
        gpus = [gpus[rank.local_index % len(gpus)]]
        tf.config.set_visible_devices(gpus, 'GPU')
    resolver = _resolver(rank, len(gpus))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise TrainingError(
            f'{rank} cannot connect to the others ({str(error).strip().rstrip(".")}); expected a '
            'process in which TensorFlow has computed nothing yet. Train in a fresh one.'
        ) from error


def _resolver(rank: Rank, n_gpus: int) -> Any:
    """Return what tells TensorFlow the addresses of all processes."""
    resolvers = tf.distribute.cluster_resolver
    if os.environ.get(TF_CONFIG):
        return resolvers.TFConfigClusterResolver()
    if rank.source != 'srun':
        raise ConfigError(
            f'{rank.source} started {rank.count} processes, but TensorFlow does not find its peers '
            f'by it; expected TF_CONFIG or srun. {HOW_TO_START}'
        )
    job = int(os.environ.get('SLURM_JOB_ID', '0'))
    # It wants a GPU for each task; which ones there are, is decided above.
    spec = resolvers.SlurmClusterResolver(
        port_base=FIRST_PORT + PORTS * (job % JOBS),
        gpus_per_node=rank.local_count,
        gpus_per_task=1,
        auto_set_gpu=False,
    ).cluster_spec()
    return resolvers.SimpleClusterResolver(
        spec,
        task_type='worker',
        task_id=rank.index,
        rpc_layer='grpc',
        num_accelerators={'GPU': n_gpus},
    )
