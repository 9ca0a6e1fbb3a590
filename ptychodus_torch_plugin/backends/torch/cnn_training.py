"""Training of the reference network on groups of patterns, by physics or against a known object.

`group_plan` says which groups are drawn when; here are the loss and its terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.torch.illumination import Illumination, Merged, merge
from ptychodus_torch_plugin.backends.torch.training import Ahead, Task, Training
from ptychodus_torch_plugin.calibration import Calibration, input_scale
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.group_plan import GroupBatch, GroupPlan
from ptychodus_torch_plugin.scan import backgrounds
from ptychodus_torch_plugin.stitching import canvas_px, probe_weight


class GroupTensors(NamedTuple):
    """A batch of groups; see `group_plan.GroupBatch`.

    `counts` is (B, C, N, N) float32, `truth` the known object (B, C, N, N) complex64 or None,
    `side_px` the side of a canvas that holds each group, `n_scored` the number of patterns that
    count in a mean over an epoch.
    """

    scan: int
    counts: Tensor
    offsets_px: Tensor
    scored: Tensor
    truth: Tensor | None
    side_px: int
    weight: float = 1.0
    n_scored: int = 0

    def scored_of(self, x: Tensor) -> Tensor:
        """Return those (n, N, N) of (B, C, N, N) that the loss looks at."""
        # An index by truth values copies, and makes a GPU tell how many there are.
        return x.flatten(0, 1) if self.n_scored == self.scored.numel() else x[self.scored]


class GroupData(Dataset[GroupTensors]):
    """Batches with the patterns that they name."""

    def __init__(self, plan: GroupPlan, batches: list[GroupBatch]) -> None:
        self._plan, self._batches = plan, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> GroupTensors:
        batch, plan = self._batches[index], self._plan
        reach_px = float(np.abs(batch.offsets_px).max())
        return GroupTensors(
            scan=batch.scan,
            counts=torch.from_numpy(plan.counts(batch)),
            offsets_px=torch.from_numpy(batch.offsets_px),
            scored=torch.from_numpy(batch.scored),
            truth=torch.from_numpy(plan.truth(batch)) if plan.config.realspace_mae_weight else None,
            side_px=canvas_px(plan.n_px, reach_px),
            weight=batch.weight,
            n_scored=batch.n_scored,
        )


class CnnTraining(Training):
    """The loss of the patches that the network says, and of the patterns that they predict."""

    network: CnnNetwork
    valid: Tensor
    background: Tensor | None
    weight: Tensor

    def __init__(self, task: Task, plan: GroupPlan) -> None:
        super().__init__(task)
        check_groups(task.network, task.model)
        self._plan = plan
        self._mean_count = [scan.mean_counts() / scan.valid_pixels.sum() for scan in task.scans]
        self._input_scales = [
            input_scale(scan, task.model, task.calibration) for scan in task.scans
        ]
        trainable = task.training.probe_trainable
        self.illumination = Illumination(
            task.scans, task.model, task.calibration, trainable=trainable
        )
        self.network.log_intensity_scale.requires_grad_(task.training.intensity_scale_trainable)
        valid = np.stack([scan.valid_pixels for scan in task.scans]).astype(np.float32)
        self.register_buffer('valid', torch.from_numpy(valid), persistent=False)
        dark = backgrounds(task.scans)
        on_cpu = None if dark is None else torch.from_numpy(dark)
        self.register_buffer('background', on_cpu, persistent=False)
        weight = torch.from_numpy(probe_weight(task.calibration.probe))
        self.register_buffer('weight', weight, persistent=False)

    @classmethod
    def prepare(cls, task: Task) -> CnnTraining:
        return cls(task, GroupPlan(task.scans, task.model, task.training, task.team.shard))

    @property
    def validated(self) -> bool:
        return self._plan.validated

    def patterns_in(self, batch: GroupTensors) -> int:
        return batch.scored.numel()

    def calibration(self) -> Calibration:
        before = super().calibration()
        if not self._task.training.probe_trainable:
            return before
        energy = float(np.sum(np.abs(before.probe) ** 2))
        probe = self.illumination.exported(energy)
        return Calibration(probe, before.mean_counts, probe_trained=True)

    def named_variables(self) -> dict[str, nn.Parameter]:
        probe = self.illumination.shapes[0]
        trained = {'probe': probe} if probe.requires_grad else {}
        return super().named_variables() | trained

    def train_dataloader(self) -> Iterable[GroupTensors]:
        return self._ahead(self._plan.batches(self.current_epoch))

    def val_dataloader(self) -> Iterable[GroupTensors]:
        return self._ahead(self._plan.validation_batches())

    def _ahead(self, batches: list[GroupBatch]) -> Iterable[GroupTensors]:
        loader = self.loader(GroupData(self._plan, batches))
        return loader if self._task.execution.num_workers else Ahead(loader)

    def training_step(self, batch: GroupTensors, _: int) -> Tensor:
        loss = self.loss(batch)
        self.log_loss('loss', loss, batch.n_scored)
        return loss * batch.weight

    def validation_step(self, batch: GroupTensors, _: int) -> None:
        self.log_loss('val_loss', self.loss(batch), batch.n_scored)

    def loss(self, batch: GroupTensors) -> Tensor:
        """Return the weighted sum of the terms."""
        valid = self.valid[batch.scan]
        amplitudes = batch.counts.sqrt() * (valid / self._input_scales[batch.scan])
        patches = self.network(amplitudes) * self.network.intensity_scale
        # The physics stays in single precision, whatever the network runs in.
        with torch.autocast(self.device.type, enabled=False):
            merged = merge(patches, batch.offsets_px, self.weight, batch.side_px)
            return torch.stack(self._terms(batch, patches, merged, valid)).sum()

    def _terms(
        self, batch: GroupTensors, patches: Tensor, merged: Merged, valid: Tensor
    ) -> list[Tensor]:
        config = self._task.training
        terms = []
        if config.nll_weight or config.mae_weight:
            predicted = self.illumination(merged.seen, batch.scan)
            mean_count = self._mean_count[batch.scan]
            rate = batch.scored_of(predicted)
            if self.background is not None:
                rate = rate + self.background[batch.scan]
            compared = rate, batch.scored_of(batch.counts), valid, mean_count
            if config.nll_weight:
                terms.append(config.nll_weight * physics.poisson_loss(*compared))
            if config.mae_weight:
                terms.append(config.mae_weight * physics.amplitude_error(*compared))
        if config.realspace_mae_weight:
            assert batch.truth is not None
            # One patch for the whole group is compared where the patterns see it.
            said = patches if patches.shape == batch.truth.shape else merged.seen
            both = batch.scored_of(said), batch.scored_of(batch.truth)
            error = physics.object_error(*both, self.weight)
            terms.append(config.realspace_mae_weight * error)
        if config.tv_weight:
            terms.append(config.tv_weight * physics.total_variation(merged.center))
        return terms


def check_groups(network: nn.Module, config: ModelConfig) -> None:
    """Raise `ShapeError` unless the network takes the groups that the settings make."""
    taken = getattr(network, 'patterns_per_group', None)
    if taken != config.patterns_per_group:
        raise ShapeError(
            f'the network takes groups of {taken} pattern(s), but gridsize = {config.gridsize} '
            f'makes groups of {config.patterns_per_group}; expected gridsize^2 of both. Build the '
            'network with the gridsize that it is trained with.'
        )
