"""How far work has come, on stderr: bars in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import typer

if TYPE_CHECKING:
    from ptychodus_torch_plugin.backends.protocol import Progress

SECONDS_BETWEEN_LINES = 10.0
PHASES = {
    'prepare': 'Preparing',
    'train': 'Training',
    'reconstruct': 'Reconstructing',
}
NARROWEST_BAR, WIDEST_BAR, TEXT_BESIDE_BAR = 8, 40, 70


class Display(Protocol):
    """Shows work of known length (a call), of counted length, or of unknown length (`busy`)."""

    def __call__(self, event: Progress) -> None:
        """Show an event of a backend."""

    def count(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` things are done."""

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Show that something is under way whose end is not known."""

    def say(self, text: str) -> None:
        """Write a remark without disturbing the bars."""


@contextmanager
def progress_display(*, quiet: bool = False) -> Iterator[Display]:
    """Give the display that fits stderr, or one that shows nothing."""
    if quiet:
        yield _Nothing()
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    width = min(max(console.width - TEXT_BESIDE_BAR, NARROWEST_BAR), WIDEST_BAR)
    bars = Progress(
        TextColumn('{task.description}', markup=False),
        BarColumn(bar_width=width),
        TextColumn('{task.fields[details]}', markup=False),
        console=console,
    )
    with bars:
        yield _Bars(bars)


class _Nothing:
    """Nothing: warnings and errors go their own way."""

    def __call__(self, event: Progress) -> None:
        pass

    def count(self, what: str, done: int, total: int) -> None:
        pass

    def busy(self, what: str) -> AbstractContextManager[None]:  # noqa: ARG002 - see `Display`
        return nullcontext()

    def say(self, text: str) -> None:
        pass


class _Bars:
    """One bar per phase, below each other."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, event: Progress) -> None:
        details = _details(event)
        if event.epochs:
            self._show(event.phase, f'Epoch {event.epoch}/{event.epochs}', event, details)
        else:
            self._show(event.phase, PHASES[event.phase], event, details)

    def _show(self, key: str, description: str, event: Progress, details: list[str]) -> None:
        self._update(key, description, event.done, event.total, '  '.join(details))

    def _update(self, key: str, description: str, done: int, total: int, details: str) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(description, details='', total=total)
        self._bars.update(
            self._tasks[key],
            description=description,
            completed=done,
            total=total,
            details=details,
        )

    def count(self, what: str, done: int, total: int) -> None:
        self._update(what, what, done, total, f'{done}/{total}')

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        task = self._bars.add_task(what, total=None, details='')
        try:
            yield
        finally:
            self._bars.remove_task(task)

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


class _Lines:
    """A line when a phase begins and ends, and every few seconds between."""

    def __init__(self) -> None:
        self._phase = ''
        self._last = -math.inf

    def __call__(self, event: Progress) -> None:
        percent = f'{100 * event.done // event.total} %' if event.total else ''
        epoch = f'epoch {event.epoch}/{event.epochs}' if event.epochs else ''
        parts = [part for part in (epoch, percent, *_details(event)) if part]
        text = f'{PHASES[event.phase]}: {", ".join(parts)}'
        self._line(event.phase, text, finished=event.done == event.total)

    def count(self, what: str, done: int, total: int) -> None:
        self._line(what, f'{what}: {done}/{total}', finished=done == total)

    def _line(self, phase: str, text: str, *, finished: bool) -> None:
        now = time.monotonic()
        if finished or phase != self._phase or now - self._last >= SECONDS_BETWEEN_LINES:
            self._phase, self._last = phase, now
            self.say(text)

    def busy(self, what: str) -> AbstractContextManager[None]:
        self.say(what)
        return nullcontext()

    def say(self, text: str) -> None:
        typer.echo(text, err=True)


def _details(event: Progress) -> list[str]:
    """Return loss, speed and time left, as far as they are known."""
    parts = []
    if math.isfinite(event.loss):
        validation = event.validation_loss
        known = f' (validation {validation:.4g})' if math.isfinite(validation) else ''
        parts.append(f'loss {event.loss:.4g}{known}')
    if math.isfinite(event.patterns_per_s):
        parts.append(f'{event.patterns_per_s:.0f} patterns/s')
    if math.isfinite(event.remaining_s):
        minutes, seconds = divmod(round(event.remaining_s), 60)
        parts.append(f'{minutes}:{seconds:02d} left')
    return parts
