"""Training of the unrolled network, without labels.

`training_plan` says what is drawn when; here are the sweeps that prepare the views, and the
likelihood of the patterns that the network's object predicts.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ptychodus_torch_plugin.arrays import FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import Progress
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, SweepState, photons_per_pixel
from ptychodus_torch_plugin.backends.torch.training import Task, Training
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork, mean_transmission
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
        tensors = ScanTensors(scan, task.device, self._plan.seen_counts(view), share=share)
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
        scoring = tensors if view.thinning < 0 else ScanTensors(scan, task.device, share=scored)
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


class StepData(Dataset[tuple[Step, FloatArray]]):
    """The steps of one epoch with the counts that each scores."""

    def __init__(self, plan: TrainingPlan, epoch: int) -> None:
        self._plan = plan
        self._steps = plan.steps(epoch)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> tuple[Step, FloatArray]:
        step = self._steps[index]
        return step, self._plan.scored_counts(self._plan.views[step.view], step.patterns)


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

    def patterns_in(self, batch: tuple[Step, FloatArray]) -> int:
        return len(batch[0].patterns)

    def train_dataloader(self) -> DataLoader[tuple[Step, FloatArray]]:
        return self.loader(StepData(self._plan, self.current_epoch))

    def val_dataloader(self) -> list[int]:
        return list(range(len(self._validation_views)))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return batch  # a step names what it needs; `training_step` fetches it

    def training_step(self, batch: tuple[Step, FloatArray], _: int) -> Tensor:
        step, counts = batch
        view = self._training_views[step.view]
        shape = self._plan.window_shape(self._plan.views[step.view].scan)
        object_, photons = view.window(step.window, shape)
        corrected = self.network(object_, photons, view.gauge)
        scored = torch.as_tensor(counts).to(self.device)
        loss = _score(view, corrected, step.window, step.patterns, scored)
        self.log_loss('loss', loss, len(step.patterns) if step.weight else 0)
        return loss * step.weight

    def validation_step(self, batch: int, _: int) -> None:
        view, held_out = self._validation_views[batch]
        corrected = self.network.tiled(view.object_, view.photons, view.gauge)
        for part in np.array_split(held_out, math.ceil(len(held_out) / 64)):
            scored = view.scan.batch_counts(part)
            loss = _score(view, corrected, (0, 0), part, scored)
            self.log_loss('val_loss', loss, len(part))


def _score(
    view: Prepared, object_: Tensor, first: tuple[int, int], chosen: IndexArray, counts: Tensor
) -> Tensor:
    """Return the loss of patterns `chosen` on a part of the canvas that starts at `first`."""
    scan = view.scan
    indices = scan.on_device(chosen)
    corners = scan.corners.index_select(0, indices) - torch.tensor(first, device=scan.device)
    index = physics.patch_index(corners, scan.n_px, object_.shape[1])
    patches = physics.gather_patches(object_, index, scan.n_px)
    intensity = physics.predict_counts(patches, scan.batch_probes(view.probe, indices))
    predicted = scan.with_background(intensity * view.scale)
    return physics.poisson_loss(predicted, counts, scan.valid, view.mean_count)
