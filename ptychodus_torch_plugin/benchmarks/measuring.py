"""Processor time, time on the wall and peak memory of whatever runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from pathlib import Path

from ptychodus_torch_plugin.backends.protocol import Kernel
from ptychodus_torch_plugin.benchmarks.results import Limit, Timing, Value, Work

SHORTEST_S = 0.02
"""Processor time of a repetition: shorter runs are repeated within it."""

KERNEL_REPEATS = 8
"""Repetitions of each kernel whose best is a limit of the machine."""

STATUS = Path('/proc/self/status')
CLEAR_REFS = Path('/proc/self/clear_refs')
RESET_PEAK = '5'
"""What resets the peak when it is written to `CLEAR_REFS`: see proc(5)."""

Clock = Callable[[], Timing]


def process_clock() -> Timing:
    """Return the processor time of this process, all threads, and the time on the wall."""
    return Timing(cpu_s=time.process_time(), wall_s=time.perf_counter())


@dataclass(frozen=True)
class Part:
    """What a run says about one thing: its repetitions, what each did, shares of the time."""

    what: str
    timings: Sequence[Timing]
    work: Work
    shares: Mapping[str, float] = field(default_factory=dict)
    limit: Limit | None = None
    """Of another process, where this one did nothing but wait."""
    peak_bytes: int | None = None
    """The same."""
    own_memory: bool = True
    """Whether the memory of this process says anything."""


@dataclass(frozen=True)
class Task:
    """A function that is timed from outside.

    Attributes
    ----------
    what, problem
        What it is, and at which size.
    run
        One repetition.
    work
        What a repetition does.
    warm_up
        Whether it runs once before it is timed: caches, tracing, first use of a library.
    """

    what: str
    problem: Mapping[str, Value]
    run: Callable[[], object]
    work: Work = field(default_factory=Work)
    warm_up: bool = True

    def measure(self, clock: Clock, repeats: int) -> list[Part]:
        """Return its one part."""
        timings = repeat(self.run, clock, repeats, warm_up=self.warm_up)
        return [Part(self.what, timings, self.work)]


@dataclass(frozen=True)
class Story:
    """A run that knows itself when its parts begin and end, such as a training.

    Attributes
    ----------
    problem
        At which size.
    tell
        Runs once, with a clock and the number of repetitions that are wanted of each part.
    """

    problem: Mapping[str, Value]
    tell: Callable[[Clock, int], Iterable[Part]]

    def measure(self, clock: Clock, repeats: int) -> list[Part]:
        """Return its parts."""
        return list(self.tell(clock, repeats))


@dataclass(frozen=True)
class NotRun:
    """Something that cannot be measured here, and why."""

    what: str
    problem: Mapping[str, Value]
    reason: str


Measurable = Task | Story | NotRun


def between(start: Timing, end: Timing, loops: int = 1) -> Timing:
    """Return the time from `start` to `end`, divided by `loops`."""
    return Timing(
        cpu_s=max(0.0, end.cpu_s - start.cpu_s) / loops,
        wall_s=max(0.0, end.wall_s - start.wall_s) / loops,
    )


def intervals(marks: Sequence[Timing]) -> list[Timing]:
    """Return the times between neighbouring marks."""
    return [between(a, b) for a, b in pairwise(marks)]


def repeat(
    run: Callable[[], object], clock: Clock, repeats: int, *, warm_up: bool = True
) -> list[Timing]:
    """Return the time of one call in each of `repeats` repetitions.

    After a warm-up, calls shorter than `SHORTEST_S` are repeated within a repetition.
    """
    loops = _warm_up(run, clock) if warm_up else 1
    return [_timed(run, clock, loops) for _ in range(repeats)]


def _warm_up(run: Callable[[], object], clock: Clock) -> int:
    """Run twice; return how many calls make a repetition."""
    run()
    once = _timed(run, clock, 1).cpu_s
    return ceil(SHORTEST_S / once) if 0 < once < SHORTEST_S else 1


def _timed(run: Callable[[], object], clock: Clock, loops: int) -> Timing:
    start = clock()
    for _ in range(loops):
        run()
    return between(start, clock(), loops)


def measure_limit(backend: str, name: str, kernels: Sequence[Kernel], clock: Clock) -> Limit:
    """Return the best rate of several kernels, each of which could be what the machine does best.

    Kernels take turns, so that a busy moment hits all of them.
    """
    loops = [_warm_up(kernel.run, clock) for kernel in kernels]
    rates = []
    for _ in range(KERNEL_REPEATS):
        for kernel, count in zip(kernels, loops, strict=True):
            timing = _timed(kernel.run, clock, count)
            rates.append((kernel.amount / timing.cpu_s, kernel.amount / timing.wall_s))
    per_core_s, per_s = (max(each) for each in zip(*rates, strict=True))
    return Limit(
        backend=backend, name=name, unit=kernels[0].unit, per_core_s=per_core_s, per_s=per_s
    )


def reset_peak() -> bool:
    """Begin to measure the peak of the resident memory anew; return whether this system can."""
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def resident_bytes(entry: str = 'VmRSS') -> int | None:
    """Return the resident memory of this process, or with 'VmHWM' its peak; None: not known here.

    Not `resource.getrusage`: its peak begins with that of the process that started this one.
    """
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(f'{entry}:')]
    return 1024 * int(found[0].split()[1]) if found else None
