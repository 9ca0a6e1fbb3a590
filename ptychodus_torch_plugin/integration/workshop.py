"""What all reconstructors of the library share: settings, the wish to stop, the bar, a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ptychodus_torch_plugin.errors import PluginError
from ptychodus_torch_plugin.integration.child import Child
from ptychodus_torch_plugin.integration.messages import (
    Finished,
    Job,
    Message,
    Said,
    Working,
)
from ptychodus_torch_plugin.integration.settings import PluginSettings

GOAL = 100
"""What the bar counts to."""

logger = logging.getLogger('ptychodus_torch_plugin')
"""The library's: what it says stands in the log pane."""


class Workshop:
    """Where jobs are done.

    Attributes
    ----------
    settings
        As in the panel.
    folder
        For models and checkpoints that have no other place.
    should_stop
        Whether the user, or Ptychodus on its way out, wants the work to end.
    on_progress
        Moves the bar: done, and of how much.
    """

    def __init__(self, settings: PluginSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.should_stop: Callable[[], bool] = lambda: False
        self.on_progress: Callable[[int, int], None] = lambda _done, _goal: None

    def run(self, job: Job, on_finish: Callable[[Finished], None]) -> Iterator[Message]:
        """Do a job in a process of its own, and yield what matters beyond bar and log.

        Whoever drops the iterator half-way lets the process end well, with the best so far kept.
        """
        with Child() as child:
            try:
                for message in child.run(job, self.should_stop):
                    self._hear(message, on_finish)
                    if not isinstance(message, Said | Finished):
                        yield message
            except GeneratorExit:
                with suppress(Exception), faults_logged():
                    for message in child.end():
                        self._hear(message, on_finish)
                raise

    def _hear(self, message: Message, on_finish: Callable[[Finished], None]) -> None:
        match message:
            case Said():
                logger.log(message.level, '%s', message.text)
            case Finished():
                on_finish(message)
            case Working():
                self.on_progress(done_of(message), GOAL)


def done_of(message: Working) -> int:
    """Return where the bar stands."""
    return min(int(GOAL * message.share), GOAL)


@contextmanager
def faults_logged() -> Iterator[None]:
    """Say in one sentence what went wrong: Ptychodus itself says it only to its own log."""
    try:
        yield
    except PluginError as error:
        logger.error('%s', error)
        raise
    except Exception as error:
        kind = type(error).__name__
        logger.error('%s: %s. This should not happen: please report it.', kind, error)
        raise
