"""Training of the unrolled network, without labels.

`training_plan` says what is drawn when; here are the sweeps that prepare the views, and what the
network's object is scored by: another object, or the likelihood of the patterns that it predicts.
"""

from __future__ import annotations

import cmath
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import BoolArray, FloatArray, IndexArray
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
from ptychodus_torch_plugin.object_targets import object_target, target_region
from ptychodus_torch_plugin.sweeps import first_probe, schedule
from ptychodus_torch_plugin.training_plan import Step, TrainingPlan, View
from ptychodus_torch_plugin.visiting import sweeps_before


@dataclass(frozen=True)
class ScoredCounts:
    """How a corrected object becomes counts, and what they are compared with."""

    scan: ScanTensors
    probe: Tensor
    scale: float
    mean_count: float


@dataclass(frozen=True)
class ScoredObject:
    """What a corrected object is compared with; see `object_targets.ObjectTarget`."""

    object_: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Prepared:
    """A view after its sweeps: what the network sees, and what its object is scored by."""

    object_: Tensor
    photons: Tensor
    gauge: Tensor
    scored: ScoredCounts | ScoredObject


class Preparation:
    """Runs the sweeps of all views, once, before training."""

    def __init__(self, task: Task, plan: TrainingPlan) -> None:
        self._task, self._plan = task, plan
        validated = [scan for scan, held in enumerate(plan.held_out) if len(held)]
        swept = [*(view.scan for view in plan.swept_views), *validated]
        self._total = sum(sweeps_before(task.model, task.scans[scan]) for scan in swept)
        self._done = 0
        self._start = time.perf_counter()

    def training(self) -> list[Prepared]:
        """Return what each view of the plan sees."""
        if not self._plan.config.compares_objects:
            return [self._scoring_counts(view) for view in self._plan.views]
        swept = {view: self._swept(view)[1:] for view in self._plan.swept_views}
        regions = [target_region(scan) for scan in self._task.scans]
        return [
            self._scoring_object(
                view, *swept[view], swept[view.other][0].object_, regions[view.scan]
            )
            for view in self._plan.views
        ]

    def validation(self) -> list[tuple[Prepared, IndexArray]]:
        """Return each scan with all its counts but no held-out pattern, and those patterns."""
        return [
            (self._scoring_counts(View(scan)), held)
            for scan, held in enumerate(self._plan.held_out)
            if len(held)
        ]

    def _swept(self, view: View) -> tuple[ScanTensors, SweepState, Tensor]:
        """Return what the sweeps of a view saw, what they made, and the photons on each pixel."""
        task, config = self._task, self._task.model
        scan, pool = task.scans[view.scan], self._plan.pools[view.scan]
        tensors = ScanTensors(scan, self._plan.seen_counts(view), share=view.share)
        probe = first_probe(scan, config.sweeps) * math.sqrt(view.share)
        state = Sweeper(tensors, config.sweeps, pool).run(
            SweepState.start(tensors, probe),
            schedule(config.sweeps, sweeps_before(config, scan)),
            seed=task.training.seed,
            on_sweep=lambda: self._report(len(pool)),
        )
        photons = photons_per_pixel(tensors.exposed(state.exposures), state.probe, pool)
        return tensors, state, photons

    def _scoring_counts(self, view: View) -> Prepared:
        tensors, state, photons = self._swept(view)
        scan, share = self._task.scans[view.scan], 1.0 if view.thinning < 0 else 1 - view.share
        scoring = tensors if view.thinning < 0 else ScanTensors(scan, share=share)
        scored = ScoredCounts(
            scan=scoring.exposed(state.exposures),
            probe=state.probe,
            scale=share / view.share,
            mean_count=tensors.mean_count * share,
        )
        gauge = mean_transmission(state.object_, photons)
        return Prepared(state.object_, photons, gauge, scored)

    def _scoring_object(
        self, view: View, state: SweepState, photons: Tensor, other: Tensor, region: BoolArray
    ) -> Prepared:
        object_ = state.object_
        one, light, another = (x.numpy() for x in (object_, photons, other))
        target = object_target(one, light, another, region, view.share)
        scored = ScoredObject(tf.constant(target.object_), tf.constant(target.weight))
        return Prepared(object_, photons, mean_transmission(object_, photons), scored)

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

    `scale` and `mean_count` are those of `ScoredCounts`.
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


class ComparedTensors(NamedTuple):
    """A window of a view, which the network corrects, and what it is compared with."""

    object_: Tensor
    photons: Tensor
    gauge: Tensor
    target: Tensor
    target_weight: Tensor
    n_patterns: Tensor
    weight: Tensor


