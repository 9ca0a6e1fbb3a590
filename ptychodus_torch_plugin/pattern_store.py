"""Stacks of diffraction patterns too large for memory: on disk, fetched as they are needed.

`PatternFile` stands where an array of patterns stands, `(n, h, w)` of any real dtype, but keeps no
pattern in memory: `patterns[indices]` reads those patterns and nothing else.  What has to be done
to all patterns (convert, square, crop, pick some) is remembered and done to those that are fetched.
The functions here do to both kinds what NumPy does to arrays alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import FloatArray, IndexArray
from ptychodus_torch_plugin.errors import OutputError, ScanFileError

RESIDENT_BYTES = 2**26
"""Stacks of patterns up to this size are kept in memory."""

BLOCK_BYTES = 2**22
"""About how much is read, or computed, at once."""

Step = Callable[[NDArray[Any]], NDArray[Any]]
"""Makes patterns (k, h', w') of patterns (k, h, w), each of its own alone."""


@dataclass(frozen=True)
class Summary:
    """What one look at all patterns says.

    Attributes
    ----------
    total : (h, w) float64
        Sum of all patterns.
    lowest, highest
        Extreme values; NaN if any value is NaN.
    infinite
        How many values are NaN or infinite.
    first_infinite, first_negative
        Index of the first such value, None if there is none.
    whole
        Whether all values are whole numbers.
    """

    total: NDArray[np.float64]
    lowest: float
    highest: float
    infinite: int
    first_infinite: tuple[int, ...] | None
    first_negative: tuple[int, ...] | None
    whole: bool

    def __add__(self, later: Summary) -> Summary:
        """Return the summary of both; indices are those of the whole stack in each."""
        return Summary(
            total=self.total + later.total,
            lowest=min(self.lowest, later.lowest),
            highest=max(self.highest, later.highest),
            infinite=self.infinite + later.infinite,
            first_infinite=self.first_infinite or later.first_infinite,
            first_negative=self.first_negative or later.first_negative,
            whole=self.whole and later.whole,
        )


@dataclass(frozen=True, eq=False)
class PatternFile:
    """Patterns (n, h, w) on disk, in place of an array; only whole patterns are indexed.

    It lives as long as this process and cannot be handed to another one, except by forking.

    Attributes
    ----------
    storage
        The file.
    stored_shape, stored_dtype
        What it holds, from `offset` on, in C order.
    offset
        Bytes before the first pattern.
    rows : (n,) int64 or None
        Which of the stored patterns these are; None: all.
    steps
        What is done to patterns when they are fetched.
    """

    storage: Storage
    stored_shape: tuple[int, ...]
    stored_dtype: np.dtype[Any]
    offset: int = 0
    rows: IndexArray | None = None
    steps: tuple[Step, ...] = ()

    ndim: ClassVar[int] = 3

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(n, h, w)."""
        n = self.stored_shape[0] if self.rows is None else len(self.rows)
        return (n, *self._example.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the patterns that are fetched."""
        return self._example.dtype

    @cached_property
    def _example(self) -> NDArray[Any]:
        """No pattern at all, after the steps."""
        return self._after_steps(np.empty((0, *self.stored_shape[1:]), self.stored_dtype))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes that the patterns would take in memory."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, index: slice | int | IndexArray) -> NDArray[Any]:
        """Read patterns: (h, w) for a number, else (..., h, w) for indices (...)."""
        chosen = self._checked(index)
        rows = chosen.reshape(-1)
        stored = self._read(rows if self.rows is None else self.rows[rows])
        return self._after_steps(stored).reshape(*chosen.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError('patterns on disk become an array only by reading, that is, copying')
        return self[:] if dtype is None else self[:].astype(dtype)

    def __reduce__(self) -> Any:
        raise TypeError(
            'patterns that are kept on disk cannot be handed to another process; expected '
            'num_workers = 0, or a scan of less than '
            f'{RESIDENT_BYTES // 2**20} MiB, which is kept in memory.'
        )

    def mapped(self, step: Step) -> PatternFile:
        """Return these patterns after `step`, which is done whenever some are fetched."""
        return replace(self, steps=(*self.steps, step))

    def taken(self, indices: IndexArray) -> PatternFile:
        """Return the patterns `indices` (k,) int64, still on disk."""
        rows = self._checked(indices)
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    @cached_property
    def summary(self) -> Summary:
        """What one look at all patterns says; taken once."""
        return _summarise(self)

    def _checked(self, index: slice | int | IndexArray) -> IndexArray:
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        chosen = np.asarray(index)
        if chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        outside = (chosen < -len(self)) | (chosen >= len(self))
        if outside.any():
            raise IndexError(f'pattern {chosen[outside][0]} of {len(self)} does not exist')
        return np.where(chosen < 0, chosen + len(self), chosen)

    def _after_steps(self, patterns: NDArray[Any]) -> NDArray[Any]:
        for step in self.steps:
            patterns = step(patterns)
        return patterns

    def _read(self, rows: IndexArray) -> NDArray[Any]:
        patterns = np.empty((len(rows), *self.stored_shape[1:]), self.stored_dtype)
        length = int(np.prod(self.stored_shape[1:])) * self.stored_dtype.itemsize
        buffer = patterns.reshape(-1).view(np.uint8).data
        done = 0
        # Patterns that follow each other in the file are read at once.
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []:
            part = buffer[done : done + len(run) * length]
            self.storage.read(part, self.offset + int(run[0]) * length)
            done += len(part)
        return patterns


Patterns = FloatArray | PatternFile


class GrowingPatterns:
    """Patterns (n, h, w) float32 that arrive in parts, on disk from the first one on."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._storage = Storage.temporary(0)
        self._shape, self._count = shape, 0
        self._summary: Summary | None = None

    def __len__(self) -> int:
        return self._count

    def append(self, patterns: Patterns) -> None:
        """Add patterns (k, h, w) float32 behind those that are there."""
        for _, block in blocks(patterns):
            self._storage.append(block)
        seen = summary(patterns)
        self._summary = seen if self._summary is None else self._summary + seen
        self._count += len(patterns)

    def patterns(self) -> PatternFile:
        """Return all patterns so far; later ones do not change it."""
        found = PatternFile(self._storage, (self._count, *self._shape), np.dtype(np.float32))
        if self._summary is not None:
            # `cached_property` looks here first: nobody needs to read them all again.
            vars(found)['summary'] = self._summary
        return found


class Storage:
    """A file that several threads, and forked processes, may read at once."""

    def __init__(self, descriptor: int, *, remove: Path | None = None) -> None:
        self.descriptor = descriptor
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, _close, descriptor, remove)

    @classmethod
    def opened(cls, path: Path) -> Storage:
        """Return the existing file `path`, to be read."""
        return cls(os.open(path, os.O_RDONLY | getattr(os, 'O_BINARY', 0)))

    @classmethod
    def temporary(cls, n_bytes: int) -> Storage:
        """Return an empty file with room for `n_bytes`, which goes when nobody reads it any more.

        Raises
        ------
        OutputError
            If the disk has no room.
        """
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < n_bytes:
            raise OutputError(
                f'{n_bytes / 2**30:.1f} GiB of patterns do not fit into the folder for temporary '
                f'files, {folder}, which has {free / 2**30:.1f} GiB left; expected room for them, '
                'as they are unpacked there. Name another folder in the variable TMPDIR, or '
                'convert the scan to an uncompressed HDF5 file, which is read where it is.'
            )
        descriptor, name = tempfile.mkstemp(prefix='ptychodus_torch_plugin_patterns_')
        path = Path(name)
        try:
            path.unlink()  # nothing is left behind, however this process ends
        except OSError:  # Windows keeps a file while it is open
            return cls(descriptor, remove=path)
        return cls(descriptor)

    def append(self, block: NDArray[Any]) -> None:
        """Write an array behind what is there."""
        rest = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
        try:
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError as error:
            raise OutputError(
                f'patterns cannot be kept in the folder for temporary files, '
                f'{tempfile.gettempdir()} ({error.strerror or error}); expected room for them. '
                'Name another folder in the variable TMPDIR.'
            ) from error

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from byte `offset` on; raise `ScanFileError` if the file ends before."""
        while buffer:
            count = self._read_some(buffer, offset)
            if count == 0:
                raise ScanFileError(
                    f'a file of patterns ends at byte {offset}, {len(buffer)} bytes too early; '
                    'expected it to stay as it was. Did another program change it meanwhile?'
                )
            buffer, offset = buffer[count:], offset + count

    def _read_some(self, buffer: memoryview, offset: int) -> int:
        if hasattr(os, 'preadv'):
            return os.preadv(self.descriptor, [buffer], offset)
        with self._lock:
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            content = os.read(self.descriptor, len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _close(descriptor: int, remove: Path | None) -> None:
    os.close(descriptor)
    if remove is not None:
        remove.unlink(missing_ok=True)


def fits_memory(n_bytes: int) -> bool:
    """Return whether a stack of patterns of this size is kept in memory."""
    return n_bytes <= RESIDENT_BYTES


def stored(
    blocks: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any] | PatternFile:
    """Return patterns (n, h, w) that come in blocks: an array, or on disk if they are many."""
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    if fits_memory(n_bytes):
        return np.concatenate([np.empty((0, *shape[1:]), dtype), *blocks])
    storage = Storage.temporary(n_bytes)
    for block in blocks:
        storage.append(block)
    return PatternFile(storage, shape, dtype)


def mapped(patterns: Any, step: Step) -> Any:
    """Return patterns after `step`, in memory or on disk as they were."""
    return patterns.mapped(step) if isinstance(patterns, PatternFile) else step(patterns)


def taken(patterns: Any, indices: IndexArray) -> Any:
    """Return the patterns `indices` (k,) int64, in memory or on disk as they were."""
    return patterns.taken(indices) if isinstance(patterns, PatternFile) else patterns[indices]


def outline(patterns: Any) -> NDArray[Any]:
    """Return an array of the same shape and dtype that takes no memory, for checks of both."""
    if not isinstance(patterns, PatternFile):
        return np.asarray(patterns)
    return np.broadcast_to(np.zeros((), patterns.dtype), patterns.shape)


def summary(patterns: Any) -> Summary:
    """Return what one look at all patterns (n, h, w) says."""
    return patterns.summary if isinstance(patterns, PatternFile) else _summarise(patterns)


def blocks(patterns: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield all patterns in parts (k, h, w), each after the index of its first."""
    per_block = rows_per_block(patterns.shape[1:], patterns.dtype)
    for first in range(0, len(patterns), per_block):
        yield first, patterns[first : first + per_block]


