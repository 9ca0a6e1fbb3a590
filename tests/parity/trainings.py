"""The same training in either backend, from the same weights, with all that it saw on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.backends.tensorflow import cnn as tf_cnn
from ptychodus_torch_plugin.backends.tensorflow import cnn_training as tf_cnn_training
from ptychodus_torch_plugin.backends.tensorflow import unrolled_training as tf_unrolled
from ptychodus_torch_plugin.backends.tensorflow.data import channels_first
from ptychodus_torch_plugin.backends.torch import cnn as torch_cnn
from ptychodus_torch_plugin.backends.torch import cnn_training as torch_cnn_training
from ptychodus_torch_plugin.backends.torch import unrolled_training as torch_unrolled
from ptychodus_torch_plugin.backends.training_log import TrainingLog
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.training_plan import TrainingPlan
from tests.parity.graphs import random_weights

BACKENDS = ('pytorch', 'tensorflow')
BOTH_WAYS = [BACKENDS, BACKENDS[::-1]]


def first_model(
    scans: Sequence[ScanData],
    config: ModelConfig,
    *,
    share: float = 1.0,
    backend: str = 'pytorch',
) -> api.Model:
    """Return a model to start from: random in all weights, times `share`.

    A fresh one would be nearly blind: its dark far field has next to no light in many pixels, where
    the likelihood is as steep as its roundings are large.
    """
    maker = get_backend(backend)
    trained = maker.build(config, Calibration.of(scans, config))
    shapes = {name: array.shape for name, array in trained.export_weights().items()}
    weights = random_weights(shapes)
    trained.import_weights({name: np.array(share * w, 'f4') for name, w in weights.items()})
    return api.Model(maker, trained)


@dataclass
class Course:
    """What a training saw and said, step by step, in NumPy's layout."""

    start: api.Model
    model: api.Model | None = None
    losses: list[float] = field(default_factory=list)
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Epoch, step, steps in the epoch, patterns."""
    batches: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)


def train(
    monkeypatch: Any,
    backend: str,
    scans: Sequence[ScanData],
    start: api.Model,
    training: TrainingConfig,
    execution: ExecutionConfig,
) -> Course:
    """Train on from `start`, and take note of everything."""
    course = Course(start)
    with monkeypatch.context() as patch:
        _watch_steps(patch, course)
        _watch_batches(patch, course)
        course.model = api.train(scans, None, training, execution, backend=backend, start=start)
    return course


def _watch_steps(patch: Any, course: Course) -> None:
    real = TrainingLog.step

    def step(log: Any, epoch: int, number: int, n_steps: int, loss: float, n: int) -> None:
        course.losses.append(loss)
        course.steps.append((epoch, number, n_steps, n))
        real(log, epoch, number, n_steps, loss, n)

    patch.setattr(TrainingLog, 'step', step)


def _watch_batches(patch: Any, course: Course) -> None:
    """Write down every batch as the backend has it, and every prepared view."""

    def watched(real: Any, note: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            note(result)
            return result

        return call

    def of_groups(batch: Any) -> None:
        course.batches.append(
            {
                'scan': int(batch.scan),
                'counts': np.asarray(batch.counts),
                'offsets_px': np.asarray(batch.offsets_px),
                'scored': np.asarray(batch.scored),
                'truth': None if batch.truth is None else np.asarray(batch.truth),
            }
        )

    def of_view(view: Any) -> None:
        names = ('object_', 'photons', 'gauge')
        compared = hasattr(view.scored, 'weight')
        of_score = ('object_', 'weight') if compared else ('probe', 'scale', 'mean_count')
        course.views.append(
            {name: np.asarray(getattr(view, name)) for name in names}
            | {f'scored {name}': np.asarray(getattr(view.scored, name)) for name in of_score}
        )

    for owner, name, note in (
        (tf_cnn_training.CnnTraining, '_tensors', of_groups),
        (torch_cnn_training.GroupData, '__getitem__', of_groups),
        *(
            (framework.Preparation, name, of_view)
            for framework in (tf_unrolled, torch_unrolled)
            for name in ('_scoring_counts', '_scoring_object')
        ),
    ):
        patch.setattr(owner, name, watched(getattr(owner, name), note))

    for framework in (tf_unrolled, torch_unrolled):
        _watch_windows(patch, framework.UnrolledTraining, course)

    real = TrainingPlan.scored_counts

    def scored_counts(plan: Any, view: Any, patterns: Any) -> Any:
        counts = real(plan, view, patterns)
        course.batches.append(
            {'view': (view.scan, view.thinning), 'patterns': patterns, 'counts': counts}
        )
        return counts

    patch.setattr(TrainingPlan, 'scored_counts', scored_counts)


def _watch_windows(patch: Any, owner: Any, course: Course) -> None:
    """Write down which windows of compared objects a backend takes, and how it turns them."""
    real = owner._window

    def window(training: Any, step: Any) -> Any:
        if training._plan.config.compares_objects:
            names = ('view', 'window', 'patterns', 'turn', 'phase_rad')
            course.batches.append({name: getattr(step, name) for name in names})
        return real(training, step)

    patch.setattr(owner, '_window', window)


def watch_inputs(patch: Any) -> list[np.ndarray]:
    """Return a list that gets what either network of 'cnn' sees, (B, C, N, N)."""
    inputs: list[np.ndarray] = []
    real_call, real_forward = tf_cnn.CnnNetwork.call, torch_cnn.CnnNetwork.forward

    def call(network: Any, amplitudes: Any) -> Any:
        inputs.append(channels_first(amplitudes).numpy())
        return real_call(network, amplitudes)

    def forward(network: Any, amplitudes: Any) -> Any:
        inputs.append(amplitudes.numpy().copy())
        return real_forward(network, amplitudes)

    patch.setattr(tf_cnn.CnnNetwork, 'call', call)
    patch.setattr(torch_cnn.CnnNetwork, 'forward', forward)
    return inputs
