"""Reading a scan file, in each of the formats that we write."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.measuring import Task
from ptychodus_torch_plugin.benchmarks.results import Work
from ptychodus_torch_plugin.benchmarks.scans import make_scan
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import (
    write_ptychodus_npz,
    write_ptychopinn_npz,
    write_scan,
)

FORMATS = {
    'HDF5, compressed': ('scan.h5', write_scan),
    'NPZ of counts': ('counts.npz', write_ptychodus_npz),
    'NPZ of amplitudes': ('amplitudes.npz', write_ptychopinn_npz),
}


def reading(context: Context) -> Iterator[Task]:
    """A whole scan into memory, checked; the file is in the system's cache."""
    for n_px in context.size.sides_px:
        for n in context.size.fitting(context.size.patterns, n_px):
            scan = make_scan(n, n_px)
            for what, (name, write) in FORMATS.items():
                path = context.folder / name
                write(path, scan)
                yield Task(
                    what,
                    {'N': n_px, 'patterns': n},
                    partial(_read, path),
                    Work(amount=n, unit='patterns'),
                )
                path.unlink()


def _read(path: Path) -> None:
    read_scan(path).mean_counts()
