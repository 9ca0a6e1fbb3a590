"""From the events of a backend to what Ptychodus shows: bar, log lines, live object."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping

from ptychodus_torch_plugin.backends.protocol import (
    Progress,
    Reconstruction,
    ShouldStop,
    TrainedModel,
)
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import InferenceConfig, ModelConfig, RunConfig
from ptychodus_torch_plugin.integration.messages import (
    Losses,
    Message,
    Seen,
    Trained,
    Working,
)
from ptychodus_torch_plugin.scan import ScanData

SECONDS_BETWEEN_REPORTS = 0.2
SHARE_OF_PREVIEWS = 0.2
"""Of the time of a training, how much may go into showing the object meanwhile."""

logger = logging.getLogger(__name__)


class Preview:
    """Makes the object that the network of the moment gives, now and then."""

    def __init__(self, scan: ScanData, run: RunConfig, should_stop: ShouldStop) -> None:
        self._scan, self._run, self._should_stop = scan, run, should_stop
        self._calibration = Calibration.of([scan], run.model)
        self._begin = time.monotonic()
        self._spent = 0.0

    def sweeps(self, tell: Callable[[Message], None]) -> None:
        """Show what sweeps alone give, before there is any network."""
        model = self._run.model
        plain = ModelConfig(
            architecture='none',
            N=model.N,
            sweeps=model.sweeps,
            sweeps_before=model.sweeps_before,
            sweeps_after=0,
        )
        trained = get_backend(self._run.backend).build(plain, self._calibration)
        self._show(trained, (), tell)

    def network(self, event: Progress, losses: Losses, tell: Callable[[Message], None]) -> None:
        """Show what the network gives as it is now, unless that would take too much time."""
        elapsed = time.monotonic() - self._begin
        if event.weights is None or self._spent > SHARE_OF_PREVIEWS * elapsed:
            return
        trained = get_backend(self._run.backend).build(self._run.model, self._calibration)
        trained.import_weights(event.weights())
        self._show(trained, losses, tell)

    def _show(self, trained: TrainedModel, losses: Losses, tell: Callable[[Message], None]) -> None:
        begin = time.monotonic()
        inference = self._run.inference.model_copy(update={'held_out_fraction': 0.0})
        try:
            found = self._reconstruct(trained, inference)
        except InterruptedError:
            return
        finally:
            self._spent += time.monotonic() - begin
        tell(Seen.of(found, losses))

    def _reconstruct(self, trained: TrainedModel, inference: InferenceConfig) -> Reconstruction:
        return trained.reconstruct(
            self._scan, inference, self._run.execution, should_stop=self._should_stop
        )


class Watcher:
    """Hears every event of a job and tells what is worth telling.

    Parameters
    ----------
    tell
        Sends a message to Ptychodus.
    shares
        From where to where each phase moves the bar, 0 to 1.
    preview
        Shows the object after an epoch; `None` shows none.
    """

    def __init__(
        self,
        tell: Callable[[Message], None],
        shares: Mapping[str, tuple[float, float]],
        preview: Preview | None = None,
    ) -> None:
        self.tell = tell
        self._shares, self._preview = shares, preview
        self._losses: list[tuple[int, float]] = []
        self._validation_losses: list[tuple[int, float]] = []
        self._last: Progress | None = None
        self._reported = -math.inf

    def __call__(self, event: Progress) -> None:
        """Take note of an event."""
        last, self._last = self._last, event
        if last is None or last.phase != event.phase:
            logger.info('%s', BEGINNINGS[event.phase])
        elif event.phase == 'train' and event.epoch > last.epoch:
            self._close(last, event)
        if event.phase == 'train' and event.done == event.total:
            self._close(event, event)
        self._report(event)

    def _report(self, event: Progress) -> None:
        now = time.monotonic()
        if now - self._reported < SECONDS_BETWEEN_REPORTS and event.done < event.total:
            return
        self._reported = now
        low, high = self._shares[event.phase]
        self.tell(Working(low + (high - low) * event.done / max(event.total, 1)))

    def _close(self, last: Progress, event: Progress) -> None:
        """Tell of an epoch whose last event is `last`; the validation came after it."""
        self._losses.append((last.epoch, last.loss))
        if event is not last and math.isfinite(event.validation_loss):
            self._validation_losses.append((last.epoch, event.validation_loss))
        logger.info('%s', describe(last, event))
        self.tell(Trained(tuple(self._losses), tuple(self._validation_losses)))
        if self._preview is not None and event is not last:
            self._preview.network(event, tuple(self._losses), self.tell)


BEGINNINGS = {
    'prepare': 'preparing: sweeps before the training',
    'train': 'training',
    'reconstruct': 'reconstructing',
}


def describe(last: Progress, event: Progress) -> str:
    """Return a line about an epoch."""
    parts = [f'epoch {last.epoch}/{last.epochs}', f'loss {last.loss:.4g}']
    if event is not last and math.isfinite(event.validation_loss):
        parts.append(f'validation {event.validation_loss:.4g}')
    if math.isfinite(last.patterns_per_s):
        parts.append(f'{last.patterns_per_s:.0f} patterns/s')
    if last.remaining_s > 0:
        minutes, seconds = divmod(round(last.remaining_s), 60)
        parts.append(f'{minutes}:{seconds:02d} min left')
    return ', '.join(parts)
