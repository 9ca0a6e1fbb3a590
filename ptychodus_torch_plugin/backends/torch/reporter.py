"""The callback between Lightning and whoever watches a training."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning.pytorch as L  # noqa: N812 - Lightning's own convention

from ptychodus_torch_plugin.backends.protocol import EpochRecord, OnEvent, Progress, ShouldStop
from ptychodus_torch_plugin.backends.torch.training import Training
from ptychodus_torch_plugin.errors import TrainingError


class StopRequested(Exception):  # noqa: N818 - it is no error
    """The user asked to stop before there was anything to keep."""


class Reporter(L.Callback):
    """Turns Lightning's hooks into events and history, and takes the wish to stop."""

    def __init__(
        self, fingerprint: str, epochs: int, on_event: OnEvent, should_stop: ShouldStop
    ) -> None:
        self.history: list[EpochRecord] = []
        self.stop_requested = False
        self._fingerprint = fingerprint
        self.epochs, self._on_event, self._should_stop = epochs, on_event, should_stop
        self._start = time.perf_counter()
        self._steps = self._patterns = 0
        self._loss = self._validation_loss = math.nan

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.perf_counter()
        self._steps = self._patterns = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._steps += 1
        assert isinstance(pl_module, Training)
        self._patterns += pl_module.patterns_in(batch)
        loss = float(outputs['loss'])
        _check_finite('loss', loss, f'epoch {trainer.current_epoch + 1}, step {batch_idx + 1}')
        self._loss = loss if math.isnan(self._loss) else 0.9 * self._loss + 0.1 * loss
        per_epoch = int(trainer.num_training_batches)
        done = trainer.current_epoch * per_epoch + batch_idx + 1
        total = self.epochs * per_epoch
        elapsed = time.perf_counter() - self._start
        self._on_event(
            Progress(
                'train',
                done,
                total,
                epoch=trainer.current_epoch + 1,
                epochs=self.epochs,
                loss=self._loss,
                validation_loss=self._validation_loss,
                patterns_per_s=self._patterns / elapsed,
                remaining_s=elapsed / self._steps * (total - done),
            )
        )
        if self._should_stop():
            self.stop_requested = trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        validation = metrics.get('val_loss')
        record = EpochRecord(
            epoch=trainer.current_epoch + 1,
            loss=float(metrics['loss']),
            validation_loss=None if validation is None else float(validation),
        )
        if record.validation_loss is not None:
            _check_finite('validation loss', record.validation_loss, f'epoch {record.epoch}')
            self._validation_loss = record.validation_loss
        self.history.append(record)

    def state_dict(self) -> dict[str, Any]:
        # Plain numbers, so that the checkpoint can be read without executing anything.
        rows = [[r.epoch, r.loss, r.validation_loss] for r in self.history]
        return {'history': rows, 'fingerprint': self._fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [EpochRecord(*row) for row in state_dict['history']]
        if self.history and self.history[-1].validation_loss is not None:
            self._validation_loss = self.history[-1].validation_loss


def _check_finite(name: str, loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f'the {name} became {loss} in {where}; expected a finite number. Lower the learning '
            'rate.'
        )
