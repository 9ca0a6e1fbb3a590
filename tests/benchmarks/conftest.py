"""Tasks of the cases of `bench`, one problem each."""

import pytest

from ptychodus_torch_plugin.benchmarks.cases import CASES
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.measuring import Story, process_clock
from ptychodus_torch_plugin.benchmarks.sizes import Size

ONE_OF_EACH = Size(
    positions=(10_000,),
    patterns=(1_000,),
    scans=(200,),
    swept=(400,),
    sides_px=(64,),
    gridsizes=(2,),
    modes=(1,),
    filters=(1,),
    batches=(32,),
    steps=3,
    repeats=1,
    brief=True,
)


@pytest.fixture
def tasks(tmp_path):
    """Return the tasks of a case, at one size each; their inputs live as long as the generator."""

    def make(case, backend=None):
        context = Context(size=ONE_OF_EACH, threads=1, folder=tmp_path, backend=backend)
        return CASES[case].tasks(context)

    return make


@pytest.fixture
def timed(benchmark):
    """Time one task; a story, whose parts time themselves, as a whole."""

    def run(task):
        assert task is not None
        if isinstance(task, Story):
            parts = benchmark.pedantic(task.measure, (process_clock, 1), rounds=1)
            benchmark.extra_info['cpu_s'] = {p.what: [t.cpu_s for t in p.timings] for p in parts}
        else:
            benchmark.pedantic(task.run, rounds=5, warmup_rounds=1)

    return run


@pytest.fixture
def one_of(tasks):
    """Return the first task of a case that is called `what`, or any; and keep its inputs alive."""
    kept = []

    def find(case, what=None, backend=None):
        found = tasks(case, backend)
        kept.append(found)
        return next(
            (task for task in found if what is None or getattr(task, 'what', what) == what), None
        )

    return find
