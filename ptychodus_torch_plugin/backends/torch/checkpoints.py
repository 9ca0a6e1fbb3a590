"""Checkpoints of a training: the best weights, and the point from which a killed run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L  # noqa: N812 - Lightning's own convention
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ptychodus_torch_plugin.backends.torch.reporter import Reporter
from ptychodus_torch_plugin.backends.training_log import TrainingLog
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import TrainingError

BEST, LAST, STOPPED = 'best', 'last', 'stopped'


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best weights; those of a stopped epoch apart, for resuming repeats that epoch."""

    def __init__(self, log: TrainingLog, **settings: Any) -> None:
        super().__init__(**settings)
        self._log = log

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._log.stop_requested:
            super().on_train_epoch_end(trainer, pl_module)
            return
        loss, best = trainer.callback_metrics[str(self.monitor)], self.best_model_score
        if best is None or (loss < best if self.mode == 'min' else loss > best):
            self.best_model_path = str(Path(str(self.dirpath)) / f'{STOPPED}.ckpt')
            trainer.save_checkpoint(self.best_model_path, weights_only=True)


class LastCheckpoint(ModelCheckpoint):
    """Saves after every whole epoch; one that was stopped half-way is repeated on resuming."""

    def __init__(self, log: TrainingLog, **settings: Any) -> None:
        super().__init__(**settings)
        self._log = log

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._log.stop_requested:
            super().on_train_epoch_end(trainer, pl_module)


def checkpoints(
    folder: Path, monitor: str, log: TrainingLog, execution: ExecutionConfig
) -> list[ModelCheckpoint]:
    """Return the callback for the best weights, first, and the one for resuming."""
    common: dict[str, Any] = {
        'dirpath': folder,
        'enable_version_counter': False,
        'save_on_train_epoch_end': True,
    }
    callbacks: list[ModelCheckpoint] = []
    if execution.checkpoint_save_top_k:
        one = execution.checkpoint_save_top_k == 1
        best = BestCheckpoint(
            log,
            filename=BEST if one else f'{BEST}-{{epoch}}',
            monitor=monitor,
            mode=execution.checkpoint_mode,
            save_top_k=execution.checkpoint_save_top_k,
            **common,
        )
        callbacks.append(best)
    if execution.enable_checkpointing:
        callbacks.append(LastCheckpoint(log, filename=LAST, **common))
    return callbacks


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of an earlier run from `folder`."""
    for pattern in (f'{BEST}*', LAST, STOPPED):
        for file in folder.glob(f'{pattern}.ckpt'):
            file.unlink()


def resume_point(folder: Path, fingerprint: str) -> Path:
    """Return the checkpoint to go on from.

    Raises
    ------
    TrainingError
        If there is none, if it cannot be read, or if it belongs to other data or settings.
    """
    last = folder / f'{LAST}.ckpt'
    if not last.is_file():
        raise TrainingError(
            f'{last} does not exist, so there is nothing to resume; expected the checkpoint of an '
            'interrupted run. Train without resume first.'
        )
    try:
        state = torch.load(last, map_location='cpu', weights_only=True)
        found = state['callbacks'][Reporter.__qualname__]['fingerprint']
    except Exception as error:
        raise TrainingError(
            f'{last} cannot be read ({type(error).__name__}: {error}); expected the checkpoint of '
            'an interrupted run. Train without resume.'
        ) from error
    if found != fingerprint:
        raise TrainingError(
            f'{last} belongs to another run: its data or settings differ from the ones given now. '
            'Resume with the same scans and settings, or start in a new folder.'
        )
    return last
