"""A training from its first check to its result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptychodus_torch_plugin.backends.protocol import OnEvent, ShouldStop, TrainingResult
from ptychodus_torch_plugin.backends.tensorflow.checkpoints import (
    Checkpoints,
    read_last,
    remove_checkpoints,
)
from ptychodus_torch_plugin.backends.tensorflow.cnn_training import CnnTraining
from ptychodus_torch_plugin.backends.tensorflow.devices import (
    choose_device,
    determinism,
    full_float32,
    precision,
    threads,
)
from ptychodus_torch_plugin.backends.tensorflow.loggers import check_logger, loggers
from ptychodus_torch_plugin.backends.tensorflow.model import TensorFlowModel
from ptychodus_torch_plugin.backends.tensorflow.processes import check_devices, team
from ptychodus_torch_plugin.backends.tensorflow.quiet import quiet_tensorflow
from ptychodus_torch_plugin.backends.tensorflow.training import Task, Training
from ptychodus_torch_plugin.backends.tensorflow.unrolled_training import UnrolledTraining
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
    model: TensorFlowModel,
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
        quiet_tensorflow(),
        full_float32(),
        determinism(execution, device),
        team(rank, should_stop) as processes,
        tf.device(device),
        _folder(keep, rank) as folder,
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
            log,
            optimizer or {},
            processes,
        )
        identity = fingerprint(model.config, scans, training, execution, rank.count)
        if resume:
            read_last(folder, identity)  # it fails before the work begins
        elif rank.first:
            remove_checkpoints(folder)
        try:
            module = TRAININGS[model.config.architecture].prepare(task)
        except StopRequested:
            return TrainingResult(model, history=(), best_epoch=None, stopped='request')
        writes = execution.enable_checkpointing and rank.first
        checkpoints = Checkpoints(folder, identity, module.monitor, log, execution, writes=writes)
        with precision(model.network, execution):
            _run(task, module, checkpoints, log_dir, resume=resume)
        return _result(model, module, checkpoints, log, execution)


def _run(
    task: Task, module: Training, checkpoints: Checkpoints, log_dir: Path | None, *, resume: bool
) -> None:
    """Train epoch by epoch until the end, the user's wish, or the end of patience."""
    execution, log = task.execution, task.log
    if not task.team.rank.first:
        execution, log_dir = execution.model_copy(update={'enable_progress_bar': False}), None
    module.begin()
    first = checkpoints.resume(module) if resume else 0
    log.start()
    with loggers(execution, log_dir, task.network, log.epochs) as callbacks:
        for epoch in range(first, log.epochs):
            if log.impatient(module.monitor, execution):
                break
            callbacks.on_epoch_begin(epoch)
            loss, validation_loss = module.train(epoch, callbacks), module.validate()
            log.close(epoch, loss, validation_loss)
            checkpoints.save(module, epoch)
            known = {} if validation_loss is None else {'val_loss': validation_loss}
            callbacks.on_epoch_end(epoch, {'loss': loss, **known})
            if log.stop_requested:
                break


def _result(
    model: TensorFlowModel,
    module: Training,
    checkpoints: Checkpoints,
    log: TrainingLog,
    execution: ExecutionConfig,
) -> TrainingResult:
    """Give the model the weights of its best epoch, if one was completed."""
    optimizer = module.adam.moments()
    if checkpoints.best is not None:
        module.set_state(checkpoints.best)
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
