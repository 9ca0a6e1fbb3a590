"""The network 'cnn': training, prediction, saving and loading."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

from ptychodus_torch_plugin.api import Model, load_bundle, train
from ptychodus_torch_plugin.backends.protocol import Progress
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.flops import forward_flops, training_flops
from ptychodus_torch_plugin.benchmarks.measuring import (
    Clock,
    Part,
    Story,
    Task,
    between,
    intervals,
)
from ptychodus_torch_plugin.benchmarks.results import Timing, Value, Work
from ptychodus_torch_plugin.benchmarks.scans import make_scan
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig
from ptychodus_torch_plugin.grouping import draw_groups

BATCH_SIZE = 16
"""Groups of an optimiser step, the default of a training."""

WARM_UP_EPOCHS = 1
"""Epochs that are not counted: tracing, first use of every kernel."""

PRECISIONS = ('32-true', 'bf16-mixed')


def models(context: Context) -> Iterator[tuple[ModelConfig, dict[str, Value]]]:
    """Yield every network of a run, and what it is called in a row."""
    for n_px in context.size.sides_px:
        for filters in context.size.filters:
            for gridsize in context.size.gridsizes:
                values: dict[str, Value] = {
                    'N': n_px,
                    'gridsize': gridsize,
                    'n_filters_scale': filters,
                }
                config = {'architecture': 'cnn', **values}
                yield ModelConfig.parse(config, source='the benchmark'), values


def limit_of(precision: str) -> str:
    """Return the name of the limit of convolutions."""
    return f'convolution {precision}'


def training(context: Context) -> Iterator[Story]:
    """Optimiser steps and epochs through the public `train`; no patterns are held out."""
    for model, problem in models(context):
        for precision in PRECISIONS:
            yield Story(
                {**problem, 'batch': BATCH_SIZE, 'precision': precision},
                partial(_trained, context, model, precision),
            )


def _trained(
    context: Context, model: ModelConfig, precision: str, clock: Clock, repeats: int
) -> Iterator[Part]:
    scan = make_scan(context.size.steps * BATCH_SIZE, model.N)
    epochs = WARM_UP_EPOCHS + 1 + repeats
    settings = TrainingConfig(epochs=epochs, held_out_fraction=0.0, batch_size=BATCH_SIZE)
    marks: dict[int, list[Timing]] = {}

    def note(event: Progress) -> None:
        if event.phase == 'train':
            marks.setdefault(event.epoch, []).append(clock())

    train(
        [scan],
        model,
        settings,
        context.execution(precision),
        backend=context.engine.name,
        on_event=note,
    )
    # The last epoch has no next one that would show its end.
    counted = [marks[epoch] for epoch in sorted(marks)][WARM_UP_EPOCHS:]
    steps = [step for epoch in counted for step in intervals(epoch)]
    flops, limit = training_flops(model), limit_of(precision)
    yield Part('step', steps, _work(BATCH_SIZE, flops, limit))
    whole = [between(a[-1], b[-1]) for a, b in pairwise(counted)]
    yield Part('epoch', whole, _work(scan.n_patterns, flops, limit))


def _work(groups: int, flops: float, limit: str) -> Work:
    return Work(amount=groups, unit='groups', limit=limit, limit_units=groups * flops)


def inference(context: Context) -> Iterator[Task]:
    """Patches of as many groups as the network sees at once, as a reconstruction asks for them."""
    for config, problem in models(context):
        scan = make_scan(max(context.size.batches) + config.patterns_per_group, config.N)
        model = context.engine.build(config, Calibration.of([scan], config))
        groups = draw_groups(scan.positions_px, config.gridsize)
        for precision in PRECISIONS:
            with model.engine(scan, context.execution(precision)) as engine:
                for batch in context.size.batches:
                    yield Task(
                        'batch',
                        {**problem, 'batch': batch, 'precision': precision},
                        partial(
                            engine.patches,
                            scan.patterns[groups.indices[:batch]],
                            groups.offsets_px[:batch],
                        ),
                        _work(batch, forward_flops(config), limit_of(precision)),
                    )


def bundle(context: Context) -> Iterator[Task]:
    """A model's file, written and read."""
    path = context.folder / 'model.zip'
    for config, problem in models(context):
        calibration = Calibration.of([make_scan(1, config.N)], config)
        model = Model(context.engine, context.engine.build(config, calibration))
        yield Task('save', problem, partial(_save, model, path))
        model.save(path)
        yield Task('load', problem, partial(load_bundle, path, backend=context.engine.name))
        path.unlink()


def _save(model: Model, path: Path) -> None:
    model.save(path)