def rows_per_block(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return how many patterns of `shape` (h, w) make a block."""
    return max(1, BLOCK_BYTES // max(1, int(np.prod(shape)) * dtype.itemsize))


def _summarise(patterns: Any) -> Summary:
    total = np.zeros(patterns.shape[1:], np.float64)
    extremes = []
    infinite, first_infinite, first_negative, whole = 0, None, None, True
    for first, block in blocks(patterns):
        with np.errstate(invalid='ignore'):
            total += block.sum(axis=0, dtype=np.float64)
        extremes.append((float(block.min()), float(block.max())))
        if not np.isfinite(extremes[-1]).all():
            bad = ~np.isfinite(block)
            infinite += int(np.count_nonzero(bad))
            first_infinite = first_infinite or _first(bad, first)
        if first_negative is None and extremes[-1][0] < 0:
            first_negative = _first(block < 0, first)
        whole = whole and np.array_equal(block, np.rint(block))
    lowest, highest = np.asarray(extremes).T if extremes else ([0.0], [0.0])
    return Summary(
        total=total,
        lowest=float(np.min(lowest)),
        highest=float(np.max(highest)),
        infinite=infinite,
        first_infinite=first_infinite,
        first_negative=first_negative,
        whole=whole,
    )


def _first(where: NDArray[np.bool_], first: int) -> tuple[int, ...] | None:
    """Return the index of the first True, counted from pattern `first` of the stack."""
    found = np.argwhere(where)
    if len(found) == 0:
        return None
    pattern, row, column = (int(i) for i in found[0])
    return first + pattern, row, column
