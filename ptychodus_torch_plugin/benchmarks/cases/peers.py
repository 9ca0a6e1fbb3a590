"""Other programs on the same scan, on the same machine, in the same run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.benchmarks import ptychi_script
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.machine import environment
from ptychodus_torch_plugin.benchmarks.measuring import Clock, Measurable, NotRun, Part, Story
from ptychodus_torch_plugin.benchmarks.results import Limit, Timing, Value, Work
from ptychodus_torch_plugin.benchmarks.scans import make_scan

ENGINES = ('LSQML', 'rPIE', 'autodiff')
PATTERNS = {64: 1024, 128: 256}

WARM_UP_EPOCHS = 2
"""The second one is the first in which LSQML refines the probe."""

SPARE_PX = 8
"""Pixels of the object beyond the outermost patches."""


class PeerError(Exception):
    """A program of somebody else ended with an error."""


def ptychi(context: Context) -> Iterator[Measurable]:
    """Epochs of engines of pty-chi with a refined probe and sub-pixel positions."""
    reason = _missing(context.ptychi_python)
    for n_px, n in PATTERNS.items():
        for engine in ENGINES:
            problem: dict[str, Value] = {'N': n_px, 'patterns': n, 'engine': engine}
            if reason:
                yield NotRun('epoch', problem, reason)
            else:
                yield Story(problem, partial(_epochs, context, engine, n_px, n))


def _missing(python: Path | None) -> str:
    """Return why pty-chi cannot be run, or nothing."""
    if python is None:
        return 'no Python with pty-chi was named; see --ptychi_python'
    try:
        ran = subprocess.run(
            [python, '-c', 'import ptychi.api'], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f'the Python of --ptychi_python does not start: {error.strerror}'
    if ran.returncode:
        return f'the Python of --ptychi_python has no pty-chi: {_last_line(ran.stderr)}'
    return ''


def _epochs(
    context: Context, engine: str, n_px: int, n: int, _: Clock, repeats: int
) -> Iterator[Part]:
    path = context.folder / f'scan-{n_px}.npz'
    if not path.exists():
        _write(path, n_px, n)
    found = _run(context, path, engine, WARM_UP_EPOCHS + repeats)
    times = [Timing(cpu_s=cpu, wall_s=wall) for cpu, wall in found['epochs'][WARM_UP_EPOCHS:]]
    rate = found['ffts']
    limit = Limit(
        backend='ptychi', name=f'fft2 {n_px}', unit='transforms', per_core_s=rate[0], per_s=rate[1]
    )
    work = Work(amount=n, unit='visits', limit=limit.name, limit_units=2 * n)
    yield Part(
        'epoch',
        times,
        work,
        limit=limit,
        own_memory=False,
        peak_bytes=1024 * found['peak_kilobytes'],
    )


def _write(path: Path, n_px: int, n: int) -> None:
    scan = make_scan(n, n_px)
    shape = [2 * (size // 2) + SPARE_PX for size in scan.frame.shape]
    probe = scan.probe * np.sqrt(scan.mean_counts() / np.sum(np.abs(scan.probe) ** 2))
    np.savez(
        path,
        counts=scan.patterns,
        positions_px=scan.positions_px,
        probe=probe,
        object=np.ones(shape, np.complex64),
    )


def _run(context: Context, path: Path, engine: str, epochs: int) -> dict[str, Any]:
    assert context.ptychi_python is not None
    script = str(ptychi_script.__file__)
    ran = subprocess.run(
        [context.ptychi_python, script, path, engine, str(epochs)],
        env=environment(context.threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise PeerError(f'{engine} of pty-chi: {_last_line(ran.stderr)}')
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else 'no message'
