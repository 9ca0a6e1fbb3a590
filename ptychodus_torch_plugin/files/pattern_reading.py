"""Large stacks of patterns from HDF5 and NPZ files, without ever holding one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.errors import ScanFileError
from ptychodus_torch_plugin.files.array_headers import Header, npy_header
from ptychodus_torch_plugin.pattern_store import (
    PatternFile,
    Storage,
    fits_memory,
    rows_per_block,
    stored,
)


def hdf5_patterns(file: h5py.File, key: str) -> PatternFile | None:
    """Return the patterns (n, h, w) of a large dataset; `None` if it is small or something else.

    A dataset that lies in the file as one block is read where it is; others are unpacked into a
    temporary file.
    """
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset) or not _is_large(Header(dataset.shape, dataset.dtype)):
        return None
    home = dataset.file  # another one behind an external link
    if dataset.chunks is None and not home.userblock_size and not dataset.external:
        offset = dataset.id.get_offset()  # None if there is no such block
        if offset is not None:
            storage = Storage.opened(Path(home.filename))
            return PatternFile(storage, dataset.shape, dataset.dtype, offset)
    found = stored(_hdf5_blocks(dataset), dataset.shape, dataset.dtype)
    assert isinstance(found, PatternFile)
    return found


def _hdf5_blocks(dataset: h5py.Dataset) -> Iterator[NDArray[Any]]:
    rows = rows_per_block(dataset.shape[1:], dataset.dtype)
    chunk = dataset.chunks[0] if dataset.chunks else 1
    rows = -(-rows // chunk) * chunk  # no chunk is unpacked twice
    for first in range(0, len(dataset), rows):
        yield dataset[first : first + rows]


def npz_patterns(archive: Any, key: str) -> PatternFile | None:
    """Return the patterns (n, h, w) of a large array; `None` if it is small or something else.

    `archive` is what `numpy.load` returns.  Leading axes of length 1 are dropped.
    """
    with archive.zip.open(f'{key}.npy') as member:
        header, fortran_order = npy_header(member)
        while len(header.shape) > 3 and header.shape[0] == 1:
            header = Header(header.shape[1:], header.dtype)
        if fortran_order or not _is_large(header):
            return None
        found = stored(_npy_blocks(member, header), header.shape, header.dtype)
    assert isinstance(found, PatternFile)
    return found


def _npy_blocks(member: BinaryIO, header: Header) -> Iterator[NDArray[Any]]:
    n, *shape = header.shape
    length = int(np.prod(shape)) * header.dtype.itemsize
    rows = rows_per_block(tuple(shape), header.dtype)
    for first in range(0, n, rows):
        count = min(rows, n - first)
        content = member.read(count * length)
        if len(content) < count * length:
            raise ScanFileError(
                f'it ends after {first + len(content) // length} of {n} patterns; expected all '
                'of them. Copy or write it again.'
            )
        yield np.frombuffer(content, header.dtype).reshape(count, *shape)
    member.read(1)  # at the end of the member its checksum is compared


def _is_large(header: Header) -> bool:
    n_bytes = int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
    is_stack = len(header.shape) == 3 and header.dtype.kind in 'iuf'
    return is_stack and not fits_memory(n_bytes)
