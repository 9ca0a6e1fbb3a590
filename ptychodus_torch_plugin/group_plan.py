"""Which groups 'cnn' is trained on, and when: framework-free, so that every backend draws the same.

Patterns are held out spatially interleaved, one in each neighbourhood.  Their neighbours overlap
with them, so the validation loss tests prediction of unseen patterns, not of unseen places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, FloatArray, IndexArray
from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError, TrainingError
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.grouping import Groups, draw_groups, subsample
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sharding import ALONE, Shard
from ptychodus_torch_plugin.stitching import read_patches
from ptychodus_torch_plugin.training_plan import held_out_indices

MAX_REACH = 2.0
"""Largest offset of a pattern from its group's centre, in units of N: groups must be local."""


@dataclass(frozen=True)
class GroupBatch:
    """Groups of one scan that the network sees together.

    Attributes
    ----------
    scan
        Number of the scan.
    indices : (b, C) int64
        Patterns of each group.
    offsets_px : (b, C, 2) float32
        Their positions relative to the centre of the group.
    scored : (b, C) bool
        Which of them the loss looks at.
    weight
        Factor on their mean loss, where ranks share a batch; 0 if they only fill an empty share.
    """

    scan: int
    indices: IndexArray
    offsets_px: FloatArray
    scored: BoolArray
    weight: float = 1.0

    @property
    def n_scored(self) -> int:
        """Number of patterns that count in a mean over an epoch."""
        return int(self.scored.sum()) if self.weight else 0


class GroupPlan:
    """Held-out patterns, groups, and seeded batches of one training run.

    All ranks draw the same; `shard` says which part of each batch is this one's.
    """

    def __init__(
        self,
        scans: Sequence[ScanData],
        model: ModelConfig,
        config: TrainingConfig,
        shard: Shard = ALONE,
    ) -> None:
        self.config = config
        self._scans, self._shard = scans, shard
        self.held_out: list[IndexArray] = []
        self.training: list[Groups] = []
        self.validation: list[Groups | None] = []
        for scan in scans:
            try:
                self._add(scan, model.gridsize)
            except (ConfigError, ScanValueError) as error:
                raise type(error)(f'{scan.name}: {error}') from error
        if config.realspace_mae_weight:
            for scan in scans:
                check_known_object(scan)

    def _add(self, scan: ScanData, gridsize: int) -> None:
        config = self.config
        seen = subsample(scan.n_patterns, config.n_subsample, config.seed)
        known = scan if config.n_subsample is None else scan.subset(seen)
        held = seen[held_out_indices(known, config.held_out_fraction, config.seed)]
        pool = np.setdiff1d(seen, held)
        n_training = n_validation = None
        if config.n_groups is not None:
            check_number(config, len(seen))
            share = max(1, round(config.n_groups * len(held) / len(seen)))
            n_validation = min(share, len(held), config.n_groups - 1)
            n_training = config.n_groups - n_validation
        draw = partial(
            draw_groups,
            scan.positions_px,
            gridsize,
            neighbor_count=config.neighbor_count,
            seed=config.seed,
        )
        training = draw(
            n_groups=n_training,
            sequential=config.sequential_sampling,
            oversample=config.enable_oversampling,
            pool=pool,
        )
        if n_validation == 0:
            held = held[:0]
        validation = draw(n_groups=n_validation, pool=seen, seeds=held) if len(held) else None
        for groups in (training, validation):
            if groups is not None:
                check_reach(scan, groups)
        self.held_out.append(held)
        self.training.append(training)
        self.validation.append(validation)

    @property
    def validated(self) -> bool:
        """Whether any pattern is held out."""
        return any(len(held) for held in self.held_out)

    @property
    def n_px(self) -> int:
        """Side N of the patterns."""
        return self._scans[0].n_px

    @property
    def reach_px(self) -> float:
        """Largest offset of a pattern from its group's centre, over all scans."""
        return max(each.reach_px for each in [*self.training, *self.validation] if each is not None)

    def batches(self, epoch: int) -> list[GroupBatch]:
        """Return the batches of epoch `epoch` (counted from 0) in seeded order."""
        rng = np.random.default_rng([self.config.seed, 1 + epoch])
        batches = [
            batch
            for scan, groups in enumerate(self.training)
            for batch in self._cut(scan, groups, rng.permutation(len(groups.indices)))
        ]
        return [batches[i] for i in rng.permutation(len(batches))]

    def validation_batches(self) -> list[GroupBatch]:
        """Return the groups that score the held-out patterns."""
        return [
            batch
            for scan, groups in enumerate(self.validation)
            if groups is not None
            for batch in self._cut(
                scan, groups, np.arange(len(groups.indices)), self._is_held_out(scan)
            )
        ]

    def _is_held_out(self, scan: int) -> BoolArray:
        """Return for every pattern (n,) of a scan whether it is; batches look up theirs."""
        is_held_out = np.zeros(self._scans[scan].n_patterns, dtype=np.bool_)
        is_held_out[self.held_out[scan]] = True
        return is_held_out

    def _cut(
        self, scan: int, groups: Groups, order: IndexArray, scored: BoolArray | None = None
    ) -> Iterator[GroupBatch]:
        shard, size = self._shard, self.config.batch_size * self._shard.count
        for first in range(0, len(order), size):
            joint = order[first : first + size]
            weight = shard.weight(len(joint))
            rows = joint[shard.rows(len(joint))] if weight else joint[:1]
            indices = groups.indices[rows]
            looked_at = np.ones(indices.shape, bool) if scored is None else scored[indices]
            yield GroupBatch(scan, indices, groups.offsets_px[rows], looked_at, weight)

    def counts(self, batch: GroupBatch) -> FloatArray:
        """Return the patterns (b, C, N, N) float32 of a batch."""
        return self._scans[batch.scan].patterns[batch.indices]

    def truth(self, batch: GroupBatch) -> ComplexArray:
        """Return the known object around every pattern of a batch, (b, C, N, N) complex64."""
        scan = self._scans[batch.scan]
        positions = scan.positions_px[batch.indices].reshape(-1, 2)
        object_, frame = check_known_object(scan)
        return read_patches(object_, positions, scan.n_px, frame).reshape(
            *batch.indices.shape, scan.n_px, scan.n_px
        )


