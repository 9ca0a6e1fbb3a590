"""Ctrl-C: the first one asks long work to end well, the second one ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class Killed(BaseException):
    """The user pressed Ctrl-C twice.

    Not a `KeyboardInterrupt`, which a training framework may take as its own to handle.
    """


class StopRequest:
    """A predicate that becomes true at the first Ctrl-C.

    Parameters
    ----------
    on_request
        Called once, between two steps of the work, when the wish is first seen.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        self._on_request = on_request
        self._asked = self._told = False
        self._previous: Any = signal.SIG_DFL

    def __enter__(self) -> Self:
        # Also where a shell started us with SIGINT ignored: who sends it, means it.
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def __call__(self) -> bool:
        """Return whether the user asked to stop."""
        if self._asked and not self._told:
            self._told = True
            self._on_request()
        return self._asked

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise Killed
        self._asked = True


class StoppedError(Exception):
    """The user stopped the work before there was anything to keep."""
