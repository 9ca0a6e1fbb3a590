"""A training from its first check to its result; the only module that `fit` waits for.

It imports Lightning, which takes longer than an inference that does without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as L  # noqa: N812 - Lightning's own convention
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from numpy.typing import NDArray

from ptychodus_torch_plugin.backends.protocol import OnEvent, ShouldStop, TrainingResult
from ptychodus_torch_plugin.backends.torch.checkpoints import (
    checkpoints,
    remove_checkpoints,
    resume_point,
)
from ptychodus_torch_plugin.backends.torch.cnn_training import CnnTraining
from ptychodus_torch_plugin.backends.torch.devices import choose_device, full_float32, threads
from ptychodus_torch_plugin.backends.torch.loggers import check_logger, make_logger
from ptychodus_torch_plugin.backends.torch.model import TorchModel
from ptychodus_torch_plugin.backends.torch.processes import check_devices, team
from ptychodus_torch_plugin.backends.torch.quiet import determinism_restored, quiet_lightning
from ptychodus_torch_plugin.backends.torch.reporter import Reporter
from ptychodus_torch_plugin.backends.torch.training import Task, Training
from ptychodus_torch_plugin.backends.torch.unrolled_training import UnrolledTraining
from ptychodus_torch_plugin.backends.training_log import (
    StopRequested,
    TrainingLog,
    best_epoch,
    fingerprint,
)
from ptychodus_torch_plugin.config import ExecutionConfig, TrainingConfig
from ptychodus_torch_plugin.ranks import Rank, own_rank
from ptychodus_torch_plugin.scan import ScanData

TRAININGS: dict[str, type[Training]] = {'unrolled': UnrolledTraining, 'cnn': CnnTraining}


def fit(
    model: TorchModel,
    scans: Sequence[ScanData],
    training: TrainingConfig,
    execution: ExecutionConfig,
    *,
    checkpoint_dir: Path | None,
    log_dir: Path | None,
    resume: bool,
    optimizer: Mapping[str, NDArray[np.float32]] | None,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> TrainingResult:
    """Train a model that has a network; see `protocol.Backend.fit`."""
    rank = own_rank()
    check_devices(execution, rank)
    check_logger(execution)
    keep = checkpoint_dir if execution.enable_checkpointing else None
    device = choose_device(execution)
    with (
        threads(execution),
        quiet_lightning(),
        determinism_restored(),
        full_float32(),
        _folder(keep, rank) as folder,
        team(rank, device, should_stop) as processes,
    ):
        log = TrainingLog(training.epochs, on_event, processes.stop, model.export_weights)
        assert model.network is not None
        task = Task(
            model.network,
            model.config,
            model.calibration,
            scans,
            training,
            execution,
            device,
            log,
            optimizer or {},
            processes,
        )
        identity = fingerprint(model.config, scans, training, execution, rank.count)
        last = resume_point(folder, identity) if resume else None
        if rank.first and not resume:
            remove_checkpoints(folder)
        try:
            module = TRAININGS[model.config.architecture].prepare(task)
        except StopRequested:
            return TrainingResult(model, history=(), best_epoch=None, stopped='request')
        trainer = _trainer(task, module, folder, log_dir, Reporter(log, identity, processes))
        trainer.fit(module, ckpt_path=last, weights_only=True)
        return _result(model, trainer, module, task)


def _trainer(
    task: Task, module: Training, folder: Path, log_dir: Path | None, reporter: Reporter
) -> L.Trainer:
    execution, training, first = task.execution, task.training, task.team.rank.first
    # The reporter comes first, so that the history is complete in what the checkpoint saves.
    callbacks: list[Callback] = [
        reporter,
        EarlyStopping(
            monitor=module.monitor,
            mode=execution.checkpoint_mode,
            patience=execution.early_stop_patience,
        ),
        *checkpoints(folder, module.monitor, reporter.training_log, execution),
    ]
    return L.Trainer(
        accelerator='cpu' if task.device.type == 'cpu' else 'gpu',
        **task.team.trainer_settings(
            execution.strategy,
            unused=training.probe_trainable and not (training.nll_weight or training.mae_weight),
        ),
        precision=execution.precision,
        deterministic=execution.deterministic,
        max_epochs=training.epochs,
        accumulate_grad_batches=execution.accum_steps,
        gradient_clip_val=execution.gradient_clip_val,
        callbacks=callbacks,
        logger=(make_logger(execution, log_dir) if first else None) or False,
        enable_progress_bar=execution.enable_progress_bar and first,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if module.validated else 0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=folder,
    )


def _result(
    model: TorchModel,
    trainer: L.Trainer,
    module: Training,
    task: Task,
) -> TrainingResult:
    """Give the model the weights of its best epoch, if one was completed."""
    log, execution = task.log, task.execution
    best = getattr(trainer.checkpoint_callback, 'best_model_path', '')
    optimizer = module.moments()
    if best and task.team.rank.first:
        state = torch.load(best, map_location='cpu', weights_only=True)['state_dict']
        module.load_state_dict(state)
    module.cpu()
    task.team.take_from_first(module.state_dict().values())
    model.calibration = module.calibration()
    early = len(log.history) < log.epochs
    return TrainingResult(
        model,
        history=tuple(log.history),
        best_epoch=best_epoch(log.history, module.monitor, execution),
        stopped='request' if log.stop_requested else 'patience' if early else '',
        optimizer=optimizer,
    )


@contextmanager
def _folder(checkpoint_dir: Path | None, rank: Rank) -> Iterator[Path]:
    if checkpoint_dir is not None:
        if rank.first:
            checkpoint_dir.mkdir(parents=True, exist_ok=True)
        yield checkpoint_dir
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
