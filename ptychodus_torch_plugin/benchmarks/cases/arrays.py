"""Steps without a framework: grouping, batches, patches of a known object, stitching."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, PositionArray
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.measuring import Task
from ptychodus_torch_plugin.benchmarks.results import Work
from ptychodus_torch_plugin.benchmarks.scans import make_object, make_scan, positions
from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.group_plan import GroupPlan
from ptychodus_torch_plugin.grouping import draw_groups
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.stitching import Canvas, probe_weight, read_patches

BATCH = 32
"""Patches that come together, as those of a batch do."""

LONG = 100_000
"""Positions from which on nothing is repeated to warm up."""


def grouping(context: Context) -> Iterator[Task]:
    """One group for every position."""
    for gridsize in context.size.gridsizes:
        for n in context.size.positions:
            yield Task(
                'groups',
                {'gridsize': gridsize, 'positions': n},
                partial(draw_groups, positions(n, 64), gridsize),
                Work(amount=n, unit='groups'),
                warm_up=n < LONG,
            )


def preparation(context: Context) -> Iterator[Task]:
    """All that an epoch needs before the network: the plan, its batches, their patterns."""
    for n_px in context.size.sides_px:
        for gridsize in context.size.gridsizes:
            model = ModelConfig(architecture='cnn', N=n_px, gridsize=gridsize)
            for n in context.size.fitting(context.size.patterns, n_px):
                yield Task(
                    'epoch',
                    {'N': n_px, 'gridsize': gridsize, 'patterns': n},
                    partial(_prepare, make_scan(n, n_px), model),
                    Work(amount=n, unit='groups'),
                )


def _prepare(scan: ScanData, model: ModelConfig) -> None:
    plan = GroupPlan([scan], model, TrainingConfig())
    for batch in [*plan.batches(0), *plan.validation_batches()]:
        plan.counts(batch)


def ground_truth(context: Context) -> Iterator[Task]:
    """Patches of a known object at sub-pixel positions: all at once, and as a training asks."""
    for n_px in context.size.sides_px:
        for n in context.size.fitting(context.size.patterns, n_px):
            where = positions(n, n_px)
            object_, frame = make_object(where, n_px)
            for what, batch in (('at once', n), (f'in batches of {BATCH}', BATCH)):
                yield Task(
                    what,
                    {'N': n_px, 'patterns': n},
                    partial(_read, object_, where, n_px, frame, batch),
                    Work(amount=n, unit='patches'),
                )


def _read(
    object_: ComplexArray, where: PositionArray, n_px: int, frame: ObjectFrame, batch: int
) -> None:
    for first in range(0, len(where), batch):
        read_patches(object_, where[first : first + batch], n_px, frame)


def stitching(context: Context) -> Iterator[Task]:
    """Patches at sub-pixel positions onto an object, weighted by the probe."""
    for n_px in context.size.sides_px:
        weight = probe_weight(make_scan(1, n_px).probe)
        for n in context.size.fitting(context.size.patterns, n_px):
            where = positions(n, n_px)
            _, frame = make_object(where, n_px)
            yield Task(
                'object',
                {'N': n_px, 'patterns': n},
                partial(_stitch, where, frame, weight),
                Work(amount=n, unit='patches'),
            )


def _stitch(where: PositionArray, frame: ObjectFrame, weight: FloatArray) -> None:
    patches = np.ones((BATCH, *weight.shape), dtype=np.complex64)
    canvas = Canvas(frame, weight)
    for first in range(0, len(where), BATCH):
        there = where[first : first + BATCH]
        canvas.add(patches[: len(there)], there)
    canvas.finish()
