"""Training of the unrolled network, without labels.

`training_plan` says what is drawn when; here are the sweeps that prepare the views, and the
likelihood of the patterns that the network's object predicts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import Progress
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.backends.tensorflow.sweeps import (
    Sweeper,
    SweepState,
    photons_per_pixel,
)
from ptychodus_torch_plugin.backends.tensorflow.training import Task, Training
from ptychodus_torch_plugin.backends.tensorflow.unrolled import UnrolledNetwork, mean_transmission
from ptychodus_torch_plugin.backends.training_log import StopRequested
from ptychodus_torch_plugin.exposures import most_moved_px
from ptychodus_torch_plugin.sweeps import first_probe, schedule
from ptychodus_torch_plugin.training_plan import Step, TrainingPlan, View


@dataclass(frozen=True)
class Prepared:
    """A view after its sweeps: what the network sees, and how its prediction becomes counts."""

    scan: ScanTensors
    object_: Tensor
    photons: Tensor
    gauge: Tensor
    probe: Tensor
    scale: float
    mean_count: float

    def window(self, first: tuple[int, int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return object and photons inside a window of the canvas."""
        region = (slice(first[0], first[0] + shape[0]), slice(first[1], first[1] + shape[1]))
        return self.object_[region], self.photons[region]


class Preparation:
    """Runs the sweeps of all views, once, before training."""

    def __init__(self, task: Task, plan: TrainingPlan) -> None:
        self._task, self._plan = task, plan
        validated = sum(1 for held in plan.held_out if len(held))
        self._total = (len(plan.views) + validated) * task.model.sweeps_before
        self._done = 0
        self._start = time.perf_counter()

    def training(self) -> list[Prepared]:
        """Return what each view of the plan sees."""
        return [self._prepare(view) for view in self._plan.views]

    def validation(self) -> list[tuple[Prepared, IndexArray]]:
        """Return each scan with all its counts but no held-out pattern, and those patterns."""
        return [
            (self._prepare(View(scan)), held)
            for scan, held in enumerate(self._plan.held_out)
            if len(held)
        ]

    def _prepare(self, view: View) -> Prepared:
        task, config = self._task, self._task.model
        scan, share = task.scans[view.scan], view.share(task.training.thinning_fraction)
        scored = 1.0 if view.thinning < 0 else 1 - share
        tensors = ScanTensors(scan, self._plan.seen_counts(view), share=share)
        pool = self._plan.pools[view.scan]
        probe = first_probe(scan, config.sweeps) * math.sqrt(share)
        sweeper = Sweeper(tensors, config.sweeps, pool)
        state = sweeper.run(
            SweepState.start(tensors, probe),
            schedule(config.sweeps, config.sweeps_before),
            seed=task.training.seed,
            on_sweep=lambda: self._report(len(pool)),
        )
        photons = photons_per_pixel(tensors.exposed(state.exposures), state.probe, pool)
        scoring = tensors if view.thinning < 0 else ScanTensors(scan, share=scored)
        return Prepared(
            scan=scoring.exposed(state.exposures),
            object_=state.object_,
            photons=photons,
            gauge=mean_transmission(state.object_, photons),
            probe=state.probe,
            scale=scored / share,
            mean_count=tensors.mean_count * scored,
        )

    def _report(self, n_patterns: int) -> None:
        log = self._task.log
        if log.should_stop():
            raise StopRequested
        self._done += 1
        elapsed = time.perf_counter() - self._start
        log.on_event(
            Progress(
                'prepare',
                self._done,
                self._total,
                patterns_per_s=n_patterns * self._done / elapsed,
                remaining_s=elapsed / self._done * (self._total - self._done),
            )
        )


class Scored(NamedTuple):
    """What k patterns measured, and how to predict it; corners count from the part of the canvas.

    `scale` and `mean_count` are those of `Prepared`.
    """

    probe: Tensor
    ramps: Tensor | None
    corners: Tensor
    counts: Tensor
    valid: Tensor
    background: Tensor
    scale: Tensor
    mean_count: Tensor


class WindowTensors(NamedTuple):
    """A window of a view, which the network corrects, and patterns to score there."""

    object_: Tensor
    photons: Tensor
    gauge: Tensor
    scored: Scored
    weight: Tensor


