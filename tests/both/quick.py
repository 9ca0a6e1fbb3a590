"""Training runs so small that an epoch takes a fraction of a second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.backends.protocol import Backend, TrainedModel, TrainingResult
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    ModelConfig,
    SweepConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.scan import ScanData

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
STEPS = 6
"""In an epoch on 49 patterns: the 39 that train in steps of 12, for each of two halves."""

CNN = ModelConfig(architecture='cnn', N=64, gridsize=2, n_filters_scale=1)
CNN_TRAINING = TrainingConfig(epochs=3, batch_size=4, held_out_fraction=0.2, seed=1)
CNN_EXECUTION = ExecutionConfig(accelerator='cpu', learning_rate=2e-3, logger_backend='none')


@dataclass(frozen=True)
class Runs:
    """Fresh models of one backend and their trainings, with settings that can be changed.

    `changes` are those of model, training or execution, whichever has a setting of that name.
    """

    backend: Backend
    model: ModelConfig
    training: TrainingConfig
    execution: ExecutionConfig

    def changed(self, changes: Mapping[str, Any]) -> 'Runs':
        known: set[str] = set()
        parts: list[Any] = []
        for part in (self.model, self.training, self.execution):
            own = {n: v for n, v in changes.items() if n in type(part).model_fields}
            known |= own.keys()
            parts.append(type(part)(**(part.model_dump() | own)))
        assert known == changes.keys(), f'no such settings: {changes.keys() - known}'
        return Runs(self.backend, *parts)

    def build(self, scans: Sequence[ScanData] = (), **changes: Any) -> TrainedModel:
        """Return a fresh model, which need not know any instrument."""
        runs = self.changed(changes)
        known = Calibration(np.ones((1, runs.model.N, runs.model.N), np.complex64), 1.0)
        if scans:
            known = Calibration.of(scans, runs.model)
        return self.backend.build(runs.model, known, seed=runs.training.seed)

    def fit(
        self,
        scans: ScanData | list[ScanData],
        *,
        built: TrainedModel | None = None,
        options: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> TrainingResult:
        """Train `built` or a fresh model; `options` are arguments of `Backend.fit`."""
        runs = self.changed(changes)
        scans = scans if isinstance(scans, list) else [scans]
        return self.backend.fit(
            built or runs.build(scans),
            scans,
            runs.training.for_model(runs.model),
            runs.execution,
            **(options or {}),
        )


@dataclass(frozen=True)
class WholeRun:
    """A training that nobody interrupted, and what it reported."""

    result: TrainingResult
    events: list[Any]
    checkpoints: Path


def same_weights(one: TrainingResult, other: TrainingResult) -> bool:
    first, second = (result.model.export_weights() for result in (one, other))
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


def assert_same_arrays(found: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> None:
    assert found is not None
    assert expected is not None
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def assert_same_run(resumed: TrainingResult, expected: TrainingResult) -> None:
    assert resumed.history == expected.history
    assert resumed.best_epoch == expected.best_epoch
    assert resumed.stopped == expected.stopped == ''
    assert_same_arrays(resumed.model.export_weights(), expected.model.export_weights())
    assert_same_arrays(resumed.optimizer, expected.optimizer)
    probes = [result.model.calibration.probe for result in (resumed, expected)]
    np.testing.assert_array_equal(*probes)


class PowerCutError(Exception):
    pass


def cut_at(epoch: int, step: int, per_epoch: int = STEPS):
    """Return a listener that breaks down at a step of an epoch, both counted from 1."""

    def on_event(event):
        if event.phase == 'train' and event.done == (epoch - 1) * per_epoch + step:
            raise PowerCutError

    return on_event
