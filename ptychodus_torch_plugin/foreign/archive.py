"""The zip archives of PtychoPINN, and those within them: names, checked bytes, nothing else."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ptychodus_torch_plugin.bundle.container import open_file
from ptychodus_torch_plugin.bundle.errors import (
    BundleLimitError,
    CorruptBundleError,
    UnsafeMemberError,
    quoted,
)
from ptychodus_torch_plugin.bundle.foreign import is_foreign
from ptychodus_torch_plugin.bundle.limits import DIRECTORY_BYTES
from ptychodus_torch_plugin.bundle.zip_checks import (
    check_compression,
    check_end_record,
    defects_as_corrupt,
    member_fault,
    read_member,
)
from ptychodus_torch_plugin.errors import BundleError

# What PyTorch puts before the end record, at any size (APPNOTE 4.3.14 and 4.3.15).
_ZIP64_TAIL = struct.Struct('<4sQ2H2L4Q 4sLQL')
_ZIP64_SIGNATURE = b'PK\x06\x06'
_ZIP64_LOCATOR_SIGNATURE = b'PK\x06\x07'
_END_RECORD_BYTES = 22


class Archive:
    """An archive whose member names and kinds have been checked.

    Attributes
    ----------
    source
        What to call it in a message.
    names
        Names of all members.
    """

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self.source = source
        with defects_as_corrupt(source):
            _check_end(stream, source)
            self._zip = zipfile.ZipFile(stream)
            members = self._zip.infolist()
        self.names = tuple(info.orig_filename for info in members)
        for info in members:
            fault = member_fault(info, self.names)
            if fault:
                raise UnsafeMemberError(
                    f'{source} has the member {quoted(info.orig_filename)}, {fault}; expected '
                    'regular, unencrypted members, each once.'
                )

    def source_of(self, name: str) -> str:
        """Return what to call a member in a message."""
        return f'{name} of {self.source}'

    def read(self, name: str, *, at_most: int) -> bytes:
        """Return the bytes of a member.

        Raises
        ------
        CorruptBundleError
            If there is no such member, or its bytes are not as declared.
        BundleLimitError
            If it is larger than `at_most` bytes, or compressed beyond belief.
        """
        if name not in self.names:
            raise CorruptBundleError(
                f'{self.source} lacks the member {name}. Take the archive as PtychoPINN wrote it.'
            )
        info = self._zip.getinfo(name)
        if info.file_size > at_most:
            raise BundleLimitError(
                f'{self.source_of(name)} has {info.file_size} bytes; expected at most {at_most}.'
            )
        check_compression(self.source, info)
        return read_member(self._zip, info, self.source_of(name))


@contextmanager
def open_archive(path: str | Path) -> Iterator[tuple[Archive, str]]:
    """Open an archive, or the one in a folder; yield it and its SHA-256 in hexadecimal.

    Raises
    ------
    BundleError
        A subclass per defect, see `bundle.errors`.
    """
    with open_file(path) as stream:
        archive = Archive(stream, str(stream.name))
        yield archive, _sha256(stream)


def open_inner(data: bytes, source: str) -> Archive:
    """Return the archive that a member is; errors as `open_archive`."""
    return Archive(io.BytesIO(data), source)


def is_archive(path: str | Path) -> bool:
    """Whether a file, or the one in a folder, has the members of an archive of PtychoPINN."""
    try:
        with open_file(path) as stream:
            return is_foreign(Archive(stream, str(path)).names)
    except BundleError:
        return False


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def _check_end(stream: BinaryIO, source: str) -> None:
    """Bound the zip directory as `check_end_record` does, also that of an archive of PyTorch."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _END_RECORD_BYTES - _ZIP64_TAIL.size))
    tail = stream.read(_ZIP64_TAIL.size)
    if len(tail) < _ZIP64_TAIL.size or tail[-20:-16] != _ZIP64_LOCATOR_SIGNATURE:
        check_end_record(source, stream)
        return
    record = _ZIP64_TAIL.unpack(tail)
    signature, length, offset, place = record[0], record[8], record[9], record[12]
    if length > DIRECTORY_BYTES:
        raise BundleLimitError(
            f'{source} has a zip directory of {length} bytes; expected at most {DIRECTORY_BYTES}.'
        )
    start = size - _END_RECORD_BYTES - _ZIP64_TAIL.size
    if signature != _ZIP64_SIGNATURE or (offset + length, place) != (start, start):
        raise CorruptBundleError(
            f'{source} is not one plain zip archive: its directory is not where it should be. '
            'Copy the archive again from where it was written.'
        )
