"""Training runs so small that an epoch takes a fraction of a second."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptychodus_torch_plugin.backends.protocol import TrainingResult
from ptychodus_torch_plugin.backends.torch import unrolled_training
from ptychodus_torch_plugin.backends.torch.backend import TorchBackend
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    ModelConfig,
    SweepConfig,
    TrainingConfig,
)

MODEL = ModelConfig(
    N=32,
    channels=(4, 8),
    sweeps_before=4,
    sweeps_after=2,
    sweeps=SweepConfig(
        damping_start=0.2,
        damping_end=1.0,
        momentum=0.8,
        settling_sweeps=1,
        batch_size=9,
        refine_probe=True,
    ),
)
TRAINING = TrainingConfig(
    objective='thinned',
    epochs=3,
    patterns_per_step=12,
    window_px=60,
    thinnings=1,
    thinning_fraction=0.5,
    held_out_fraction=0.2,
    seed=1,
)
EXECUTION = ExecutionConfig(
    accelerator='cpu',
    deterministic=True,
    learning_rate=5e-3,
    scheduler='one-cycle',
    gradient_clip_val=1.0,
    early_stop_patience=100,
)


def build(model=MODEL, *, seed=TRAINING.seed):
    """Return a fresh model that nobody asks about an instrument."""
    return TorchBackend().build(model, Calibration(np.ones((1, 32, 32), 'c8'), 1.0), seed=seed)


def changed(training=TRAINING, execution=EXECUTION, **changes):
    """Return both settings with `changes`, each of which belongs to one of them."""
    of_execution = {n: v for n, v in changes.items() if n in ExecutionConfig.model_fields}
    of_training = {n: v for n, v in changes.items() if n not in of_execution}
    return (
        TrainingConfig(**(training.model_dump() | of_training)),
        ExecutionConfig(**(execution.model_dump() | of_execution)),
    )


def fit(scans, *, model=MODEL, training=TRAINING, execution=EXECUTION, options=None, **changes):
    """Train a fresh model; `changes` are those of the training or of the execution settings."""
    training, execution = changed(training, execution, **changes)
    training = training.for_model(model)
    scans = scans if isinstance(scans, list) else [scans]
    backend = TorchBackend()
    built = backend.build(model, Calibration.of(scans, model), seed=training.seed)
    return backend.fit(built, scans, training, execution, **(options or {}))


def same_weights(one: TrainingResult, other: TrainingResult) -> bool:
    first, second = (result.model.export_weights() for result in (one, other))
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


def assert_same_run(resumed, expected):
    assert resumed.history == expected.history
    assert resumed.best_epoch == expected.best_epoch
    assert resumed.stopped == expected.stopped == ''
    assert same_weights(resumed, expected)
    assert resumed.optimizer.keys() == expected.optimizer.keys()
    for name, moment in expected.optimizer.items():
        np.testing.assert_array_equal(resumed.optimizer[name], moment)


@dataclass
class Run:
    """A whole training run and what it reported."""

    result: TrainingResult
    events: list[Any]
    checkpoints: Path


def steps_per_epoch(events):
    return max(e.total for e in events if e.phase == 'train') // TRAINING.epochs


@dataclass
class Scored:
    view: Any
    patterns: np.ndarray
    counts: np.ndarray
    loss: float
    training: bool


def spy(monkeypatch):
    """Write down every call of the likelihood."""
    calls = []
    real = unrolled_training._score

    def score(view, object_, first, chosen, counts):
        loss = real(view, object_, first, chosen, counts)
        calls.append(
            Scored(view, chosen, counts.numpy(), float(loss.detach()), torch.is_grad_enabled())
        )
        return loss

    monkeypatch.setattr(unrolled_training, '_score', score)
    return calls


class PowerCutError(Exception):
    pass


def cut_at(epoch, step, per_epoch):
    def on_event(event):
        if event.phase == 'train' and event.done == (epoch - 1) * per_epoch + step:
            raise PowerCutError

    return on_event
