"""From a scan to an object, stage by stage: the same for every backend, which only computes.

A reconstruction runs all stages over every pattern and, to measure R honestly, once more without
some.  That run comes first, but for 'cnn': the unrolled network learns from it how far to trust
sweeps, and sweeps over all patterns go on from it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptychodus_torch_plugin.arrays import ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import (
    Engine,
    OnEvent,
    Progress,
    Reconstruction,
    ShouldStop,
    State,
)
from ptychodus_torch_plugin.calibration import Calibration, scan_probe
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.group_plan import check_reach
from ptychodus_torch_plugin.grouping import draw_groups
from ptychodus_torch_plugin.probes import orthogonalise
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sharding import ALONE, Shard
from ptychodus_torch_plugin.stitching import Canvas, probe_weight, uniform_weight
from ptychodus_torch_plugin.sweeps import Sweep, schedule, settling_schedule
from ptychodus_torch_plugin.training_plan import held_out_indices
from ptychodus_torch_plugin.visiting import sweeps_before

GROUPS_AT_ONCE = 32
"""Groups that a network sees together unless something else is asked for."""

DOSE_RANGE = 2.0
"""By how much the mean counts of a scan may differ from those that 'cnn' was trained on."""

logger = logging.getLogger(__name__)


@dataclass
class _Run:
    """Passes through all stages over a pool of patterns."""

    engine: Engine
    config: ModelConfig
    scan: ScanData
    inference: InferenceConfig
    batch_size: int
    report: StageReporter
    held_out: IndexArray
    known: dict[int, ComplexArray]
    """What the network says over so many of the patterns, where that is known already."""
    noise_excess: float = 1.0
    """How many times the noise of the photons the network is told of."""
    swept: State | None = None
    """What sweeps made of some of the patterns, from where those over all go on."""

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
        count = sweeps_before(config, self.scan)
        name = _sweeps(count)
        plan, some = schedule(config.sweeps, count), len(pool) < self.scan.n_patterns
        if self.swept is not None and not some:
            state, plan = self.swept, plan[-joining_sweeps(count) :]
        state = self._swept(state, pool, plan, self.inference.seed)
        if some:
            self.swept = state
        yield name, state
        if config.architecture == 'unrolled':
            if some and not config.sweeps.refine_positions:
                self.noise_excess = noise_excess(self.engine, state, pool, self.held_out)
            corrected = self.engine.corrected(state, pool, self.noise_excess)
            yield f'{name} + network', corrected

    def _swept(self, state: State, pool: IndexArray, plan: Sequence[Sweep], seed: int) -> State:
        return self.engine.swept(state, pool, plan, seed, lambda: self.report(self.scan.n_patterns))

    def _predicted(self, pool: IndexArray) -> ComplexArray:
        """Return the object that all patches make, each at its pattern's own position."""
        if len(pool) in self.known:
            return self.known[len(pool)]
        scan = self.scan
        canvases = [patch_canvas(scan, self.inference, scan.frame)]
        if shares_patches(self.config) and len(self.held_out):
            # A group of one pattern says the same, whoever else is looked at.
            canvases.append(patch_canvas(scan, self.inference, scan.frame))
        for indices, patches in predicted_patches(
            self.engine, self.config, scan, self.inference, pool, self.batch_size
        ):
            canvases[0].add(patches, scan.positions_px[indices])
            for canvas in canvases[1:]:
                seen = ~np.isin(indices, self.held_out)
                canvas.add(patches[seen], scan.positions_px[indices[seen]])
            self.report(len(indices))
        for canvas in canvases[1:]:
            self.known[len(pool) - len(self.held_out)] = canvas.finish()[0]
        return canvases[0].finish()[0]


def noise_excess(engine: Engine, state: State, pool: IndexArray, held_out: IndexArray) -> float:
    """Return by how much the noise of an object exceeds what the photons of `pool` explain.

    It is how much worse patterns `held_out` are fitted than those of the pool, in the median, for
    a bad frame tells of itself alone; and 1 at least.
    Sweeps fit the noise of what they see: each number that p unknowns are found from fits better
    by the share p / n than others do.  With many more measured numbers than unknowns, and photons
    as the only noise, both fit alike; where patterns hardly overlap, or the model lacks something,
    what the sweeps had to invent shows in patterns that they never saw.
    """
    misfits = (engine.misfits(state, chosen) for chosen in (pool, held_out))
    fitted, others = (float(np.median(each[np.isfinite(each)])) for each in misfits)
    return max(1.0, others / fitted) if fitted > 0 else 1.0


