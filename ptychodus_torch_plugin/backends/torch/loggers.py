"""Where losses are logged."""

from __future__ import annotations

from importlib import util
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError

NEEDS = {'tensorboard': ('tensorboard', 'tensorboardX'), 'mlflow': ('mlflow',)}
"""Packages, any of which a logger needs."""


def check_logger(execution: ExecutionConfig) -> None:
    """Raise `ConfigError` if the package that the logger needs is not installed."""
    packages = NEEDS.get(execution.logger_backend, ())
    if packages and not any(util.find_spec(package) for package in packages):
        raise ConfigError(
            f'logger_backend = {execution.logger_backend!r} needs the package {packages[0]}, which '
            f"is not installed; install it with: pip install {packages[0]}. Or choose 'csv' or "
            "'none'."
        )


def make_logger(execution: ExecutionConfig, folder: Path | None) -> Logger | None:
    """Return Lightning's logger that writes into `folder`, or None; call `check_logger` first."""
    if folder is None or execution.logger_backend == 'none':
        return None
    match execution.logger_backend:
        case 'csv':
            return CSVLogger(folder.parent, name=folder.name)
        case 'tensorboard':
            return TensorBoardLogger(folder.parent, name=folder.name)
        case 'mlflow':
            return MLFlowLogger('ptychodus-torch-plugin', save_dir=str(folder))