class CorrectedTensors(NamedTuple):
    """A whole canvas that the network has corrected, and patterns to score there."""

    object_: Tensor
    scored: Scored


class UnrolledTraining(Training):
    """The network's object, compared with another one, or by the patterns that it predicts."""

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

    def patterns_in(self, batch: WindowTensors | ComparedTensors | CorrectedTensors) -> int:
        if not isinstance(batch, CorrectedTensors) and not batch.weight:
            return 0  # a step that only makes up the number
        if isinstance(batch, ComparedTensors):
            return int(batch.n_patterns)
        return int(batch.scored.corners.shape[0])

    def training_batches(self, epoch: int) -> list[Callable[[], WindowTensors | ComparedTensors]]:
        return [partial(self._training_batch, step) for step in self._plan.steps(epoch)]

    def _training_batch(self, step: Step) -> WindowTensors | ComparedTensors:
        view, of_plan = self._training_views[step.view], self._plan.views[step.view]
        window = self._window(step)
        object_, photons = window(view.object_), window(view.photons)
        weight = tf.constant(step.weight, tf.float32)
        if isinstance(view.scored, ScoredObject):
            target, target_weight = window(view.scored.object_), window(view.scored.weight)
            phase = tf.constant(cmath.exp(1j * step.phase_rad), tf.complex64)
            return ComparedTensors(
                object_ * phase,
                photons,
                view.gauge,
                target * phase,
                target_weight,
                tf.constant(len(step.patterns)),
                weight,
            )
        counts = self._plan.scored_counts(of_plan, step.patterns)
        scored = _scored(view.scored, step.window, step.patterns, counts)
        return WindowTensors(object_, photons, view.gauge, scored, weight)

    def _window(self, step: Step) -> Callable[[Tensor], Tensor]:
        """Return what cuts the window of a step out of a canvas, and turns it."""
        height, width = self._plan.window_shape(self._plan.views[step.view].scan)
        y, x = step.window
        region = (slice(y, y + height), slice(x, x + width))
        return lambda canvas: turned(canvas[region], step.turn)

    def validation_batches(self) -> Iterator[Callable[[], CorrectedTensors]]:
        for view, held_out in self._validation_views:
            assert isinstance(view.scored, ScoredCounts)
            corrected = self.network.tiled(view.object_, view.photons, view.gauge)
            for part in np.array_split(held_out, math.ceil(len(held_out) / 64)):
                yield partial(_validation_batch, view.scored, corrected, part)

    def loss(self, batch: WindowTensors | ComparedTensors) -> Tensor:
        corrected = self.network(batch.object_, batch.photons, batch.gauge)
        if isinstance(batch, ComparedTensors):
            return _distance(corrected, batch.target, batch.target_weight)
        return _score(corrected, batch.scored)

    def validation_loss(self, batch: CorrectedTensors) -> Tensor:
        return _score(batch.object_, batch.scored)


def turned(canvas: Tensor, turn: int) -> Tensor:
    """Return a canvas after so many quarter turns, + 4 for its mirror image."""
    flat = tf.transpose(canvas) if turn % 2 else canvas
    rotated = (flat, flat[::-1], flat[::-1, ::-1], flat[:, ::-1])[turn % 4]
    return rotated[::-1] if turn >= 4 else rotated


def _distance(object_: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of an object that is compared with another one."""
    difference = object_ - target
    square = tf.math.real(difference) ** 2 + tf.math.imag(difference) ** 2
    return tf.reduce_mean(weight * square)


def _validation_batch(
    scored: ScoredCounts, corrected: Tensor, chosen: IndexArray
) -> CorrectedTensors:
    counts = scored.scan.batch_counts(chosen)
    return CorrectedTensors(corrected, _scored(scored, (0, 0), chosen, counts))


def _scored(
    scored: ScoredCounts, first: tuple[int, int], chosen: IndexArray, counts: FloatArray | Tensor
) -> Scored:
    """Return patterns `chosen` on a part of the canvas that starts at `first`."""
    scan = scored.scan
    return Scored(
        probe=scored.probe,
        ramps=scan.batch_ramps(chosen),
        corners=tf.gather(scan.corners, chosen) - tf.constant(first, tf.int64),
        counts=tf.convert_to_tensor(counts),
        valid=scan.valid,
        background=scan.background,
        scale=tf.constant(scored.scale, tf.float32),
        mean_count=tf.constant(scored.mean_count, tf.float32),
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