def predicted_patches(
    engine: Engine,
    config: ModelConfig,
    scan: ScanData,
    inference: InferenceConfig,
    pool: IndexArray,
    batch_size: int,
    *,
    seeds: IndexArray | None = None,
    shard: Shard = ALONE,
) -> Iterator[tuple[IndexArray, ComplexArray]]:
    """Yield what 'cnn' says of a group for every pattern of `seeds`, filled from `pool`.

    Each time these are the patterns (k,) of some groups and their patches (k, N, N); `None` for
    `seeds` takes the pool.  A `shard` has its share of the groups, whatever `batch_size` is.
    """
    groups = draw_groups(
        scan.positions_px,
        config.gridsize,
        neighbor_count=inference.neighbor_count,
        seed=inference.seed,
        pool=pool,
        seeds=seeds,
    )
    check_reach(scan, groups)
    mine = range(len(groups))[shard.rows(len(groups))]
    for first in mine[::batch_size]:
        rows = slice(first, min(first + batch_size, mine.stop))
        indices = groups.indices[rows]
        patterns = scan.patterns[indices] * scan.valid_pixels
        patches = engine.patches(patterns, groups.offsets_px[rows])
        yield indices.reshape(-1), patches.reshape(-1, scan.n_px, scan.n_px)


def patch_canvas(scan: ScanData, inference: InferenceConfig, frame: ObjectFrame) -> Canvas:
    """Return an empty canvas for patches of a scan."""
    by_probe = inference.patch_weighting == 'probe'
    return Canvas(frame, probe_weight(scan.probe) if by_probe else uniform_weight(scan.n_px))


def shares_patches(config: ModelConfig) -> bool:
    """Return whether the patch of a pattern depends on this pattern alone."""
    return config.architecture == 'cnn' and config.gridsize == 1


def refining_sweeps(config: ModelConfig, inference: InferenceConfig) -> int:
    """Return the number of sweeps after the network."""
    if inference.refine is not None:
        return inference.refine
    return 0 if config.architecture == 'none' else config.sweeps_after


def joining_sweeps(count: int) -> int:
    """Return how many of `count` sweeps over all patterns follow as many over most of them.

    The last half, which does no worse than all of them from the start.
    """
    return max(1, count // 2)


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
    predicted: ComplexArray | None = None,
    predicted_without: ComplexArray | None = None,
) -> Reconstruction:
    """Reconstruct a scan; see `protocol.TrainedModel.reconstruct`.

    `predicted` (h, w) complex64 is what the network says over all patterns, where that is known;
    `predicted_without` what it says over those that are not held out.
    """
    _warn_of_dose(config, calibration, scan)
    held_out = held_out_indices(scan, inference.held_out_fraction, inference.seed)
    everything = np.arange(scan.n_patterns)
    pools = [everything, np.setdiff1d(everything, held_out)] if len(held_out) else [everything]
    batch_size = execution.inference_batch_size or GROUPS_AT_ONCE
    known = {} if predicted is None else {len(everything): predicted}
    if predicted_without is not None:
        known[len(pools[-1])] = predicted_without
    work = _work(config, scan, inference, pools, batch_size, known)
    report = StageReporter(work, on_event, should_stop)
    run = _Run(engine, config, scan, inference, batch_size, report, held_out, known)
    probe = scan_probe(scan, config, calibration)

    objects: dict[str, ComplexArray] = {}
    r_fitted: dict[str, float] = {}
    r_held_out: dict[str, float] = {}
    # What 'cnn' says over all patterns has what it says without some in it.
    for pool in pools if config.architecture == 'cnn' else reversed(pools):
        for stage, state in run.stages(probe, pool):
            if len(pool) < len(everything):
                r_held_out[stage] = engine.r_factor(state, held_out)
            else:
                objects[stage] = engine.export(state)[0]
                r_fitted[stage] = engine.r_factor(state, everything)
                last = state
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
        noise_excess=run.noise_excess,
        exposures=engine.exposures(last),
    )


def _work(
    config: ModelConfig,
    scan: ScanData,
    inference: InferenceConfig,
    pools: Sequence[IndexArray],
    batch_size: int,
    known: Mapping[int, ComplexArray],
) -> int:
    """Return the number of reports of all runs: sweeps, or batches of groups and sweeps."""
    refining = len(pools) * refining_sweeps(config, inference)
    if config.architecture != 'cnn':
        count = sweeps_before(config, scan)
        return count + (joining_sweeps(count) if len(pools) > 1 else 0) + refining
    computed = pools[:1] if shares_patches(config) and not known else pools
    batches = (-(-len(pool) // batch_size) for pool in computed if len(pool) not in known)
    return sum(batches) + refining


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


class StageReporter:
    """Reports each sweep and each batch of groups, and stops between two of them."""

    def __init__(self, total: int, on_event: OnEvent, should_stop: ShouldStop) -> None:
        self._total, self._on_event, self._should_stop = total, on_event, should_stop
        self._done, self._patterns, self._start = 0, 0, time.perf_counter()

    def __call__(self, n_patterns: int) -> None:
        """Take note of work on so many patterns; raise `InterruptedError` if somebody stops it."""
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
