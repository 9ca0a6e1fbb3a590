"""Several processes of one command on this machine: what torchrun does, for either backend.

All of them run the same command line; the environment tells each which rank it is (`ranks`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import typer

from ptychodus_torch_plugin.ranks import TF_CONFIG, Rank, check_count

if TYPE_CHECKING:
    from ptychodus_torch_plugin.config import ExecutionConfig

PROGRAM = (sys.executable, '-m', 'ptychodus_torch_plugin')
HOST = '127.0.0.1'
POLL_S = 0.05
GRACE_S = 5.0
"""How long the others may take to end on their own, and again after they were told to."""

HOW_TO_START = (
    'Without them, --devices alone starts processes on this machine. On several machines, start '
    'the command on each with torchrun, or on all with srun.'
)


class ManyProcesses(Exception):  # noqa: N818 - it is no error
    """A command wants to be run by several processes on this machine."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


def check_processes(rank: Rank, execution: ExecutionConfig) -> None:
    """See that as many processes run as the settings want.

    Raises
    ------
    ManyProcesses
        If this one is alone and others are to be started beside it.
    ConfigError
        If others were started than the settings want.
    """
    if rank.alone and execution.devices > 1 and execution.num_nodes == 1:
        raise ManyProcesses(execution.devices)
    check_count(rank, execution.devices, execution.num_nodes, how=HOW_TO_START)


def launch(arguments: Sequence[str], count: int, *, program: Sequence[str] = PROGRAM) -> int:
    """Run a command line by `count` processes; return the exit code of the first that failed, or 0.

    If one fails, the others are ended.  Ctrl-C reaches each of them once.
    """
    command = [*program, *arguments]
    children: list[subprocess.Popen[bytes]] = []
    with _signals_handed_on(children):
        for environment in environments(count):
            # Not in the terminal's group of processes: Ctrl-C would come twice, which kills.
            child = subprocess.Popen(
                command, env={**os.environ, **environment}, start_new_session=True
            )
            children.append(child)
        try:
            return _wait(children)
        finally:
            _end(children)


def environments(count: int) -> list[dict[str, str]]:
    """Return what each of `count` processes on this machine must know of itself and the others."""
    main, *ports = _free_ports(count + 1)
    workers = [f'{HOST}:{port}' for port in ports]
    threads = os.environ.get('OMP_NUM_THREADS', str(max(1, _cpus() // count)))
    return [
        {
            'RANK': str(index),
            'WORLD_SIZE': str(count),
            'LOCAL_RANK': str(index),
            'LOCAL_WORLD_SIZE': str(count),
            'MASTER_ADDR': HOST,
            'MASTER_PORT': str(main),
            TF_CONFIG: json.dumps(
                {'cluster': {'worker': workers}, 'task': {'type': 'worker', 'index': index}}
            ),
            'OMP_NUM_THREADS': threads,
        }
        for index in range(count)
    ]


def _cpus() -> int:
    """Return on how many processors this process may run."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended well, or one has not; return its exit code."""
    while True:
        codes = [child.poll() for child in children]
        failed = [(index, code) for index, code in enumerate(codes) if code]
        if failed:
            index, code = failed[0]
            # A signal's number, as shells tell it.
            code = 128 - code if code < 0 else code
            rank = Rank(index, len(children))
            typer.echo(f'{rank} ended with exit code {code}; the others end, too.', err=True)
            return code
        if all(code == 0 for code in codes):
            return 0
        time.sleep(POLL_S)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let processes end; tell those to that do not, and kill those that do not listen."""
    for how in (None, signal.SIGTERM, signal.SIGKILL):
        for child in children:
            if how is not None and child.poll() is None:
                child.send_signal(how)
        until = time.monotonic() + GRACE_S
        while any(child.poll() is None for child in children) and time.monotonic() < until:
            time.sleep(POLL_S)


@contextmanager
def _signals_handed_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand signals on to the children, who know what to do; a closed terminal ends them."""

    def hand_on(number: int, _: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    def hang_up(*_: object) -> None:
        hand_on(signal.SIGTERM, None)

    handlers: dict[int, Callable[..., None]] = {
        signal.SIGINT: hand_on,
        signal.SIGTERM: hand_on,
    }
    if hasattr(signal, 'SIGHUP'):
        handlers[signal.SIGHUP] = hang_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
