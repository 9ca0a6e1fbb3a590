"""Who am I among the processes that work together: read from what their launcher told each of them.

Three launchers are known: torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE), SLURM's srun
(SLURM_STEP_NUM_TASKS, SLURM_PROCID, SLURM_LOCALID), and whoever sets TF_CONFIG.  What they say must
not contradict itself or each other: two processes that both believe to be the first one overwrite
each other's files, and one that waits for a process that nobody started waits for ever.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ptychodus_torch_plugin.errors import ConfigError

Source = Literal['alone', 'torchrun', 'srun', 'TF_CONFIG']

TF_CONFIG = 'TF_CONFIG'
WORKERS = ('chief', 'worker')
"""Kinds of tasks in TF_CONFIG that train, in the order of their ranks."""


@dataclass(frozen=True)
class Rank:
    """One of several processes that work together.

    Attributes
    ----------
    index, count
        The rank, from 0, and how many there are.
    local_index, local_count
        The same among the processes of this machine.
    source
        Which launcher said so.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1
    source: Source = 'alone'

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.index == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.count == 1

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.count // self.local_count

    def __str__(self) -> str:
        return f'rank {self.index} of {self.count}'


ALONE = Rank()
"""The only process."""


def own_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """Return which rank this process is; alone, if no launcher said otherwise.

    Parameters
    ----------
    environment
        Environment variables; None takes those of the process.

    Raises
    ------
    ConfigError
        If what a launcher said is incomplete or impossible, or if two of them disagree.
    """
    known = os.environ if environment is None else environment
    torchrun = _torchrun(known)
    # Where srun starts torchrun, once on each machine, only the words of torchrun hold.
    slurm = None if torchrun else _slurm(known)
    found = [each for each in (torchrun, _tensorflow(known), slurm) if each]
    for other in found[1:]:
        if (other.index, other.count) != (found[0].index, found[0].count):
            raise ConfigError(
                f'{found[0].source} says that this process is {found[0]}, but {other.source} says '
                f'{other}; expected the same of both. Remove the variables of one of them.'
            )
    return found[0] if found else ALONE


def check_count(rank: Rank, devices: int, num_nodes: int, *, how: str) -> None:
    """Raise `ConfigError` unless as many processes were started as the settings want.

    Parameters
    ----------
    rank
        What the launcher said.
    devices, num_nodes
        Settings of the execution: processes on each machine, and machines.  1 and 1 take whatever
        was started.
    how
        What starts several processes, for the message.
    """
    if devices * num_nodes in (1, rank.count):
        return
    found = 'this process is alone' if rank.alone else f'{rank.source} started {rank.count}'
    raise ConfigError(
        f'devices = {devices} and num_nodes = {num_nodes} make {devices * num_nodes} processes, '
        f'but {found}; expected as many as that. {how}'
    )


def _torchrun(known: Mapping[str, str]) -> Rank | None:
    if 'RANK' not in known and 'WORLD_SIZE' not in known:
        return None
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')
    return _checked('torchrun', *(_number(known, name, 'torchrun') for name in names))


def _slurm(known: Mapping[str, str]) -> Rank | None:
    # SLURM_NTASKS alone stands in every batch script, which is one process: only srun makes more.
    if 'SLURM_STEP_NUM_TASKS' not in known:
        return None
    index, count, local = (
        _number(known, name, 'srun')
        for name in ('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS', 'SLURM_LOCALID')
    )
    nodes = _number(known, 'SLURM_STEP_NUM_NODES', 'srun')
    if not nodes or count % nodes:
        raise ConfigError(
            f'srun started {count} processes on {nodes} machines; expected as many on each. Use '
            '--ntasks-per-node instead of --ntasks.'
        )
    return _checked('srun', index, count, local, count // nodes)


def _tensorflow(known: Mapping[str, str]) -> Rank | None:
    if not known.get(TF_CONFIG):
        return None
    addresses = workers(known[TF_CONFIG])
    task = _parsed(known[TF_CONFIG])['task']
    kinds = [kind for kind, _, _ in addresses]
    kind, number = task.get('type'), task.get('index')
    ranks = [n for n, (k, i, _) in enumerate(addresses) if (k, i) == (kind, number)]
    if not ranks:
        raise ConfigError(
            f'TF_CONFIG says that this process is {kind!r} number {number!r}, but its cluster has '
            + ', '.join(f'{kinds.count(k)} of type {k!r}' for k in dict.fromkeys(kinds))
            + '; expected one of these, counted from 0.'
        )
    hosts = [address.rpartition(':')[0] for _, _, address in addresses]
    own = hosts[ranks[0]]
    local = hosts.count(own)
    return Rank(ranks[0], len(addresses), hosts[: ranks[0]].count(own), local, 'TF_CONFIG')


def workers(text: str) -> list[tuple[str, int, str]]:
    """Return type, index and address of the processes that TF_CONFIG names, in order of rank.

    Raises
    ------
    ConfigError
        If it is no such text, names other kinds of processes, or one address twice.
    """
    cluster = _parsed(text)['cluster']
    strange = [kind for kind in cluster if kind not in WORKERS]
    if strange or not all(isinstance(each, list) and each for each in cluster.values()):
        raise ConfigError(
            f'TF_CONFIG has the cluster {cluster!r}; expected addresses of {" and ".join(WORKERS)} '
            'alone, as lists that are not empty.'
        )
    found = [
        (kind, index, str(address))
        for kind in WORKERS
        for index, address in enumerate(cluster.get(kind, []))
    ]
    addresses = [address for _, _, address in found]
    twice = {address for address in addresses if addresses.count(address) > 1}
    if twice or len(cluster.get('chief', [])) > 1:
        raise ConfigError(
            f'TF_CONFIG has the cluster {cluster!r}; expected one chief at most, and an address of '
            'its own for each process.'
        )
    return found


def _parsed(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
        if all(isinstance(values[name], dict) for name in ('cluster', 'task')):
            return dict(values)
    except (ValueError, TypeError, KeyError):
        pass
    raise ConfigError(
        f'TF_CONFIG is {text!r}; expected JSON such as '
        '{"cluster": {"worker": ["host0:4000", "host1:4000"]}, "task": {"type": "worker", "index": '
        '0}}.'
    )


def _number(known: Mapping[str, str], name: str, source: str) -> int:
    text = known.get(name, '')
    if not text.isdecimal():
        found = f'{name} is {text!r}' if name in known else f'{name} is missing'
        raise ConfigError(
            f'{found}, although other variables of {source} are set; expected a whole number. '
            f'Start all processes with {source}, or remove its variables.'
        )
    return int(text)


def _checked(source: Source, index: int, count: int, local_index: int, local_count: int) -> Rank:
    """Return a rank that can be."""
    inside = index < count and local_index < local_count
    if not (inside and local_count <= count and count % local_count == 0):
        raise ConfigError(
            f'{source} says that this process is number {index} of {count}, and number '
            f'{local_index} of {local_count} on its machine; expected numbers from 0 below those, '
            'and as many processes on every machine.'
        )
    return Rank(index, count, local_index, local_count, source)
