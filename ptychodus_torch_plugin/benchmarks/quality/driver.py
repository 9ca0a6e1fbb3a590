"""Starts a process for each case and method, and compares what it makes with the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ptychodus_torch_plugin.arrays import ComplexArray
from ptychodus_torch_plugin.benchmarks import machine
from ptychodus_torch_plugin.benchmarks.quality import ptychi_child
from ptychodus_torch_plugin.benchmarks.quality.cases import Case, Problem, make_problem
from ptychodus_torch_plugin.benchmarks.quality.methods import Own, Peer
from ptychodus_torch_plugin.benchmarks.quality.own_child import Request
from ptychodus_torch_plugin.benchmarks.quality.results import (
    CONVERGED_DB,
    Outcome,
    Point,
    Report,
)
from ptychodus_torch_plugin.metrics import compare_objects
from ptychodus_torch_plugin.probes import scale_probe

OWN_CHILD = 'ptychodus_torch_plugin.benchmarks.quality.own_child'

SCAN, OBJECT = 'scan.npz', 'object.npy'

FIRST_LOOK, LOOK_FACTOR = 4, 1.35
"""A peer is looked at after so many epochs, and then whenever it has run this many times longer."""

FEWEST_EPOCHS, PATIENCE = 40, 2.0
"""A peer stops after so many epochs at least, when running `PATIENCE` times longer than to within
`CONVERGED_DB` of its best has not made it better."""


class ChildError(Exception):
    """A process ended with an error, which is a result as well."""


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes
    ----------
    set_name, cases, methods
        What is reconstructed by whom.
    backend
        Who computes the methods of this package.
    threads
        Threads of every computation.
    max_epochs
        A peer has to stop after so many.
    jobs
        Cases that run at the same time.
    ptychi_python
        Python that has pty-chi.
    """

    set_name: str
    cases: Sequence[Case]
    methods: Mapping[str, Own | Peer]
    backend: str = ''
    threads: int = 1
    max_epochs: int = 400
    jobs: int = 1
    ptychi_python: Path | None = None


@dataclass(frozen=True)
class Found:
    """An outcome, and the object that belongs to its best point."""

    outcome: Outcome
    object_: ComplexArray | None = field(default=None, repr=False)


OnOutcome = Callable[[Outcome], None]
OnCase = Callable[[Report, Problem, Sequence[Found]], None]


def run(
    plan: Plan, on_outcome: OnOutcome = lambda _: None, on_case: OnCase = lambda *_: None
) -> Report:
    """Run all methods on all cases.

    `on_outcome` hears of each outcome, from any thread; `on_case` of each case in its turn, with
    all that was found so far, and the case's objects.
    """
    report = Report(
        date=datetime.now(UTC).isoformat(timespec='seconds'),
        set_name=plan.set_name,
        threads=plan.threads,
        machine=machine.facts(),
        cases=tuple(plan.cases),
        titles={name: method.title for name, method in plan.methods.items()},
        peers=tuple(name for name, method in plan.methods.items() if isinstance(method, Peer)),
    )
    with ThreadPoolExecutor(plan.jobs) as pool:
        for problem, found in pool.map(partial(_solve, plan, on_outcome), plan.cases):
            outcomes = (*report.outcomes, *(each.outcome for each in found))
            report = report.model_copy(update={'outcomes': outcomes})
            on_case(report, problem, found)
    return report


def _solve(plan: Plan, on_outcome: OnOutcome, case: Case) -> tuple[Problem, list[Found]]:
    """Run all methods on one case."""
    problem, results = make_problem(case), []
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder) / SCAN, problem)
        for name, method in plan.methods.items():
            results.append(_run(plan, case, problem, name, method, Path(folder)))
            on_outcome(results[-1].outcome)
    return problem, results


def write_scan(path: Path, problem: Problem) -> None:
    """Write what every method is given: nothing of the truth but the size of its grid.

    The energy of the probe is the mean counts of a pattern, as if the object were empty.
    """
    scan = problem.scan
    probe = scale_probe(scan.probe, scan.mean_counts(), scan.valid_pixels)
    np.savez(
        path,
        counts=scan.patterns,
        positions_px=scan.positions_px,
        probe=probe.astype(np.complex64),
        object=np.ones(problem.truth.shape, np.complex64),
    )


