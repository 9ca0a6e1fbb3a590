"""Whole scans: sweeps, and the way from a file to an object."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ptychodus_torch_plugin.api import Model, reconstruct
from ptychodus_torch_plugin.backends.protocol import Progress
from ptychodus_torch_plugin.benchmarks.cases.networks import limit_of
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.flops import forward_flops
from ptychodus_torch_plugin.benchmarks.measuring import Clock, Part, Story, between, intervals
from ptychodus_torch_plugin.benchmarks.results import Timing, Work
from ptychodus_torch_plugin.benchmarks.scans import make_scan
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import InferenceConfig, ModelConfig
from ptychodus_torch_plugin.files.product import write_product
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import write_scan
from ptychodus_torch_plugin.grouping import draw_groups
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.visiting import sweeps_before

FFTS_PER_VISIT = 2
"""To the detector and back, for each mode."""

WARM_UP_SWEEPS = 2
"""The second one is the first that refines the probe."""

BATCH = 32
"""Groups at once, the default of a reconstruction."""

ALONE = InferenceConfig(held_out_fraction=0.0, refine=0)
"""One reconstruction, without a second one that measures R on patterns it has not seen."""


def sweeps(context: Context) -> Iterator[Story]:
    """Sweeps alone, architecture 'none': whole and sub-pixel positions, with and without probe."""
    for n_px in context.size.sides_px:
        for n in context.size.fitting(context.size.swept, n_px):
            yield _sweeps(context, n_px, n, 1, subpixel=False, refined=False)
            for modes in context.size.modes:
                yield _sweeps(context, n_px, n, modes, subpixel=True, refined=False)
            yield _sweeps(context, n_px, n, 1, subpixel=True, refined=True)


def _sweeps(
    context: Context, n_px: int, n: int, modes: int, *, subpixel: bool, refined: bool
) -> Story:
    problem = {
        'N': n_px,
        'patterns': n,
        'modes': modes,
        'positions': 'sub-pixel' if subpixel else 'whole pixels',
        'probe': 'refined' if refined else 'fixed',
    }
    return Story(problem, partial(_swept, context, n_px, n, modes, subpixel, refined))


def _swept(
    context: Context,
    n_px: int,
    n: int,
    modes: int,
    subpixel: bool,
    refined: bool,
    clock: Clock,
    repeats: int,
) -> Iterator[Part]:
    scan = make_scan(n, n_px, modes=modes, subpixel=subpixel)
    count = WARM_UP_SWEEPS + repeats
    settings = {'refine_probe': refined, 'probe_modes': modes}
    config = ModelConfig.parse(
        {'architecture': 'none', 'N': n_px, 'sweeps_before': count, 'sweeps': settings},
        source='the benchmark',
    )
    marks = _marks(context, config, scan, clock)
    ffts = FFTS_PER_VISIT * modes * n
    work = Work(amount=n, unit='visits', limit=f'fft2 {n_px}', limit_units=ffts)
    yield Part('sweep', intervals(marks)[WARM_UP_SWEEPS - 1 :], work)


def _marks(context: Context, config: ModelConfig, scan: ScanData, clock: Clock) -> list[Timing]:
    """Reconstruct; return when each sweep, or batch of groups, was done."""
    marks: list[Timing] = []

    def note(event: Progress) -> None:
        if event.phase == 'reconstruct':
            marks.append(clock())

    reconstruct(_fresh(context, config, scan), scan, ALONE, context.execution(), on_event=note)
    return marks


def _fresh(context: Context, config: ModelConfig, scan: ScanData) -> Model:
    calibration = Calibration.of([scan], config)
    return Model(context.engine, context.engine.build(config, calibration))


def end_to_end(context: Context) -> Iterator[Story]:
    """A file is read, reconstructed and written as a product, by a network that is ready to use."""
    for n in context.size.scans:
        for gridsize in context.size.gridsizes:
            values = {'architecture': 'cnn', 'gridsize': gridsize, 'n_filters_scale': 1}
            yield _end_to_end(context, ModelConfig.parse(values, source='the benchmark'), n)
    yield _end_to_end(context, ModelConfig(), context.size.scans[0])


def _end_to_end(context: Context, config: ModelConfig, n: int) -> Story:
    problem = {'architecture': config.architecture, 'N': config.N, 'patterns': n}
    if config.architecture == 'cnn':
        problem |= {'gridsize': config.gridsize}
    # Made here, so that the memory of the story is that of the reconstruction alone.
    source = context.folder / 'scan.h5'
    scan = make_scan(n, config.N)
    write_scan(source, scan)
    model = _fresh(context, config, scan)
    return Story(problem, partial(_from_file_to_file, context, model, source, n))


def _from_file_to_file(
    context: Context, model: Model, source: Path, n: int, clock: Clock, repeats: int
) -> Iterator[Part]:
    config, product = model.config, context.folder / 'object.h5'
    core = _network_s if config.architecture == 'cnn' else _sweeps_s
    whole = [_run(context, model, source, product, clock) for _ in range(repeats)]
    best = min(whole, key=lambda run: run['whole'].cpu_s)
    core_s = min(core(context, model, source, clock) for _ in range(repeats))
    limited = {}
    if config.architecture == 'cnn':
        flops = n * forward_flops(config)
        limited = {'limit': limit_of('32-true'), 'limit_units': flops}
    shares = {name: timing.cpu_s / best['whole'].cpu_s for name, timing in best.items()}
    shares['network' if config.architecture == 'cnn' else 'sweeps'] = core_s / best['whole'].cpu_s
    del shares['whole']
    yield Part(
        'file to file',
        [run['whole'] for run in whole],
        Work.parse({'amount': n, 'unit': 'patterns', **limited}, source='the benchmark'),
        shares,
    )


def _run(
    context: Context, model: Model, source: Path, product: Path, clock: Clock
) -> dict[str, Timing]:
    marks = [clock()]
    scan = read_scan(source)
    marks.append(clock())
    result = reconstruct(model, scan, ALONE, context.execution())
    marks.append(clock())
    write_product(
        product,
        object_=result.object_,
        frame=result.frame,
        scan=scan,
        probe=result.probe,
        losses=[],
        name=scan.name,
        comments='',
    )
    marks.append(clock())
    parts = dict(zip(('reading', 'reconstruction', 'writing'), intervals(marks), strict=True))
    return {**parts, 'whole': between(marks[0], marks[-1])}


def _network_s(context: Context, model: Model, source: Path, clock: Clock) -> float:
    """Return the processor time of the network alone for all groups of a scan."""
    scan = read_scan(source)
    groups = draw_groups(scan.positions_px, model.config.gridsize)
    total = 0.0
    with model.trained.engine(scan, context.execution()) as engine:
        for first in range(0, len(groups), BATCH):
            rows = slice(first, first + BATCH)
            patterns = np.asarray(scan.patterns[groups.indices[rows]])
            start = clock()
            engine.patches(patterns, groups.offsets_px[rows])
            total += between(start, clock()).cpu_s
    return total


def _sweeps_s(context: Context, model: Model, source: Path, clock: Clock) -> float:
    """Return the processor time of all sweeps, from that of a middle one."""
    scan = read_scan(source)
    count = sweeps_before(model.config, scan)
    config = model.config.model_copy(update={'architecture': 'none'})
    steps = intervals(_marks(context, config, scan, clock))
    return count * float(np.median([step.cpu_s for step in steps]))
