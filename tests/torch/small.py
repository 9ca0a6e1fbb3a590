"""Trainings of the reference network so small that an epoch takes a fraction of a second."""

from typing import Any

import numpy as np

from ptychodus_torch_plugin.backends.protocol import TrainingResult
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.scan import ScanData

from . import quick

MODEL = ModelConfig(architecture='cnn', N=64, gridsize=2, n_filters_scale=1)
TRAINING = TrainingConfig(epochs=3, batch_size=4, held_out_fraction=0.2, seed=1)
EXECUTION = ExecutionConfig(accelerator='cpu', learning_rate=2e-3, logger_backend='none')


def model_with(changes: dict[str, Any]) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the model with those of `changes` that it has, and the others."""
    own = {name: value for name, value in changes.items() if name in ModelConfig.model_fields}
    others = {name: value for name, value in changes.items() if name not in own}
    return ModelConfig(**(MODEL.model_dump() | own)), others


def fit(
    scans: ScanData | list[ScanData], *, options: dict[str, Any] | None = None, **changes: Any
) -> TrainingResult:
    """Train a fresh model; `changes` are settings of model, training or execution."""
    model, others = model_with(changes)
    start = {'model': model, 'training': TRAINING, 'execution': EXECUTION}
    return quick.fit(scans, options=options, **start, **others)


def assert_equal_weights(one: TrainingResult, other: TrainingResult) -> None:
    first, second = (result.model.export_weights() for result in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
