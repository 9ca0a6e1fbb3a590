"""What Lightning says and switches, kept away from the process that trains."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning

CHATTER = (
    # It is not empty because it is the one to resume from.
    'Checkpoint directory .* exists and is not empty',
    # Lightning 2.6 with PyTorch 2.12 and newer.
    r'`isinstance\(treespec, LeafSpec\)` is deprecated',
    # Of DDP, about gradients that lie otherwise in memory than it expects: a copy more, no fault.
    'Grad strides do not match bucket view strides',
)
"""Beginnings of warnings that tell a user nothing."""

CUBLAS_WORKSPACE = 'CUBLAS_WORKSPACE_CONFIG'


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about itself; its warnings about real faults stay."""
    loggers = [logging.getLogger(name) for name in ('lightning.pytorch', 'lightning.fabric')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', PossibleUserWarning)
            for message in CHATTER:
                warnings.filterwarnings('ignore', message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def determinism_restored() -> Iterator[None]:
    """Give back the process-wide switches that Lightning's `deterministic` turns."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(CUBLAS_WORKSPACE)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        os.environ.pop(CUBLAS_WORKSPACE, None)
        if workspace is not None:
            os.environ[CUBLAS_WORKSPACE] = workspace
