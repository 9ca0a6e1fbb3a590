"""Starts the processes of a benchmark, one after another, and gathers what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import IO

from ptychodus_torch_plugin.backends.registry import available_backends
from ptychodus_torch_plugin.benchmarks import machine
from ptychodus_torch_plugin.benchmarks.cases import CASES
from ptychodus_torch_plugin.benchmarks.child import Request
from ptychodus_torch_plugin.benchmarks.results import Limit, Report, Row
from ptychodus_torch_plugin.benchmarks.sizes import SIZES
from ptychodus_torch_plugin.errors import BackendUnavailableError, ConfigError, UnknownBackendError

CHILD = 'ptychodus_torch_plugin.benchmarks.child'

OnRow = Callable[[Row], None]


def choose_cases(patterns: Sequence[str]) -> list[str]:
    """Return the cases that any of the patterns (as of a shell) matches; all without patterns.

    Raises
    ------
    ConfigError
        If a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in CASES):
            raise ConfigError(
                f'case = {pattern!r} matches none; expected some of {", ".join(CASES)}.'
            )
    return [
        name
        for name in CASES
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def choose_backends(names: Sequence[str]) -> list[str]:
    """Return the backends to measure: those named, or all that are installed.

    Raises
    ------
    UnknownBackendError, BackendUnavailableError
        If a named one does not exist, or cannot be used.
    """
    known = available_backends()
    for name in names:
        if name not in known:
            raise UnknownBackendError(
                f'backend = {name!r} is not known; expected one of {", ".join(map(repr, known))}.'
            )
        if not known[name].ok:
            raise BackendUnavailableError(
                f'{name} backend selected, but {known[name].reason}. {known[name].hint}'.rstrip()
            )
    return list(dict.fromkeys(names)) or [name for name, found in known.items() if found.ok]


def requests(base: Request, backends: Sequence[str]) -> list[Request]:
    """Return one request for each process.

    A case has a process of its own, and with a backend one for each.  Only the quick size lets the
    cases of a backend share one, for starting a framework would take most of its time.
    """
    plain = [name for name in base.cases if not CASES[name].with_backend]
    framed = [name for name in base.cases if CASES[name].with_backend]
    shares = [framed] if SIZES[base.size].brief and framed else [[name] for name in framed]
    return [
        *(base.model_copy(update={'cases': (name,)}) for name in plain),
        *(
            base.model_copy(update={'cases': tuple(names), 'backend': backend})
            for backend in backends
            for names in shares
        ),
    ]


def run(base: Request, backends: Sequence[str], on_row: OnRow = lambda _: None) -> Report:
    """Run all cases of `base` for all backends; `on_row` hears of each row when it is there."""
    rows: list[Row] = []
    for request in requests(base, backends):
        for row in _in_child(request):
            rows.append(row)
            on_row(row)
    return Report(
        date=datetime.now(UTC).isoformat(timespec='seconds'),
        size=base.size,
        threads=base.threads,
        repeats=base.repeats,
        machine=machine.facts(),
        limits=_limits(rows),
        rows=tuple(rows),
    )


def _limits(rows: Sequence[Row]) -> tuple[Limit, ...]:
    found = {row.limit.model_dump_json(): row.limit for row in rows if row.limit is not None}
    return tuple(found.values())


def _in_child(request: Request) -> Iterator[Row]:
    """Yield the rows of a new process; what it leaves out when it dies is a row that says so."""
    seen = set()
    with tempfile.TemporaryFile('w+') as errors:
        with subprocess.Popen(
            [sys.executable, '-m', CHILD, request.model_dump_json()],
            env=machine.environment(request.threads),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                row = Row.parse(json.loads(line), source='a benchmark process')
                seen.add(row.case)
                yield row
        if child.returncode:
            reason = _death(child.returncode, errors)
            left = [name for name in request.cases if name not in seen] or [request.cases[-1]]
            for name in left:
                yield Row(
                    case=name, what='-', backend=request.backend, status='failed', reason=reason
                )


def _death(code: int, errors: IO[str]) -> str:
    errors.seek(0)
    lines = errors.read().strip().splitlines()
    end = f'signal {-code}' if code < 0 else f'exit code {code}'
    return f'its process ended with {end}: {lines[-1] if lines else "no message"}'
