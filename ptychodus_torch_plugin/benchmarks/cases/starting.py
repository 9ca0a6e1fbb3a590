"""New processes: what a user waits for before anything happens."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.machine import environment
from ptychodus_torch_plugin.benchmarks.measuring import Clock, Part, Story
from ptychodus_torch_plugin.benchmarks.results import Timing, Work

PACKAGE = {
    'python alone': 'pass',
    'import': 'import ptychodus_torch_plugin',
    '--help': 'from ptychodus_torch_plugin.cli.app import run; run(["--help"])',
    'available_backends()': 'import ptychodus_torch_plugin as p; p.available_backends()',
}
IMPORT = 'from ptychodus_torch_plugin.backends.registry import get_backend; b = get_backend({!r})'
PREDICT = """
import numpy as np
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ModelConfig
probe = np.ones((1, 64, 64), np.complex64)
model = b.build(ModelConfig(architecture="cnn", n_filters_scale=1), Calibration(probe, 1.0))
model.predict(np.ones((1, 1, 64, 64), np.float32), np.zeros((1, 1, 2), np.float32))
"""


def start(context: Context) -> Iterator[Story]:
    """The package without any backend; each time includes that of the interpreter alone."""
    yield Story({}, partial(_starts, context, PACKAGE))


def backend_start(context: Context) -> Iterator[Story]:
    """A backend, from the start of a process to the first prediction of a fresh network."""
    load = IMPORT.format(context.engine.name)
    codes = {'import': load, 'first prediction': load + PREDICT}
    # A quick run would spend most of its time here.
    if context.size.brief:
        del codes['import']
    yield Story({}, partial(_starts, context, codes))


def _starts(context: Context, codes: dict[str, str], _clock: Clock, repeats: int) -> Iterator[Part]:
    """Start each process in turn, so that a busy moment hits all of them."""
    found: dict[str, list[Timing]] = {what: [] for what in codes}
    for _ in range(repeats):
        for what, code in codes.items():
            found[what].append(_started(code, context.threads))
    for what, timings in found.items():
        yield Part(what, timings, Work(unit='process'), own_memory=False)


def _started(code: str, threads: int) -> Timing:
    """Return the time of a new process that runs `code`, from its start to its end."""
    before, start = _children_s(), time.perf_counter()
    subprocess.run(
        [sys.executable, '-c', code],
        env=environment(threads),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return Timing(cpu_s=_children_s() - before, wall_s=time.perf_counter() - start)


def _children_s() -> float:
    """Return the processor time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
