"""Options of PtychoPINN that have a successor: understood, with a warning, and not in `--help`."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ptychodus_torch_plugin.cli.execution_options import Accelerator

ACCELERATOR, LOGGER = 'execution.accelerator', 'execution.logger_backend'

logger = logging.getLogger(__name__)

Device = Annotated[Accelerator | None, typer.Option('--device', hidden=True)]
DisableMlflow = Annotated[bool, typer.Option('--disable_mlflow', hidden=True)]


def replace_device(chosen: Mapping[str, Any], device: str | None) -> dict[str, Any]:
    """Return the settings with `--device` as `--accelerator`, which wins if both were given."""
    if device is None:
        return dict(chosen)
    if ACCELERATOR in chosen:
        logger.warning(
            '--device is deprecated, and --accelerator %s wins over --device %s. Leave --device '
            'out.',
            chosen[ACCELERATOR],
            device,
        )
    else:
        logger.warning('--device is deprecated. Use --accelerator %s.', device)
    return {ACCELERATOR: device, **chosen}


def replace_disable_mlflow(chosen: Mapping[str, Any], disable_mlflow: bool) -> dict[str, Any]:
    """Return the settings with `--disable_mlflow` as `--logger none`; `--logger` wins over it.

    It also means `--quiet`, which the commands see to.
    """
    if not disable_mlflow:
        return dict(chosen)
    if LOGGER in chosen:
        logger.warning(
            '--disable_mlflow is deprecated, and --logger %s wins over it. Use --quiet with it.',
            chosen[LOGGER],
        )
    else:
        logger.warning('--disable_mlflow is deprecated. Use --logger none and --quiet.')
    return {LOGGER: 'none', **chosen}
