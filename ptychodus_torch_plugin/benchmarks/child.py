"""Runs cases in a process of their own, and says each row as one line of JSON on stdout.

    python -m ptychodus_torch_plugin.benchmarks.child REQUEST

REQUEST is a `Request` as JSON.  A case that fails is a row that says so; the next one goes on.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptychodus_torch_plugin.backends.protocol import Kernel, OffersLimits
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.benchmarks.cases import CASES
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.measuring import (
    Clock,
    Measurable,
    NotRun,
    Part,
    measure_limit,
    process_clock,
    reset_peak,
    resident_bytes,
)
from ptychodus_torch_plugin.benchmarks.results import Limit, Row
from ptychodus_torch_plugin.benchmarks.sizes import SIZES, SizeName
from ptychodus_torch_plugin.config.settings import Settings


class Request(Settings):
    """What one process is to measure."""

    cases: tuple[str, ...]
    """Names of cases, in the order of running."""
    backend: str = ''
    """Who computes; empty for cases without a backend."""
    size: SizeName = 'quick'
    """Problem sizes."""
    threads: int = 1
    """Threads of every computation."""
    repeats: int = SIZES['quick'].repeats
    """Repetitions of each measurement."""
    ptychi_python: Path | None = None
    """Python that has pty-chi."""


LIMIT_HOLDS_S = 15.0
"""Time on the wall after which a limit is measured anew: other work comes and goes."""


class Limits:
    """The limits of the machine that rows ask for, measured beside them."""

    def __init__(self, backend: str, kernels: Mapping[str, Sequence[Kernel]], clock: Clock) -> None:
        self._backend, self._kernels, self._clock = backend, kernels, clock
        self._known: dict[str, tuple[float, Limit]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._kernels

    def measure(self, name: str) -> Limit:
        """Return the best rate so far of a limit, measured anew if that was a while ago."""
        now = self._clock().wall_s
        if name in self._known and now - self._known[name][0] < LIMIT_HOLDS_S:
            return self._known[name][1]
        found = measure_limit(self._backend, name, self._kernels[name], self._clock)
        _, before = self._known.get(name, (now, found))
        rates = {
            'per_core_s': max(found.per_core_s, before.per_core_s),
            'per_s': max(found.per_s, before.per_s),
        }
        self._known[name] = self._clock().wall_s, found.model_copy(update=rates)
        return self._known[name][1]


def run(request: Request, clock: Clock = process_clock) -> Iterator[Row]:
    """Yield the rows of all cases of a request, one by one."""
    backend = get_backend(request.backend) if request.backend else None
    kernels: Mapping[str, Sequence[Kernel]] = {}
    offered: object = backend  # not every backend has limits
    if isinstance(offered, OffersLimits):
        kernels = offered.limits(request.threads)
    limits = Limits(request.backend, kernels, clock)
    for name in request.cases:
        with tempfile.TemporaryDirectory() as folder:
            context = Context(
                size=SIZES[request.size],
                threads=request.threads,
                folder=Path(folder),
                backend=backend,
                ptychi_python=request.ptychi_python,
            )
            yield from rows_of(name, context, limits, request.repeats, clock)


def rows_of(
    name: str, context: Context, limits: Limits, repeats: int, clock: Clock
) -> Iterator[Row]:
    """Yield the rows of one case; a failure ends it with a row."""
    backend = '' if context.backend is None else context.backend.name
    try:
        for each in CASES[name].tasks(context):
            for row in measured(each, limits, repeats, clock):
                yield row.model_copy(update={'case': name, 'backend': backend})
    except Exception as error:  # noqa: BLE001, RUF100 - what fails is a result, too
        reason = f'{type(error).__name__}: {error}'
        yield Row(case=name, what='-', backend=backend, status='failed', reason=reason)


def measured(each: Measurable, limits: Limits, repeats: int, clock: Clock) -> Iterator[Row]:
    """Yield the rows of one task, with the limit that bounds it."""
    problem = dict(each.problem)
    if isinstance(each, NotRun):
        yield Row(case='', what=each.what, problem=problem, status='not run', reason=each.reason)
        return
    can_reset = reset_peak()
    before = resident_bytes()
    parts = each.measure(clock, repeats)
    peak = resident_bytes('VmHWM') if can_reset else None
    for part in parts:
        yield Row(
            case='',
            what=part.what,
            problem=problem,
            timings=tuple(part.timings),
            work=part.work,
            limit=_limit(part, limits),
            peak_bytes=peak if part.own_memory else part.peak_bytes,
            before_bytes=before if part.own_memory else None,
            shares=dict(part.shares),
        )


def _limit(part: Part, limits: Limits) -> Limit | None:
    if part.limit is not None:
        return part.limit
    return limits.measure(part.work.limit) if part.work.limit in limits else None


def main(request: str) -> None:
    """Measure what a request names."""
    # What frameworks print must not mix with the rows.
    with os.fdopen(os.dup(1), 'w') as rows:
        os.dup2(2, 1)
        values: Any = json.loads(request)
        for row in run(Request.parse(values, source='request')):
            rows.write(json.dumps(row.to_json()) + '\n')
            rows.flush()


if __name__ == '__main__':
    main(sys.argv[1])
