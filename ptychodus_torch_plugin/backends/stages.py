"""From a scan to an object, stage by stage: the same for every backend, which only computes.

A reconstruction runs all stages over every pattern and then, to measure R honestly, once more
without some.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import OnEvent, Progress, Reconstruction, ShouldStop
from ptychodus_torch_plugin.calibration import Calibration, scan_probe
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.group_plan import check_reach
from ptychodus_torch_plugin.grouping import Groups, draw_groups
from ptychodus_torch_plugin.probes import orthogonalise
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.stitching import Canvas, probe_weight, uniform_weight
from ptychodus_torch_plugin.sweeps import Sweep, schedule, settling_schedule
from ptychodus_torch_plugin.training_plan import held_out_indices

GROUPS_AT_ONCE = 32
"""Groups that a network sees together unless something else is asked for."""

DOSE_RANGE = 2.0
"""By how much the mean counts of a scan may differ from those that 'cnn' was trained on."""

logger = logging.getLogger(__name__)

State = Any
"""Object and probe as a backend keeps them."""


class Engine(Protocol):
    """What a backend computes on one scan, for one model."""

    def start(self, probe: ComplexArray) -> State:
        """Return an empty object under `probe` (m, N, N)."""

    def placed(self, object_: ComplexArray, state: State) -> State:
        """Return `state` with another object (h, w)."""

    def swept(
        self,
        state: State,
        pool: IndexArray,
        sweeps: Sequence[Sweep],
        seed: int,
        on_sweep: Callable[[], None],
    ) -> State:
        """Return the state after sweeps over the patterns `pool`."""

    def corrected(self, state: State, pool: IndexArray) -> State:
        """Return the state after the unrolled network."""

    def patches(self, patterns: FloatArray, offsets_px: FloatArray) -> ComplexArray:
        """Return the patches (g, C, N, N) complex64 that 'cnn' says of groups."""

    def photons(self, state: State, pool: IndexArray) -> FloatArray:
        """Return the photons (h, w) float32 of the patterns `pool` on each object pixel."""

    def r_factor(self, state: State, chosen: IndexArray) -> float:
        """Return sum |sqrt I - sqrt k| / sum sqrt k over valid pixels of patterns `chosen`."""

    def export(self, state: State) -> tuple[ComplexArray, ComplexArray]:
        """Return object (h, w) and probe (m, N, N), complex64."""


@dataclass(frozen=True)
class _Run:
    """Passes through all stages over a pool of patterns."""

    engine: Engine
    config: ModelConfig
    scan: ScanData
    inference: InferenceConfig
    batch_size: int
    report: _Reporter

    def stages(self, probe: ComplexArray, pool: IndexArray) -> Iterator[tuple[str, State]]:
        """Yield the name and the state of each stage."""
        start = self.engine.start(probe)
        for name, state in self._first_stages(start, pool):
            yield name, state
        if count := refining_sweeps(self.config, self.inference):
            last = self._swept(state, pool, settling_schedule(count), self.inference.seed + 1)
            yield f'{name} + {_sweeps(count)}', last

    def _first_stages(self, state: State, pool: IndexArray) -> Iterator[tuple[str, State]]:
        config = self.config
        if config.architecture == 'cnn':
            yield 'network', self.engine.placed(self._predicted(pool), state)
            return
        name = _sweeps(config.sweeps_before)
        plan = schedule(config.sweeps, config.sweeps_before)
        state = self._swept(state, pool, plan, self.inference.seed)
        yield name, state
        if config.architecture == 'unrolled':
            yield f'{name} + network', self.engine.corrected(state, pool)

    def _swept(self, state: State, pool: IndexArray, plan: Sequence[Sweep], seed: int) -> State:
        return self.engine.swept(state, pool, plan, seed, lambda: self.report(self.scan.n_patterns))

    def _predicted(self, pool: IndexArray) -> ComplexArray:
        """Return the object that all patches make, each at its pattern's own position."""
        scan, groups = self.scan, self._groups(pool)
        by_probe = self.inference.patch_weighting == 'probe'
        weight = probe_weight(scan.probe) if by_probe else uniform_weight(scan.n_px)
        canvas = Canvas(scan.frame, weight)
        for first in range(0, len(groups), self.batch_size):
            rows = slice(first, first + self.batch_size)
            indices = groups.indices[rows]
            patterns = scan.patterns[indices] * scan.valid_pixels
            patches = self.engine.patches(patterns, groups.offsets_px[rows])
            positions = scan.positions_px[indices.reshape(-1)]
            canvas.add(patches.reshape(-1, scan.n_px, scan.n_px), positions)
            self.report(indices.size)
        return canvas.finish()[0]

    def _groups(self, pool: IndexArray) -> Groups:
        """Return one group for every pattern of `pool`, filled from the pool."""
        groups = draw_groups(
            self.scan.positions_px,
            self.config.gridsize,
            neighbor_count=self.inference.neighbor_count,
            seed=self.inference.seed,
            pool=pool,
        )
        check_reach(self.scan, groups)
        return groups


