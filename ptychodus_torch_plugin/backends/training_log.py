"""What every training tells and remembers, whatever the framework's callbacks look like."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.backends.protocol import (
    EpochRecord,
    OnEvent,
    Progress,
    ShouldStop,
    Weights,
)
from ptychodus_torch_plugin.bundle.weights import check_weights
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.errors import TrainingError
from ptychodus_torch_plugin.scan import ScanData

MEMORY = 0.9
"""Share of the smoothed loss that the next step keeps."""


SLOTS = ('step', 'exp_avg', 'exp_avg_sq')
"""What Adam remembers of each variable; names in bundles are `<slot>/<name>`."""


class StopRequested(Exception):  # noqa: N818 - it is no error
    """The user asked to stop before there was anything to keep."""


class TrainingLog:
    """Turns steps into events and epochs into history, and asks for the wish to stop.

    Attributes
    ----------
    epochs, on_event, should_stop
        As given.
    weights
        Returns the weights as they are now, for whoever watches.
    history
        Losses of the epochs that were completed.
    stop_requested
        Whether the user wants to stop.
    """

    def __init__(
        self,
        epochs: int,
        on_event: OnEvent,
        should_stop: ShouldStop,
        weights: Weights | None = None,
    ) -> None:
        self.history: list[EpochRecord] = []
        self.stop_requested = False
        self.epochs, self.on_event, self.should_stop = epochs, on_event, should_stop
        self.weights = weights
        self._loss = self._validation_loss = math.nan
        self.start()

    def start(self) -> None:
        """Begin to measure speed."""
        self._start = time.perf_counter()
        self._steps = self._patterns = 0

    def step(self, epoch: int, step: int, n_steps: int, loss: float, n_patterns: int) -> None:
        """Take note of a step; epochs and steps count from 0."""
        check_finite('loss', loss, f'epoch {epoch + 1}, step {step + 1}')
        self._steps += 1
        self._patterns += n_patterns
        kept = 0 if math.isnan(self._loss) else MEMORY
        self._loss = loss if kept == 0 else kept * self._loss + (1 - kept) * loss
        done, total = epoch * n_steps + step + 1, self.epochs * n_steps
        elapsed = time.perf_counter() - self._start
        self.on_event(
            Progress(
                'train',
                done,
                total,
                epoch=epoch + 1,
                epochs=self.epochs,
                loss=self._loss,
                validation_loss=self._validation_loss,
                patterns_per_s=self._patterns / elapsed,
                remaining_s=elapsed / self._steps * (total - done),
                weights=self.weights,
            )
        )
        if self.should_stop():
            self.stop_requested = True

    def close(self, epoch: int, loss: float, validation_loss: float | None) -> None:
        """Take note of the end of an epoch, counted from 0."""
        if validation_loss is not None:
            check_finite('validation loss', validation_loss, f'epoch {epoch + 1}')
            self._validation_loss = validation_loss
        self.history.append(EpochRecord(epoch + 1, loss, validation_loss))

    def losses(self, monitor: str) -> list[float]:
        """Return the losses 'loss' or 'val_loss' of the epochs that were completed."""
        return [_monitored(record, monitor) for record in self.history]

    def impatient(self, monitor: str, execution: ExecutionConfig) -> bool:
        """Return whether the monitored loss has not got better for too many epochs."""
        sign = 1 if execution.checkpoint_mode == 'min' else -1
        losses = [sign * loss for loss in self.losses(monitor)]
        if not losses:
            return False
        return len(losses) - 1 - losses.index(min(losses)) >= execution.early_stop_patience

    def rows(self) -> list[list[Any]]:
        """Return the history as plain numbers, which a checkpoint can hold."""
        return [[r.epoch, r.loss, r.validation_loss] for r in self.history]

    def restore(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take over the history of an interrupted run."""
        self.history = [EpochRecord(*row) for row in rows]
        if self.history and self.history[-1].validation_loss is not None:
            self._validation_loss = self.history[-1].validation_loss


def check_finite(name: str, loss: float, where: str) -> None:
    """Raise `TrainingError` if a loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise TrainingError(
            f'the {name} became {loss} in {where}; expected a finite number. Lower the learning '
            'rate.'
        )


def best_epoch(
    history: Sequence[EpochRecord], monitor: str, execution: ExecutionConfig
) -> int | None:
    """Return the epoch, counted from 1, whose weights are kept."""
    if not history:
        return None
    if execution.checkpoint_save_top_k == 0:
        return history[-1].epoch
    losses = [_monitored(record, monitor) for record in history]
    best = np.argmin(losses) if execution.checkpoint_mode == 'min' else np.argmax(losses)
    return history[int(best)].epoch


def _monitored(record: EpochRecord, monitor: str) -> float:
    if monitor == 'loss':
        return record.loss
    assert record.validation_loss is not None
    return record.validation_loss


def check_moments(
    moments: Mapping[str, NDArray[np.float32]], variables: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise `BundleWeightsError` unless there is every slot of every variable, by its shape."""
    expected = {
        f'{slot}/{name}': () if slot == 'step' else shape
        for name, shape in variables.items()
        for slot in SLOTS
    }
    check_weights(moments, expected, source="the optimiser's state")


def fingerprint(
    model: ModelConfig,
    scans: Sequence[ScanData],
    training: TrainingConfig,
    execution: ExecutionConfig,
    processes: int = 1,
) -> str:
    """Return a sha256 of all that decides the course of training."""
    data = [
        (scan.fingerprint(), hashlib.sha256(scan.probe.tobytes()).hexdigest(), scan.frame.shape)
        for scan in scans
    ]
    known = [model.to_json(), training.to_json(), execution.course(), data]
    # Several processes make one step of several batches.
    text = json.dumps([*known, *([processes] if processes > 1 else [])], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
