"""Reconstructs one scan by a method of this package, in a process of its own.

    python -m ptychodus_torch_plugin.benchmarks.quality.own_child REQUEST

REQUEST is a `Request` as JSON.  The object is written, and one line of JSON said on stdout.  The
scan has no truth in it: nothing here can see one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.backends.protocol import Reconstruction
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.benchmarks.quality.methods import laid_over
from ptychodus_torch_plugin.config import RunConfig
from ptychodus_torch_plugin.config.settings import Settings
from ptychodus_torch_plugin.scan import ScanData

FEW_PATTERNS = 16
BRIEFLY = {'training': {'epochs': 1}}


class Request(Settings):
    """What one process is to do."""

    scan: Path
    """Counts, positions, probe and a flat object; see `driver.write_scan`."""
    object_file: Path
    """Where the object goes (.npy)."""
    settings: dict[str, Any]
    """Settings by section."""
    model_path: str | None = None
    """A model that was trained before."""
    backend: str
    """Who computes."""
    threads: int = 1
    """Of every computation."""


def run(request: Request) -> dict[str, Any]:
    """Reconstruct; return processor time, stage and versions.

    A few patterns are reconstructed before the clock starts, so that nothing has to be imported
    while it runs.
    """
    scan = read_scan(request.scan)
    settings = settings_of(request, scan.n_px)
    brief = request.model_copy(update={'settings': _briefly(request.settings)})
    few = settings_of(brief, scan.n_px)
    reconstruct(request, scan.subset(np.arange(min(FEW_PATTERNS, scan.n_patterns))), few)
    start = time.process_time()
    found = reconstruct(request, scan, settings)
    cpu_s = time.process_time() - start
    np.save(request.object_file, found.object_)
    versions = get_backend(request.backend).versions()
    return {'cpu_s': cpu_s, 'stage': found.stage, 'versions': versions}


def settings_of(request: Request, n_px: int) -> RunConfig:
    """Return all settings of a request, for patterns of `n_px` pixels."""
    base = {
        'backend': request.backend,
        'model': {'N': n_px},
        'execution': {'accelerator': 'cpu', 'num_threads': request.threads},
    }
    values = laid_over(base, request.settings)
    return RunConfig.parse(values, source='a method')


def _briefly(settings: dict[str, Any]) -> dict[str, Any]:
    unrolled = settings.get('model', {}).get('architecture') == 'unrolled'
    return laid_over(settings, BRIEFLY) if unrolled else settings


def read_scan(path: Path) -> ScanData:
    """Return the scan that `driver.write_scan` wrote."""
    with np.load(path) as arrays:
        scan = {name: arrays[name] for name in arrays.files}
    n_px = scan['counts'].shape[-1]
    return ScanData(
        patterns=scan['counts'],
        positions_px=scan['positions_px'],
        probe=scan['probe'],
        bad_pixels=np.zeros((n_px, n_px), np.bool_),
        object_guess=scan['object'],
        name=path.stem,
    )


def reconstruct(request: Request, scan: ScanData, settings: RunConfig) -> Reconstruction:
    """Reconstruct a scan by the model asked for, which is trained on this very scan if need be."""
    wanted = settings.model
    if request.model_path is None:
        model = api.train(
            [scan], wanted, settings.training, settings.execution, backend=settings.backend
        )
    else:
        model = api.with_sweeps(
            api.load_bundle(request.model_path, backend=settings.backend),
            sweeps_before=wanted.sweeps_before or 'automatic',
            **wanted.sweeps.to_json(),
        )
    return api.reconstruct(model, scan, settings.inference, settings.execution)


def main(request: str) -> None:
    """Do what a request asks for."""
    # What frameworks print must not mix with the answer.
    with os.fdopen(os.dup(1), 'w') as out:
        os.dup2(2, 1)
        values = json.loads(request)
        out.write(json.dumps(run(Request.parse(values, source='request'))) + '\n')


if __name__ == '__main__':
    main(sys.argv[1])