def check_known_object(scan: ScanData) -> tuple[ComplexArray, ObjectFrame]:
    """Return the object of a scan and its frame; `TrainingError` unless it covers the scan."""
    if scan.object_guess is None:
        raise TrainingError(
            f"{scan.name} has no known object, but model_type = 'supervised' or "
            'realspace_mae_weight compares with one; expected a file with an object. Train with '
            "model_type = 'pinn' and realspace_mae_weight = 0."
        )
    height, width = scan.object_guess.shape
    if scan.frame.shape != (height, width) or scan.frame.origin_px != (0, 0):
        raise TrainingError(
            f'{scan.name}: the known object of {height} x {width} px does not cover the scan, '
            f'which needs {scan.frame.shape} px from pixel {scan.frame.origin_px} on; expected an '
            "object around every position. Train with model_type = 'pinn'."
        )
    return scan.object_guess, scan.frame


def check_number(config: TrainingConfig, n_patterns: int) -> None:
    """Raise `ScanValueError` if more groups are wanted than there are patterns to start from."""
    assert config.n_groups is not None
    if config.n_groups > n_patterns and not config.enable_oversampling:
        raise ScanValueError(
            f'n_groups = {config.n_groups}, but there are {n_patterns} patterns to '
            f'start a group from; expected at most {n_patterns}, or enable_oversampling = True, '
            'which starts several groups from a pattern.'
        )


def check_reach(scan: ScanData, groups: Groups) -> None:
    """Raise `ScanValueError` if patterns of a group lie too far apart to have to do with it."""
    if groups.reach_px > MAX_REACH * scan.n_px:
        raise ScanValueError(
            f'patterns of a group lie up to {groups.reach_px:.0f} px from its centre, '
            f'but a pattern sees only {scan.n_px} px; expected neighbours within '
            f'{MAX_REACH * scan.n_px:.0f} px. Remove stray positions, or use gridsize = 1.'
        )
