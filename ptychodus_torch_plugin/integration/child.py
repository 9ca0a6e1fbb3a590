"""The process in which the framework computes, seen from Ptychodus.

It is started afresh (`worker`), so that Ptychodus never holds a framework, nor a GPU, and nothing
of the program that uses Ptychodus runs twice.  Its death, by whatever cause, ends the wait at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Listener
from types import TracebackType
from typing import IO, Self

from ptychodus_torch_plugin import errors
from ptychodus_torch_plugin.errors import PluginError
from ptychodus_torch_plugin.integration.messages import Failed, Finished, Job, Message, Stop

WORKER = 'ptychodus_torch_plugin.integration.worker'
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_STOP = 10.0
"""How long a process may take to end well; then it is ended."""
LINES_OF_STDERR = 5


class ChildError(PluginError, RuntimeError):
    """The process of the framework failed by no error of this package, or died."""


class Child:
    """A process that does one job.

    Use it as a context: on the way out the process is gone, whatever happened.
    """

    def __init__(self) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        key = secrets.token_bytes(32)
        self._listener = Listener(authkey=key)
        self._process = subprocess.Popen(
            [sys.executable, '-m', WORKER, str(self._listener.address)],
            stdin=subprocess.PIPE,
            stdout=self._stderr,
            stderr=self._stderr,
            env=_environment(),
        )
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead already, which is seen below
            self._process.stdin.write(key.hex().encode() + b'\n')
            self._process.stdin.flush()
        self._connection: Connection | None = None
        self._begun = False
        self._deadline: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
        self._stderr.close()

    @property
    def process_id(self) -> int:
        """Number of the process."""
        return self._process.pid

    def run(self, job: Job, should_stop: Callable[[], bool]) -> Iterator[Message]:
        """Do a job and yield what the process says, ending with `Finished`.

        A wish to stop is passed on; the process then ends well, or is ended after a while.

        Raises
        ------
        PluginError
            As the process raised it; `ChildError` for any other error, and if it died.
        """
        try:
            connection = self._connect(should_stop)
            if connection is None:
                yield Finished(stopped=True)
                return
            connection.send(job)
            yield from self._listen(connection, should_stop)
        except (EOFError, ConnectionError, BrokenPipeError):
            raise self._died() from None

    def _connect(self, should_stop: Callable[[], bool]) -> Connection | None:
        accepted: list[Connection] = []
        # Nobody may ever call: then this thread waits in vain, and ends with Ptychodus.
        thread = threading.Thread(
            target=lambda: accepted.append(self._listener.accept()), daemon=True
        )
        thread.start()
        while not accepted:
            thread.join(SECONDS_BETWEEN_LOOKS)
            if not accepted and should_stop():
                return None
            if not accepted and self._process.poll() is not None:
                raise self._died()
        self._connection = accepted[0]
        return self._connection

    def _listen(self, connection: Connection, should_stop: Callable[[], bool]) -> Iterator[Message]:
        while True:
            if should_stop():
                if not self._begun:  # it still loads the framework, and has nothing to lose
                    yield Finished(stopped=True)
                    return
                self._ask_to_stop(connection)
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise ChildError(
                    f'the computation did not end within {SECONDS_TO_STOP:g} s of the wish to '
                    'stop, and was ended. Start it again with the same input, and it goes on from '
                    'the last complete epoch.'
                )
            if not connection.poll(SECONDS_BETWEEN_LOOKS):
                continue
            message: Message = connection.recv()
            if isinstance(message, Failed):
                raise _error(message)
            self._begun = True
            yield message
            if isinstance(message, Finished):
                return

    def _ask_to_stop(self, connection: Connection) -> None:
        if self._deadline is None:
            connection.send(Stop())
            self._deadline = time.monotonic() + SECONDS_TO_STOP

    def end(self) -> Finished | None:
        """Let the job end well, for nobody listens any more; return how it ended, if it did."""
        if self._connection is None:
            return None
        with contextlib.suppress(PluginError, OSError, EOFError):
            for message in self._listen(self._connection, lambda: True):
                if isinstance(message, Finished):
                    return message
        return None

    def _died(self) -> ChildError:
        code = self._process.wait()
        how = f'was killed by signal {-code}' if code < 0 else f'ended with code {code}'
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors='replace').strip().splitlines()
        said = ' | '.join(lines[-LINES_OF_STDERR:])
        return ChildError(
            f'the process that computes {how}'
            + (' (out of memory, perhaps)' if code == -9 else '')
            + '. Start it again with the same input, and it goes on from the last complete epoch.'
            + (f' It said: {said}' if said else '')
        )


def _error(failure: Failed) -> PluginError:
    kind = getattr(errors, failure.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, PluginError)):
        return ChildError(f'{failure.kind}: {failure.text}\n{failure.traceback}')
    error: PluginError = kind(failure.text)
    return error


def _environment() -> dict[str, str]:
    """Return the environment of the process: the same modules are found, and idle threads sleep."""
    paths = [path for path in sys.path if path]
    return {
        'OMP_WAIT_POLICY': 'PASSIVE',
        **os.environ,
        'PYTHONPATH': os.pathsep.join(paths),
    }
