"""Scans that are still being measured: HDF5 files that grow, folders that fill with NPZ files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from ptychodus_torch_plugin.arrays import PositionArray
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError, ScanFileError
from ptychodus_torch_plugin.files import layout
from ptychodus_torch_plugin.files.containers import Container, errors_named
from ptychodus_torch_plugin.files.conversion import (
    checked,
    converted,
    keys_named,
    with_beam_at_center,
)
from ptychodus_torch_plugin.files.damage import as_text, damage_reported
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.raw import RawScan
from ptychodus_torch_plugin.files.reading import is_part, read_raw
from ptychodus_torch_plugin.files.training_layout import read_own, read_training
from ptychodus_torch_plugin.pattern_store import GrowingPatterns
from ptychodus_torch_plugin.scan import ScanData

_GROWING_KEYS = (layout.PATTERNS, layout.POSITION_Y_PX, layout.POSITION_X_PX, layout.POSITIONS)
_PATTERNS_AT_ONCE = 256


class GrowingScan(Protocol):
    """Where the parts of a scan come from."""

    path: Path
    options: ReadOptions

    def new_parts(self) -> Iterator[RawScan]:
        """Yield what has been written since the last call, in parts, in order."""

    @property
    def complete(self) -> bool:
        """Whether the scan itself says that nothing more will come."""


class ScanSoFar:
    """All patterns that have arrived; `read` looks for more.

    Parameters
    ----------
    source
        Where they come from.
    n_patterns
        How many there will be; `None` if only the source may know.
    """

    def __init__(self, source: GrowingScan, n_patterns: int | None = None) -> None:
        self._source, self._expected = source, n_patterns
        self._first: RawScan | None = None
        self._patterns: GrowingPatterns | None = None
        self._positions: list[PositionArray] = []

    def __len__(self) -> int:
        return 0 if self._patterns is None else len(self._patterns)

    @property
    def complete(self) -> bool:
        """Whether all patterns are there, as far as anybody knows."""
        if self._expected is not None:
            return len(self) >= self._expected
        return self._source.complete

    def read(self) -> int:
        """Take what has been written since; return how many patterns are new.

        Raises
        ------
        ScanFileError
            If a part does not belong to the parts before: another N, probe, background or bad
            pixels.
        """
        before = len(self)
        for raw in self._source.new_parts():
            with keys_named(raw):
                self._add(converted(raw, self._source.options, in_parts=True))
        return len(self) - before

    def scan(self) -> ScanData:
        """Return the scan as far as it goes; there has to be a first pattern.

        Raises
        ------
        ScanFileError, ScanValueError, ShapeError
            If all patterns so far make no scan: no light, no numbers, the beam somewhere else.
        """
        assert self._first is not None
        assert self._patterns is not None
        raw = replace(
            self._first,
            patterns=self._patterns.patterns(),
            positions_px=np.concatenate(self._positions),
            indexes=None,
            name=self._source.path.name,
        )
        options = self._source.options
        with errors_named(self._source.path), keys_named(raw):
            if options.beam_center == 'auto':
                raw = with_beam_at_center(raw, options)
            return checked(raw, options)

    def _add(self, part: RawScan) -> None:
        if self._first is None or self._patterns is None:
            self._first = part
            self._patterns = GrowingPatterns(part.patterns.shape[1:])
        _check_same(self._first, part, self._source.path)
        self._patterns.append(part.patterns)
        self._positions.append(part.positions_px)


def open_growing(path: Path, options: ReadOptions) -> GrowingScan:
    """Return the source of a scan that is still being written.

    Parameters
    ----------
    path
        An HDF5 file in the layout of a scan file, or of Ptychodus' training data, whose patterns
        and positions grow; or a folder with NPZ files of any known layout, each with some patterns,
        read in the order of their names.  A file in the folder must appear at once, under its
        name (written elsewhere, then renamed).

    Raises
    ------
    ConfigError
        If the options need all patterns at once.
    InputNotFoundError
        If there is neither a file nor a folder.
    """
    if options.photons is not None:
        raise ConfigError(
            f'photons = {options.photons:g} scales by the mean of all patterns, which nobody knows '
            'while they are measured; expected counts in the file.'
        )
    if path.is_dir():
        return ChunkFolder(path, options)
    if not path.is_file():
        raise InputNotFoundError(
            f'{path}: there is no such file or folder; expected an HDF5 file that grows, or a '
            'folder for NPZ files. Start to follow when the measurement has begun.'
        )
    return GrowingFile(path, options)


class ChunkFolder:
    """A folder that fills with NPZ files."""

    complete = False
    """A folder never says."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        self.options = options
        self._taken: set[str] = set()

    def new_parts(self) -> Iterator[RawScan]:
        """Yield the scans in new files."""
        with damage_reported('the folder'):
            entries = list(os.scandir(self.path))
        new = sorted(
            entry.name for entry in entries if is_part(entry.name) and entry.name not in self._taken
        )
        for name in new:
            yield read_raw(self.path / name, self.options)
            self._taken.add(name)