class CorrectedTensors(NamedTuple):
    """A whole canvas that the network has corrected, and patterns to score there."""

    object_: Tensor
    scored: Scored


class UnrolledTraining(Training):
    """The likelihood of patterns that the network's object predicts."""

    network: UnrolledNetwork

    def __init__(
        self,
        task: Task,
        plan: TrainingPlan,
        training: list[Prepared],
        validation: list[tuple[Prepared, IndexArray]],
    ) -> None:
        super().__init__(task)
        self._plan = plan
        self._training_views = training
        self._validation_views = validation

    @classmethod
    def prepare(cls, task: Task) -> UnrolledTraining:
        moving_px = most_moved_px(task.model.sweeps)
        plan = TrainingPlan(task.scans, task.training, task.team.shard, moving_px=moving_px)
        preparation = Preparation(task, plan)
        return cls(task, plan, preparation.training(), preparation.validation())

    @property
    def validated(self) -> bool:
        return bool(self._validation_views)

    def patterns_in(self, batch: WindowTensors | CorrectedTensors) -> int:
        repeated = isinstance(batch, WindowTensors) and not batch.weight
        return 0 if repeated else int(batch.scored.corners.shape[0])

    def training_batches(self, epoch: int) -> list[Callable[[], WindowTensors]]:
        return [partial(self._training_batch, step) for step in self._plan.steps(epoch)]

    def _training_batch(self, step: Step) -> WindowTensors:
        view, plan = self._training_views[step.view], self._plan
        of_plan = plan.views[step.view]
        object_, photons = view.window(step.window, plan.window_shape(of_plan.scan))
        counts = plan.scored_counts(of_plan, step.patterns)
        scored = _scored(view, step.window, step.patterns, counts)
        weight = tf.constant(step.weight, tf.float32)
        return WindowTensors(object_, photons, view.gauge, scored, weight)

    def validation_batches(self) -> Iterator[Callable[[], CorrectedTensors]]:
        for view, held_out in self._validation_views:
            corrected = self.network.tiled(view.object_, view.photons, view.gauge)
            for part in np.array_split(held_out, math.ceil(len(held_out) / 64)):
                yield partial(self._validation_batch, view, corrected, part)

    def _validation_batch(
        self, view: Prepared, corrected: Tensor, chosen: IndexArray
    ) -> CorrectedTensors:
        counts = view.scan.batch_counts(chosen)
        return CorrectedTensors(corrected, _scored(view, (0, 0), chosen, counts))

    def loss(self, batch: WindowTensors) -> Tensor:
        corrected = self.network(batch.object_, batch.photons, batch.gauge)
        return _score(corrected, batch.scored)

    def validation_loss(self, batch: CorrectedTensors) -> Tensor:
        return _score(batch.object_, batch.scored)


def _scored(
    view: Prepared, first: tuple[int, int], chosen: IndexArray, counts: FloatArray | Tensor
) -> Scored:
    """Return patterns `chosen` on a part of the canvas that starts at `first`."""
    scan = view.scan
    return Scored(
        probe=view.probe,
        ramps=scan.batch_ramps(chosen),
        corners=tf.gather(scan.corners, chosen) - tf.constant(first, tf.int64),
        counts=tf.convert_to_tensor(counts),
        valid=scan.valid,
        background=scan.background,
        scale=tf.constant(view.scale, tf.float32),
        mean_count=tf.constant(view.mean_count, tf.float32),
    )


def _score(object_: Tensor, scored: Scored) -> Tensor:
    """Return the loss of patterns on a part of the canvas."""
    n_px = scored.probe.shape[-1]
    index = physics.patch_index(scored.corners, n_px, tf.shape(object_)[1])
    patches = physics.gather_patches(object_, index, n_px)
    probes = scored.probe[None]
    if scored.ramps is not None:
        probes = physics.shift_probe(scored.probe, scored.ramps)
    predicted = physics.predict_counts(patches, probes) * scored.scale + scored.background
    return physics.poisson_loss(predicted, scored.counts, scored.valid, scored.mean_count)