def refining_sweeps(config: ModelConfig, inference: InferenceConfig) -> int:
    """Return the number of sweeps after the network."""
    if inference.refine is not None:
        return inference.refine
    return 0 if config.architecture == 'none' else config.sweeps_after


def _sweeps(count: int) -> str:
    return f'{count} sweep' if count == 1 else f'{count} sweeps'


def reconstruct(
    engine: Engine,
    config: ModelConfig,
    calibration: Calibration,
    scan: ScanData,
    inference: InferenceConfig,
    execution: ExecutionConfig,
    *,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> Reconstruction:
    """Reconstruct a scan; see `protocol.TrainedModel.reconstruct`."""
    _warn_of_dose(config, calibration, scan)
    held_out = held_out_indices(scan, inference.held_out_fraction, inference.seed)
    everything = np.arange(scan.n_patterns)
    pools = [everything, np.setdiff1d(everything, held_out)] if len(held_out) else [everything]
    batch_size = execution.inference_batch_size or GROUPS_AT_ONCE
    total = sum(_work(config, inference, len(pool), batch_size) for pool in pools)
    report = _Reporter(total, on_event, should_stop)
    run = _Run(engine, config, scan, inference, batch_size, report)
    probe = scan_probe(scan, config, calibration)

    objects: dict[str, ComplexArray] = {}
    r_fitted: dict[str, float] = {}
    for stage, state in run.stages(probe, everything):
        objects[stage] = engine.export(state)[0]
        r_fitted[stage] = engine.r_factor(state, everything)
        last = state
    r_held_out = {
        name: engine.r_factor(state, held_out)
        for pool in pools[1:]
        for name, state in run.stages(probe, pool)
    }
    object_, modes = engine.export(last)
    return Reconstruction(
        object_=object_,
        probe=orthogonalise(modes),
        occupancy=engine.photons(last, everything),
        frame=scan.frame,
        stage=stage,
        stages=objects,
        r_fitted=r_fitted,
        r_held_out=r_held_out,
        held_out=held_out,
    )


def _work(config: ModelConfig, inference: InferenceConfig, n_groups: int, batch_size: int) -> int:
    """Return the number of reports of one run: sweeps, or batches of groups and sweeps."""
    first = -(-n_groups // batch_size) if config.architecture == 'cnn' else config.sweeps_before
    return first + refining_sweeps(config, inference)


def _warn_of_dose(config: ModelConfig, calibration: Calibration, scan: ScanData) -> None:
    if config.architecture != 'cnn' or config.input_scaling == 'scan':
        return
    trained, found = calibration.mean_counts, scan.mean_counts()
    if not 1 / DOSE_RANGE < found / trained < DOSE_RANGE:
        logger.warning(
            '%s has %.3g counts per pattern, but the model was trained on %.3g: its network has '
            'never seen such amplitudes. Train on scans of this dose.',
            scan.name,
            found,
            trained,
        )


class _Reporter:
    """Reports each sweep and each batch of groups, and stops between two of them."""

    def __init__(self, total: int, on_event: OnEvent, should_stop: ShouldStop) -> None:
        self._total, self._on_event, self._should_stop = total, on_event, should_stop
        self._done, self._patterns, self._start = 0, 0, time.perf_counter()

    def __call__(self, n_patterns: int) -> None:
        if self._should_stop():
            raise InterruptedError('reconstruction was stopped on request')
        self._done += 1
        self._patterns += n_patterns
        elapsed = time.perf_counter() - self._start
        self._on_event(
            Progress(
                'reconstruct',
                self._done,
                self._total,
                patterns_per_s=self._patterns / elapsed,
                remaining_s=elapsed / self._done * (self._total - self._done),
            )
        )
