"""Where losses are shown and logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, util
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError

NEEDS = {'tensorboard': ('tensorboard',), 'mlflow': ('mlflow',)}
"""Packages that a logger needs."""


def check_logger(execution: ExecutionConfig) -> None:
    """Raise `ConfigError` if the package that the logger needs is not installed."""
    packages = NEEDS.get(execution.logger_backend, ())
    if packages and not any(util.find_spec(package) for package in packages):
        raise ConfigError(
            f'logger_backend = {execution.logger_backend!r} needs the package {packages[0]}, which '
            f"is not installed; install it with: pip install {packages[0]}. Or choose 'csv' or "
            "'none'."
        )


@contextmanager
def loggers(
    execution: ExecutionConfig, folder: Path | None, network: keras.Model, epochs: int
) -> Iterator[keras.callbacks.CallbackList]:
    """Give the callbacks of a training; call `check_logger` first."""
    callbacks = keras.callbacks.CallbackList(
        [keras.callbacks.ProgbarLogger(), *_writers(execution, folder)],
        model=network,
        verbose=int(execution.enable_progress_bar),
        epochs=epochs,
        steps=None,
    )
    callbacks.on_train_begin()
    try:
        yield callbacks
    finally:
        callbacks.on_train_end()


def _writers(execution: ExecutionConfig, folder: Path | None) -> list[keras.callbacks.Callback]:
    if folder is None or execution.logger_backend == 'none':
        return []
    version = _new_version(folder)
    match execution.logger_backend:
        case 'csv':
            version.mkdir(parents=True)
            return [keras.callbacks.CSVLogger(version / 'metrics.csv')]
        case 'tensorboard':
            return [TensorBoardScalars(version)]
        case 'mlflow':
            return [MLflowScalars(folder)]


def _new_version(folder: Path) -> Path:
    """Return a folder of its own for each run, as Lightning names them."""
    number = 0
    while (folder / f'version_{number}').exists():
        number += 1
    return folder / f'version_{number}'


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes the losses of each epoch for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        with self._writer.as_default():
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value, step=epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._writer.close()


class MLflowScalars(keras.callbacks.Callback):
    """Writes the losses of each epoch into a folder of MLflow runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        client = import_module('mlflow').MlflowClient(folder.absolute().as_uri())
        found = client.get_experiment_by_name('ptychodus-torch-plugin')
        experiment = (
            found.experiment_id if found else client.create_experiment('ptychodus-torch-plugin')
        )
        self._client, self._run = client, client.create_run(experiment).info.run_id

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._client.set_terminated(self._run)
