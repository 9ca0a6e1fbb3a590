"""Named arrays of an NPZ or HDF5 file, with every defect of the file told in one kind of error."""

from __future__ import annotations

import bz2
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters that detectors write
import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.errors import InputNotFoundError, PluginError, ScanFileError
from ptychodus_torch_plugin.files.damage import as_text, damage_reported
from ptychodus_torch_plugin.files.pattern_reading import hdf5_patterns, npz_patterns
from ptychodus_torch_plugin.pattern_store import PatternFile, Patterns

MAX_DECOMPRESSED_BYTES = 8 * 2**30

_ZIP_SIGNATURE = b'PK'
_BZ2_SIGNATURE = b'BZh'


@dataclass(frozen=True)
class Container:
    """An open file of named arrays.

    Attributes
    ----------
    layout
        Which of the two kinds of file it is.
    keys
        Names of the arrays.
    """

    layout: Literal['NPZ', 'HDF5']
    keys: frozenset[str]
    _fetch: Callable[[str], Any]
    _fetch_patterns: Callable[[str], PatternFile | None]
    _fetch_attributes: Callable[[str], Mapping[str, Any]]

    def array(self, key: str) -> NDArray[Any]:
        """Return the array `key`; raise `ScanFileError` if it is missing, damaged or no numbers."""
        if key not in self.keys:
            raise ScanFileError(
                f'key {key!r} is missing; the file has {self.describe_keys()}; '
                'expected a file with this array.'
            )
        with damage_reported(f'key {key!r}'):
            array = np.asarray(self._fetch(key))
        if array.dtype.kind not in 'biufc':
            raise ScanFileError(
                f'key {key!r} has dtype {array.dtype}; expected an array of numbers.'
            )
        return array

    def patterns(self, key: str) -> Patterns:
        """Return the stack of patterns `key`, on disk if it is large, else as `array` does."""
        if key not in self.keys:
            return self.array(key)
        with damage_reported(f'key {key!r}'):
            large = self._fetch_patterns(key)
        return self.array(key) if large is None else large

    def optional(self, key: str) -> NDArray[Any] | None:
        """Return the array `key`, or `None` if the file has no such key."""
        return self.array(key) if key in self.keys else None

    def attributes(self, key: str = '/') -> Mapping[str, Any]:
        """Return the attributes of the root or of one array; an NPZ file has none."""
        with damage_reported(f'the attributes of {key!r}'):
            return self._fetch_attributes(key)

    def describe_keys(self) -> str:
        """Return the keys as text for a message, or what to say when there are none."""
        return f'the keys {", ".join(sorted(self.keys)[:30])}' if self.keys else 'no arrays at all'


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open an NPZ, bz2-compressed NPZ or HDF5 file; its first bytes say which it is.

    Raises
    ------
    InputNotFoundError, ScanFileError
        If there is no such file, or it is truncated or of another kind.  The messages do not name
        the file: see `errors_named`.
    """
    if not path.is_file():
        found = 'it is a folder' if path.is_dir() else 'there is no such file'
        raise InputNotFoundError(f'{found}; expected an NPZ or HDF5 file.')
    with damage_reported('the file'), path.open('rb') as stream:
        start = stream.read(8)
    if start.startswith(_ZIP_SIGNATURE):
        with path.open('rb') as stream:
            yield from _npz(stream)
    elif start.startswith(_BZ2_SIGNATURE):
        yield from _npz(io.BytesIO(_decompressed(path)))
    elif h5py.is_hdf5(path):
        yield from _hdf5(path)
    else:
        raise ScanFileError(
            f'the file starts with {start!r}, which is neither NPZ, bz2 nor HDF5; '
            'expected a scan in one of these. It may be truncated or of another program.'
        )


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Put the name of the file before the message of any `PluginError`; keep its class."""
    try:
        yield
    except PluginError as error:
        raise type(error)(f'{path}: {error}') from error


def _npz(stream: BinaryIO) -> Iterator[Container]:
    with damage_reported('the file'):
        archive = np.load(stream, allow_pickle=False)
    with archive:
        yield Container(
            'NPZ',
            frozenset(archive.files),
            archive.__getitem__,
            partial(npz_patterns, archive),
            lambda _: {},
        )


def _hdf5(path: Path) -> Iterator[Container]:
    with damage_reported('the file'):
        file = h5py.File(path, 'r')
        keys = frozenset(as_text(key) for key in file)  # bytes where the name is no UTF-8
    with file:
        # h5py refuses [()] on a group, which array() then reports.
        yield Container(
            'HDF5',
            keys,
            lambda key: file[key][()],
            partial(hdf5_patterns, file),
            lambda key: dict(file[key].attrs.items()),
        )


def _decompressed(path: Path) -> bytes:
    with damage_reported('the bz2 file'), bz2.open(path) as stream:
        content = stream.read(MAX_DECOMPRESSED_BYTES + 1)
    if len(content) > MAX_DECOMPRESSED_BYTES:
        raise ScanFileError(
            f'the bz2 file holds more than {MAX_DECOMPRESSED_BYTES} bytes; '
            'expected less, for it is unpacked in memory. Unpack it with bunzip2 first.'
        )
    if not content.startswith(_ZIP_SIGNATURE):
        raise ScanFileError('the bz2 file holds no NPZ archive; expected name.npz.bz2.')
    return content
