"""What arrays a file has, from their headers alone: a small file may say that it has terabytes."""

from __future__ import annotations

import bz2
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from ptychodus_torch_plugin.bundle.limits import HEADER_BYTES, TOTAL_BYTES
from ptychodus_torch_plugin.errors import PluginError, ScanFileError
from ptychodus_torch_plugin.files.damage import as_text, damage_reported

_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""By version of NumPy's format; later ones are for records, which hold no patterns."""

_SUFFIX = '.npy'


class Header(NamedTuple):
    """Shape and dtype of an array, as the file states them."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f'{self.shape} {self.dtype}'


def array_headers(path: Path) -> dict[str, Header]:
    """Return the headers of the arrays of numbers of an NPZ or HDF5 file; none if it is neither.

    No array is read, however well it is compressed; a damaged one is left out.
    """
    found: dict[str, Header] = {}
    with suppress(PluginError), damage_reported('the file'), _readers(path) as readers:
        for key in sorted(readers):
            with suppress(PluginError), damage_reported(key):
                header = readers[key]()
                if header.dtype.kind in 'biufc' and header.shape is not None:
                    found[key] = header
    return found


@contextmanager
def _readers(path: Path) -> Iterator[Mapping[str, Callable[[], Header]]]:
    """Yield what reads the header of each array."""
    if h5py.is_hdf5(path):
        with h5py.File(path, 'r') as file:
            yield {as_text(key): partial(_of_dataset, file, key) for key in file}
        return
    with _opened(path) as stream, zipfile.ZipFile(stream) as archive:
        names = [name for name in archive.namelist() if name.endswith(_SUFFIX)]
        yield {name.removesuffix(_SUFFIX): partial(_of_member, archive, name) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked if bz2 packed it."""
    if path.suffix != '.bz2':
        with path.open('rb') as stream:
            yield stream
        return
    with bz2.open(path) as packed:
        content = packed.read(TOTAL_BYTES + 1)
    if len(content) > TOTAL_BYTES:
        raise ScanFileError(
            f'the bz2 file holds more than {TOTAL_BYTES} bytes; expected less, or an NPZ file.'
        )
    yield io.BytesIO(content)


def _of_dataset(file: h5py.File, key: str) -> Header:
    return Header(file[key].shape, file[key].dtype)


def _of_member(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(name) as stream:
        # The length of the header is a claim, too.
        return npy_header(io.BytesIO(stream.read(HEADER_BYTES)))[0]


def npy_header(stream: BinaryIO) -> tuple[Header, bool]:
    """Read the header of an array in NumPy's format, and whether it is in Fortran order."""
    shape, fortran_order, dtype = _READERS[np.lib.format.read_magic(stream)](stream)
    return Header(shape, dtype), fortran_order
