"""Training of the reference network on groups of patterns, by physics or against a known object.

`group_plan` says which groups are drawn when; here are the loss and its terms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.tensorflow.data import channels_first, channels_last
from ptychodus_torch_plugin.backends.tensorflow.devices import choose_device
from ptychodus_torch_plugin.backends.tensorflow.illumination import Illumination, Merged, merge
from ptychodus_torch_plugin.backends.tensorflow.layers import CanonicalModel
from ptychodus_torch_plugin.backends.tensorflow.training import Task, Training
from ptychodus_torch_plugin.calibration import Calibration, input_scale
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.group_plan import GroupBatch, GroupPlan
from ptychodus_torch_plugin.scan import backgrounds
from ptychodus_torch_plugin.stitching import canvas_px, probe_weight


class GroupTensors(NamedTuple):
    """A batch of groups; see `group_plan.GroupBatch`.

    `counts` is (B, C, N, N) float32, `truth` the known object (B, C, N, N) complex64 or None.
    """

    scan: Tensor
    counts: Tensor
    offsets_px: Tensor
    scored: Tensor
    truth: Tensor | None
    weight: Tensor


class CnnTraining(Training):
    """The loss of the patches that the network says, and of the patterns that they predict."""

    network: CnnNetwork
    threads_ahead = 1

    def __init__(self, task: Task, plan: GroupPlan) -> None:
        super().__init__(task)
        check_groups(task.network, task.model)
        self._plan = plan
        self._device = choose_device(task.execution)
        # One canvas for all groups: each size would be traced anew.
        self._side_px = canvas_px(task.model.N, plan.reach_px)
        per_pixel = [scan.mean_counts() / scan.valid_pixels.sum() for scan in task.scans]
        self._mean_count = tf.constant(per_pixel, tf.float32)
        scales = [input_scale(scan, task.model, task.calibration) for scan in task.scans]
        self._input_scales = tf.constant(scales, tf.float32)
        trainable = task.training.probe_trainable
        self.illumination = Illumination(
            task.scans, task.model, task.calibration, trainable=trainable
        )
        self.network.log_intensity_scale.trainable = task.training.intensity_scale_trainable
        valid = np.stack([scan.valid_pixels for scan in task.scans]).astype(np.float32)
        self.valid = tf.constant(valid)
        dark = backgrounds(task.scans)
        self.background = None if dark is None else tf.constant(dark)
        self.weight = tf.constant(probe_weight(task.calibration.probe))

    @classmethod
    def prepare(cls, task: Task) -> CnnTraining:
        return cls(task, GroupPlan(task.scans, task.model, task.training, task.team.shard))

    @property
    def validated(self) -> bool:
        return self._plan.validated

    def patterns_in(self, batch: GroupTensors) -> int:
        return int(tf.math.count_nonzero(batch.scored)) if batch.weight else 0

    def calibration(self) -> Calibration:
        before = super().calibration()
        if not self._task.training.probe_trainable:
            return before
        energy = float(np.sum(np.abs(before.probe) ** 2))
        probe = self.illumination.exported(energy)
        return Calibration(probe, before.mean_counts, probe_trained=True)

    def named_variables(self) -> dict[str, keras.Variable]:
        trained = {'probe': self.illumination.shapes} if self._task.training.probe_trainable else {}
        return super().named_variables() | trained

    def training_batches(self, epoch: int) -> list[Callable[[], GroupTensors]]:
        return [partial(self._tensors, batch) for batch in self._plan.batches(epoch)]

    def validation_batches(self) -> list[Callable[[], GroupTensors]]:
        return [partial(self._tensors, batch) for batch in self._plan.validation_batches()]

    def _tensors(self, batch: GroupBatch) -> GroupTensors:
        plan = self._plan
        with tf.device(self._device):  # this may be another thread, which knows nothing of it
            return GroupTensors(
                scan=tf.constant(batch.scan),
                counts=tf.constant(plan.counts(batch)),
                offsets_px=tf.constant(batch.offsets_px),
                scored=tf.constant(batch.scored),
                truth=tf.constant(plan.truth(batch)) if plan.config.realspace_mae_weight else None,
                weight=tf.constant(batch.weight, tf.float32),
            )

    def loss(self, batch: GroupTensors) -> Tensor:
        """Return the weighted sum of the terms."""
        valid = tf.gather(self.valid, batch.scan)
        scale = valid / tf.gather(self._input_scales, batch.scan)
        amplitudes = channels_last(tf.sqrt(batch.counts) * scale)
        factor = physics.as_complex(self.network.intensity_scale)
        patches = self.network(amplitudes) * factor
        merged = merge(patches, batch.offsets_px, self.weight, self._side_px)
        return tf.add_n(self._terms(batch, channels_first(patches), merged, valid))

    def _terms(
        self, batch: GroupTensors, patches: Tensor, merged: Merged, valid: Tensor
    ) -> list[Tensor]:
        config, scored = self._task.training, batch.scored
        terms = []
        if config.nll_weight or config.mae_weight:
            predicted = self.illumination(merged.seen, scan=batch.scan)
            mean_count = tf.gather(self._mean_count, batch.scan)
            rate = predicted[scored]
            if self.background is not None:
                rate += tf.gather(self.background, batch.scan)
            compared = rate, batch.counts[scored], valid, mean_count
            if config.nll_weight:
                terms.append(config.nll_weight * physics.poisson_loss(*compared))
            if config.mae_weight:
                terms.append(config.mae_weight * physics.amplitude_error(*compared))
        if config.realspace_mae_weight:
            assert batch.truth is not None
            # One patch for the whole group is compared where the patterns see it.
            said = patches if patches.shape[1] == batch.counts.shape[1] else merged.seen
            error = physics.object_error(said[scored], batch.truth[scored], self.weight)
            terms.append(config.realspace_mae_weight * error)
        if config.tv_weight:
            terms.append(config.tv_weight * physics.total_variation(merged.center))
        return terms


def check_groups(network: CanonicalModel, config: ModelConfig) -> None:
    """Raise `ShapeError` unless the network takes the groups that the settings make."""
    taken = getattr(network, 'patterns_per_group', None)
    if taken != config.patterns_per_group:
        raise ShapeError(
            f'the network takes groups of {taken} pattern(s), but gridsize = {config.gridsize} '
            f'makes groups of {config.patterns_per_group}; expected gridsize^2 of both. Build the '
            'network with the gridsize that it is trained with.'
        )
