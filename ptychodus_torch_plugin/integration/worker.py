"""The process in which the framework computes.

It is started by `child` as a module with an address, gets one job, tells how it goes, and ends.  If
Ptychodus ends first, it ends too.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from multiprocessing.connection import Client, Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptychodus_torch_plugin.integration.messages import Message


class Line:
    """The line to Ptychodus.

    Attributes
    ----------
    stop_requested
        Set when the user wants to stop.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.stop_requested = threading.Event()

    def tell(self, message: Message) -> None:
        """Send a message."""
        with self._sending:
            self._connection.send(message)

    def watch(self) -> None:
        """Wait for the wish to stop; end the process when nobody is there any more."""
        while True:
            try:
                self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            self.stop_requested.set()


class _Teller(logging.Handler):
    """Sends the log of the package."""

    def __init__(self, line: Line) -> None:
        super().__init__(logging.INFO)
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        from ptychodus_torch_plugin.integration.messages import Said

        self._line.tell(Said(record.levelno, record.getMessage()))


def main() -> None:
    """Connect, do the job, and report."""
    key = bytes.fromhex(sys.stdin.readline())
    with Client(_address(*sys.argv[1:]), authkey=key) as connection:
        job = connection.recv()
        line = Line(connection)
        threading.Thread(target=line.watch, daemon=True).start()
        logger = logging.getLogger('ptychodus_torch_plugin')
        logger.setLevel(logging.INFO)
        logger.addHandler(_Teller(line))
        from ptychodus_torch_plugin.integration import jobs
        from ptychodus_torch_plugin.integration.messages import Failed

        try:
            finished = jobs.do(job, line.tell, line.stop_requested.is_set)
        except BaseException as error:  # noqa: BLE001, RUF100 - whatever it is, it is told
            text = ' '.join(str(error).split())
            line.tell(Failed(_kind_of(error), text, traceback.format_exc()))
        else:
            line.tell(finished)
        # What frameworks have still running is of no interest any more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _address(name: str, port: str = '') -> str | tuple[str, int]:
    return (name, int(port)) if port else name


def _kind_of(error: BaseException) -> str:
    """Return the class of `errors` that it belongs to, or its own."""
    from ptychodus_torch_plugin import errors

    kinds = [kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    return kinds[0].__name__ if kinds else type(error).__name__


if __name__ == '__main__':
    main()