def _run(
    plan: Plan, case: Case, problem: Problem, name: str, method: Own | Peer, folder: Path
) -> Found:
    own = isinstance(method, Own)
    outcome = Outcome(
        case=case.name,
        method=name,
        backend=plan.backend if own else '',
        settings=method.for_case(case),
    )
    if not own and plan.ptychi_python is None:
        reason = 'no Python with pty-chi was named; see --ptychi_python'
        return Found(outcome.model_copy(update={'status': 'not run', 'reason': reason}))
    try:
        if isinstance(method, Own):
            return _run_own(plan, problem, outcome, folder)
        return _run_peer(plan, problem, outcome, method.engine, folder)
    except Exception as error:  # noqa: BLE001, RUF100 - what fails is a result, too
        reason = f'{type(error).__name__}: {error}'
        return Found(outcome.model_copy(update={'status': 'failed', 'reason': reason}))


def _run_own(plan: Plan, problem: Problem, outcome: Outcome, folder: Path) -> Found:
    method = plan.methods[outcome.method]
    assert isinstance(method, Own)
    request = Request(
        model_path=method.model_path,
        scan=folder / SCAN,
        object_file=folder / OBJECT,
        settings=outcome.settings,
        backend=plan.backend,
        threads=plan.threads,
    )
    command = [sys.executable, '-m', OWN_CHILD, request.model_dump_json()]
    with _child(command, plan.threads) as child:
        answer = child.ask('')
    point, object_ = _point(problem, request.object_file, answer['stage'], answer['cpu_s'])
    update = {'points': (point,), 'versions': answer['versions']}
    return Found(outcome.model_copy(update=update), object_)


def _run_peer(plan: Plan, problem: Problem, outcome: Outcome, engine: str, folder: Path) -> Found:
    file, settings = folder / OBJECT, json.dumps(outcome.settings)
    script = str(ptychi_child.__file__)
    command = [str(plan.ptychi_python), script, str(folder / SCAN), engine, settings]
    points: list[Point] = []
    best: ComplexArray | None = None
    done, looks, answer = 0, looks_up_to(plan.max_epochs), {}
    with _child(command, plan.threads) as child:
        for epochs in looks:
            answer = child.ask(f'{epochs - done} {file}\n')
            done, stage = epochs, f'{epochs} epochs'
            if points and not _is_finite(file):
                break  # it has diverged, and can only stay so
            point, object_ = _point(problem, file, stage, answer['cpu_s'])
            points.append(point)
            if point is max(points, key=lambda each: each.phase_psnr_dB):
                best = object_
            if has_converged(looks[: len(points)], points):
                break
    update = {
        'points': tuple(points),
        'versions': answer['versions'],
        'exhausted': len(points) == len(looks) and not has_converged(looks, points),
    }
    return Found(outcome.model_copy(update=update), best)


def looks_up_to(max_epochs: int) -> list[int]:
    """Return after how many epochs a peer is looked at; the last are `max_epochs`."""
    looks = [min(FIRST_LOOK, max_epochs)]
    while looks[-1] < max_epochs:
        looks.append(min(round(looks[-1] * LOOK_FACTOR), max_epochs))
    return looks


def has_converged(epochs: Sequence[int], points: Sequence[Point]) -> bool:
    """Return whether a peer has run long enough beyond the point where it was about its best."""
    wanted = max(point.phase_psnr_dB for point in points) - CONVERGED_DB
    reached = next(
        n for n, point in zip(epochs, points, strict=True) if point.phase_psnr_dB >= wanted
    )
    return epochs[-1] >= max(FEWEST_EPOCHS, PATIENCE * reached)


def _point(problem: Problem, file: Path, stage: str, cpu_s: float) -> tuple[Point, ComplexArray]:
    object_ = np.load(file).astype(np.complex64)
    if not np.isfinite(object_).all():
        raise ChildError(f'its object is not finite after {stage}')
    metrics = compare_objects(object_, problem.truth, problem.region)
    return Point(stage=stage, cpu_s=cpu_s, metrics=metrics.as_dict()), object_


def _is_finite(file: Path) -> bool:
    return bool(np.isfinite(np.load(file)).all())


class _Child:
    """A process that answers lines with JSON."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line, and wait for the answer to it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines()
            end = f'signal {-code}' if code < 0 else f'exit code {code}'
            raise ChildError(
                f'its process ended with {end}: {lines[-1] if lines else "no message"}'
            )
        answered: dict[str, Any] = json.loads(answer)
        return answered


@contextmanager
def _child(command: Sequence[str], threads: int) -> Iterator[_Child]:
    """Start a process, and end it: by the end of its input, or at once after an error."""
    with (
        tempfile.TemporaryFile('w+') as errors,
        subprocess.Popen(
            command,
            env=machine.environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield _Child(process, errors)
        except BaseException:
            process.kill()
            raise
