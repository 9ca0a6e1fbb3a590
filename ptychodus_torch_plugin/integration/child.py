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
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from types import TracebackType
from typing import IO, Self

from ptychodus_torch_plugin import errors
from ptychodus_torch_plugin.errors import PluginError
from ptychodus_torch_plugin.integration.messages import Failed, Finished, Job, Message, Stop

WORKER = 'ptychodus_torch_plugin.integration.worker'
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_STOP = 10.0
"""How long a process may take to end well; then it is ended."""
SECONDS_TO_DIE = 2.0
"""How long a process may live on that has hung up."""
LINES_OF_STDERR = 5
BYTES_OF_STDERR = 2**16
"""At the end of what it printed, however much that is."""


class ChildError(PluginError, RuntimeError):
    """The process of the framework failed by no error of this package, or died."""


class Child:
    """A process that does one job.

    Use it as a context: on the way out the process is gone, whatever happened.
    """

    def __init__(self) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        key = secrets.token_bytes(32)
        self._listener = _listener(key)
        self._process = subprocess.Popen(
            # -P: files of the current folder do not stand in for modules.
            [sys.executable, '-P', '-m', WORKER, *_words(self._listener.address)],
            stdin=subprocess.PIPE,
            stdout=self._stderr,
            stderr=self._stderr,
            env=_environment(),
        )
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead already, which is seen below
            self._process.stdin.write(key.hex().encode() + b'\n')
            self._process.stdin.flush()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
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
        self._end_accepting()
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
        with self._death_told():
            connection = self._connect(should_stop)
            if connection is None:
                yield Finished(stopped=True)
                return
            connection.send(job)
            yield from self._listen(connection, should_stop)

    def _connect(self, should_stop: Callable[[], bool]) -> Connection | None:
        self._accepting.start()
        while self._connection is None:
            self._accepting.join(SECONDS_BETWEEN_LOOKS)
            if self._connection is None and should_stop():
                return None
            if self._connection is None and self._process.poll() is not None:
                raise self._died()
        return self._connection

    def _accept(self) -> None:
        with contextlib.suppress(OSError, EOFError, AuthenticationError):
            self._connection = self._listener.accept()

    def _end_accepting(self) -> None:
        """Call in the place of the process, which may never have done so."""
        if self._accepting.is_alive():
            with contextlib.suppress(OSError):
                Client(self._listener.address).close()
            self._accepting.join()

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

    def end(self) -> Iterator[Message]:
        """Let the job end well, for `run` is not listened to any more; yield as `run` does."""
        if self._connection is not None:
            with self._death_told():
                yield from self._listen(self._connection, lambda: True)

    @contextlib.contextmanager
    def _death_told(self) -> Iterator[None]:
        try:
            yield
        except PluginError:  # some of them are errors of the system, too
            raise
        except (EOFError, OSError):  # the latter, too, if it died half-way through a message
            raise self._died() from None

    def _died(self) -> ChildError:
        try:
            code = self._process.wait(SECONDS_TO_DIE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f'was killed by signal {-code}' if code < 0 else f'ended with code {code}'
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - BYTES_OF_STDERR))
        lines = self._stderr.read().decode(errors='replace').strip().splitlines()
        said = ' | '.join(lines[-LINES_OF_STDERR:])
        return ChildError(
            f'the process that computes {how}'
            + (' (out of memory, perhaps)' if code == -9 else '')
            + '. Start it again with the same input, and it goes on from the last complete epoch.'
            + (f' It said: {said}' if said else '')
        )


def _listener(key: bytes) -> Listener:
    try:
        return Listener(authkey=key)
    except OSError:  # the name of the folder for temporary files is too long for a socket
        return Listener(('127.0.0.1', 0), authkey=key)


def _words(address: str | tuple[str, int]) -> list[str]:
    """Return an address as arguments of a command, as `worker` reads them."""
    return [address] if isinstance(address, str) else [str(part) for part in address]


def _error(failure: Failed) -> PluginError:
    kind = getattr(errors, failure.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, PluginError)):
        other = ChildError(f'{failure.kind}: {failure.text}')
        other.add_note(failure.traceback)  # for the log file; the log pane has one sentence
        return other
    error: PluginError = kind(failure.text)
    return error


def _environment() -> dict[str, str]:
    """Return the environment of the process: the same modules are found, and idle threads sleep."""
    paths = [path or os.curdir for path in sys.path]
    return {
        'OMP_WAIT_POLICY': 'PASSIVE',
        **os.environ,
        'PYTHONPATH': os.pathsep.join(paths),
    }
