"""What is checked of a zip archive of strangers, whatever it holds, before a member is read."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from ptychodus_torch_plugin.bundle.errors import (
    BundleLimitError,
    CorruptBundleError,
    NotABundleError,
    quoted,
)
from ptychodus_torch_plugin.bundle.limits import ARCHIVE_BYTES, COMPRESSION_RATIO, DIRECTORY_BYTES
from ptychodus_torch_plugin.errors import BundleError

# End-of-directory record of the zip format (APPNOTE 4.3.16), and what zip64 puts before it.
_END_RECORD = struct.Struct('<4s4H2LH')
_END_SIGNATURE = b'PK\x05\x06'
_ZIP64_LOCATOR_SIGNATURE = b'PK\x06\x07'
_ZIP64_LOCATOR_BYTES = 20
_ENCRYPTED_FLAGS = 0x0001 | 0x0040 | 0x2000

# `zipfile` promises BadZipFile alone, but altered files also bring these out of it.
_ZIP_DEFECTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


@contextmanager
def defects_as_corrupt(source: str) -> Iterator[None]:
    """Turn whatever a damaged archive makes `zipfile` raise into `CorruptBundleError`."""
    try:
        yield
    except BundleError:
        raise
    except _ZIP_DEFECTS as error:
        raise CorruptBundleError(
            f'{source} is damaged: {quoted(error)}. '
            'Copy the bundle again from where it was written.'
        ) from error


def check_end_record(source: str, stream: BinaryIO) -> None:
    """Bound the zip directory before `zipfile` turns it into objects, and refuse zip64.

    Raises
    ------
    NotABundleError, BundleLimitError, CorruptBundleError
        If it is no zip archive, too large, or has anything before, behind or beside one directory.
    """
    size = stream.seek(0, 2)
    if size > ARCHIVE_BYTES:
        raise BundleLimitError(f'{source} has {size} bytes; expected at most {ARCHIVE_BYTES}.')
    stream.seek(0)
    if stream.read(2) != b'PK':
        raise NotABundleError(
            f'{source} is not a zip archive; expected a model bundle (wts.h5.zip).'
        )
    stream.seek(max(0, size - _END_RECORD.size - _ZIP64_LOCATOR_BYTES))
    tail = stream.read()
    record = tail[-_END_RECORD.size :]
    if len(record) < _END_RECORD.size or not record.startswith(_END_SIGNATURE):
        raise CorruptBundleError(
            f'{source} does not end with the directory of a zip archive: it is truncated, or has '
            'something appended. Copy the bundle again from where it was written.'
        )
    _, disk, first_disk, _, count, length, offset, comment = _END_RECORD.unpack(record)
    if length > DIRECTORY_BYTES:
        raise BundleLimitError(
            f'{source} has a zip directory of {length} bytes for {count} members; '
            f'expected at most {DIRECTORY_BYTES}.'
        )
    zip64 = tail[: -_END_RECORD.size].startswith(_ZIP64_LOCATOR_SIGNATURE)
    if disk or first_disk or comment or zip64 or offset + length + _END_RECORD.size != size:
        raise CorruptBundleError(
            f'{source} is not one plain zip archive: its directory is not where it should be, or '
            'it uses zip64 or several parts. Copy the bundle again from where it was written.'
        )


def member_fault(info: zipfile.ZipInfo, names: Sequence[str]) -> str | None:
    """Return what no archive may have about a member, or None.

    Parameters
    ----------
    info
        The member.
    names
        Names of all members.
    """
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    faults = {
        'whose path is absolute': name.startswith('/') or name[1:2] == ':',
        'whose path leaves the archive': '..' in name.replace('\\', '/').split('/'),
        'whose name has a backslash': '\\' in name,
        'which is a folder': name.endswith('/') or stat.S_ISDIR(kind),
        'which is a symbolic link': stat.S_ISLNK(kind),
        'which is a special file': kind not in (0, stat.S_IFREG),
        'which occurs more than once': names.count(name) > 1,
        'which is encrypted': bool(info.flag_bits & _ENCRYPTED_FLAGS),
        f'compressed by method {info.compress_type} (only stored and deflated are read)': (
            info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        ),
    }
    return next((fault for fault, found in faults.items() if found), None)


def check_compression(source: str, info: zipfile.ZipInfo) -> None:
    """Refuse a member that says that it grows too much, or that contradicts itself."""
    if info.file_size > COMPRESSION_RATIO * info.compress_size:
        raise BundleLimitError(
            f'{info.filename} of {source} says that it grows from {info.compress_size} to '
            f'{info.file_size} bytes; expected at most {COMPRESSION_RATIO} times as much.'
        )
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise CorruptBundleError(
            f'{info.filename} of {source} is stored in {info.compress_size} bytes but says it '
            f'has {info.file_size}. Copy the bundle again from where it was written.'
        )


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> bytes:
    """Return the bytes of a member; `CorruptBundleError` if they are not as many as declared."""
    with defects_as_corrupt(source), archive.open(info.filename) as stream:
        # Never more than was declared, whatever the compressed stream holds.
        data = stream.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise CorruptBundleError(
            f'{source} has {len(data)} bytes; its header says {info.file_size}. '
            'Copy the bundle again from where it was written.'
        )
    return data