class GrowingFile:
    """An HDF5 file that another process appends to, in single-writer multiple-reader mode or not.

    The scan is complete when there are as many patterns as positions, if the positions are a plan
    of the scan: arrays that cannot grow.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        self.options = options
        self._done = 0
        self._planned: int | None = None

    @property
    def complete(self) -> bool:
        """Whether the plan of the scan is fulfilled."""
        return self._done == self._planned

    def new_parts(self) -> Iterator[RawScan]:
        """Yield the entries that are new, in parts."""
        with errors_named(self.path), _opened(self.path) as file:
            lengths = _lengths(file)
            planned = [lengths[key] for key in lengths if key != layout.PATTERNS]
            growing = (file[key].maxshape[0] for key in lengths if key != layout.PATTERNS)
            self._planned = None if None in growing else min(planned)
            available = min(lengths.values())
            while self._done < available:
                last = min(available, self._done + _PATTERNS_AT_ONCE)
                yield self._part(file, slice(self._done, last))
                self._done = last

    def _part(self, file: h5py.File, rows: slice) -> RawScan:
        container = _container(file, rows)
        own = container.attributes().get(layout.FORMAT_ATTRIBUTE) == layout.SCAN_FORMAT
        raw = read_own(container) if own else read_training(container)
        return raw.changed(f'followed in {self.path.name} while it was written')


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    # Locks would keep the writer from opening its file again.
    with damage_reported('the file'):
        try:
            file = h5py.File(path, 'r', swmr=True, locking=False)
        except ValueError:  # h5py: the file was not written for it
            file = h5py.File(path, 'r', locking=False)
    with file:
        yield file


def _lengths(file: h5py.File) -> dict[str, int]:
    """Return how many entries each growing array has by now."""
    with damage_reported('the growing arrays'):
        found = {key: len(file[key]) for key in _GROWING_KEYS if key in file}
    missing = {layout.PATTERNS, layout.POSITION_Y_PX, layout.POSITION_X_PX} - set(found)
    if missing:
        raise ScanFileError(
            f'the file has no {", ".join(sorted(missing))}; expected a scan file, or training data '
            'of Ptychodus, whose patterns and positions grow. Create the arrays before following.'
        )
    return found


def _container(file: h5py.File, rows: slice) -> Container:
    """Return the file as a container in which the growing arrays have the entries `rows` alone."""

    def fetch(key: str) -> Any:
        return file[key][rows] if key in _GROWING_KEYS else file[key][()]

    def attributes(key: str) -> dict[str, Any]:
        return dict(file[key].attrs.items())

    keys = frozenset(as_text(key) for key in file)
    return Container('HDF5', keys, fetch, lambda _: None, attributes)


def _check_same(first: RawScan, part: RawScan, path: Path) -> None:
    for name in ('probe', 'bad_pixels', 'background'):
        if not np.array_equal(getattr(first, name), getattr(part, name)):
            raise ScanFileError(
                f'{path}: {part.name} has another {name} than the parts before it (patterns of '
                f'{part.patterns.shape[1:]} px, first {first.patterns.shape[1:]} px); expected one '
                'scan with one instrument. Follow each scan in a folder of its own.'
            )
