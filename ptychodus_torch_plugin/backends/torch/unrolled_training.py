"""Training of the unrolled network, without labels.

`training_plan` says what is drawn when; here are the sweeps that prepare the views, and what the
network's object is scored by: another object, or the likelihood of the patterns that it predicts.
"""

from __future__ import annotations

import cmath
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ptychodus_torch_plugin.arrays import BoolArray, FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import Progress
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, SweepState, photons_per_pixel
from ptychodus_torch_plugin.backends.torch.training import Task, Training
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork, mean_transmission
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
        tensors = ScanTensors(scan, task.device, self._plan.seen_counts(view), share=view.share)
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
        scoring = (
            tensors if view.thinning < 0 else ScanTensors(scan, self._task.device, share=share)
        )
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
        one, light, another = (x.cpu().numpy() for x in (object_, photons, other))
        target = object_target(one, light, another, region, view.share)
        scored = ScoredObject(
            *(torch.as_tensor(x, device=object_.device) for x in (target.object_, target.weight))
        )
        return Prepared(object_, photons, mean_transmission(object_, photons), scored)

    def _report(self, n_patterns: int) -> None:
        if self._task.log.should_stop():
            raise StopRequested
        self._done += 1
        elapsed = time.perf_counter() - self._start
        self._task.log.on_event(
            Progress(
                'prepare',
                self._done,
                self._total,
                patterns_per_s=n_patterns * self._done / elapsed,
                remaining_s=elapsed / self._done * (self._total - self._done),
            )
        )


class StepData(Dataset[tuple[Step, FloatArray | None]]):
    """The steps of one epoch with the counts that each scores, if it does."""

    def __init__(self, plan: TrainingPlan, epoch: int) -> None:
        self._plan = plan
        self._steps = plan.steps(epoch)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> tuple[Step, FloatArray | None]:
        step = self._steps[index]
        if self._plan.config.compares_objects:
            return step, None
        return step, self._plan.scored_counts(self._plan.views[step.view], step.patterns)


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

    def patterns_in(self, batch: tuple[Step, FloatArray | None]) -> int:
        return len(batch[0].patterns)

    def train_dataloader(self) -> DataLoader[tuple[Step, FloatArray | None]]:
        return self.loader(StepData(self._plan, self.current_epoch))

    def val_dataloader(self) -> list[int]:
        return list(range(len(self._validation_views)))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return batch  # a step names what it needs; `training_step` fetches it

    def training_step(self, batch: tuple[Step, FloatArray | None], _: int) -> Tensor:
        step, counts = batch
        view = self._training_views[step.view]
        window = self._window(step)
        object_, photons = window(view.object_), window(view.photons)
        if isinstance(view.scored, ScoredObject):
            target, weight = window(view.scored.object_), window(view.scored.weight)
            phase = cmath.exp(1j * step.phase_rad)
            corrected = self.network(object_ * phase, photons, view.gauge)
            loss = _distance(corrected, target * phase, weight)
        else:
            corrected = self.network(object_, photons, view.gauge)
            scored = torch.as_tensor(counts).to(self.device)
            loss = _score(view.scored, corrected, step.window, step.patterns, scored)
        self.log_loss('loss', loss, len(step.patterns) if step.weight else 0)
        return loss * step.weight

    def _window(self, step: Step) -> Callable[[Tensor], Tensor]:
        """Return what cuts the window of a step out of a canvas, and turns it."""
        height, width = self._plan.window_shape(self._plan.views[step.view].scan)
        y, x = step.window
        region = (slice(y, y + height), slice(x, x + width))
        return lambda canvas: turned(canvas[region], step.turn)

    def validation_step(self, batch: int, _: int) -> None:
        view, held_out = self._validation_views[batch]
        assert isinstance(view.scored, ScoredCounts)
        corrected = self.network.tiled(view.object_, view.photons, view.gauge)
        for part in np.array_split(held_out, math.ceil(len(held_out) / 64)):
            counts = view.scored.scan.batch_counts(part)
            loss = _score(view.scored, corrected, (0, 0), part, counts)
            self.log_loss('val_loss', loss, len(part))


def turned(canvas: Tensor, turn: int) -> Tensor:
    """Return a canvas after so many quarter turns, + 4 for its mirror image."""
    rotated = torch.rot90(canvas, turn % 4)
    return rotated.flip(0) if turn >= 4 else rotated


def _distance(object_: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of an object that is compared with another one."""
    difference = torch.view_as_real(object_ - target)
    return (weight * difference.square().sum(-1)).mean()


def _score(
    scored: ScoredCounts,
    object_: Tensor,
    first: tuple[int, int],
    chosen: IndexArray,
    counts: Tensor,
) -> Tensor:
    """Return the loss of patterns `chosen` on a part of the canvas that starts at `first`."""
    scan = scored.scan
    indices = scan.on_device(chosen)
    corners = scan.corners.index_select(0, indices) - torch.tensor(first, device=scan.device)
    index = physics.patch_index(corners, scan.n_px, object_.shape[1])
    patches = physics.gather_patches(object_, index, scan.n_px)
    intensity = physics.predict_counts(patches, scan.batch_probes(scored.probe, indices))
    predicted = scan.with_background(intensity * scored.scale)
    return physics.poisson_loss(predicted, counts, scan.valid, scored.mean_count)
