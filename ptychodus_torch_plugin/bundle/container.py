"""The zip around a bundle: from a path to checked member bytes, and back.

Every check that needs no content (count, names, kinds, sizes) is made before the first member is
read, and the size of the zip directory before `zipfile` parses it.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ptychodus_torch_plugin.bundle.errors import (
    BundleAccessError,
    BundleLimitError,
    BundleNotFoundError,
    CorruptBundleError,
    NotABundleError,
    UnsafeMemberError,
    quoted,
)
from ptychodus_torch_plugin.bundle.foreign import refuse_foreign
from ptychodus_torch_plugin.bundle.limits import (
    ARCHIVE_BYTES,
    COMPRESSION_RATIO,
    DIRECTORY_BYTES,
    MANIFEST,
    MEMBER_BYTES,
    REQUIRED_MEMBERS,
    TOTAL_BYTES,
)
from ptychodus_torch_plugin.errors import BundleError

FILE_NAMES = ('wts.h5.zip', 'model.zip')

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


class Container:
    """An open archive whose member names, kinds and sizes have been checked.

    Attributes
    ----------
    path
        The file, for messages.
    sizes
        Declared size in bytes by member name.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self.sizes = {info.filename: info.file_size for info in archive.infolist()}

    def source(self, member: str) -> str:
        """Return what to call a member in a message."""
        return f'{member} of {self.path}'

    def read(self, member: str) -> bytes:
        """Return the bytes of a member; `CorruptBundleError` if they are not as declared."""
        size = self.sizes[member]
        with _defects_as_corrupt(self.source(member)), self._archive.open(member) as stream:
            # Never more than was declared, whatever the compressed stream holds.
            data = stream.read(size + 1)
        if len(data) != size:
            raise CorruptBundleError(
                f'{self.source(member)} has {len(data)} bytes; its header says {size}. '
                'Copy the bundle again from where it was written.'
            )
        return data


@contextmanager
def open_container(path: str | Path) -> Iterator[Container]:
    """Open a bundle, or the one in a folder, and check all that can be checked without reading it.

    Raises
    ------
    BundleNotFoundError, BundleAccessError, NotABundleError, ForeignBundleError, BundleLimitError,
    UnsafeMemberError, CorruptBundleError
        As their names say; the message has the path.
    """
    with _open_file(Path(path)) as stream:
        found = Path(stream.name)
        with _defects_as_corrupt(str(found)):
            _check_end_record(found, stream)
            archive = zipfile.ZipFile(stream)
        members = archive.infolist()
        refuse_foreign(found, [info.orig_filename for info in members])
        _check_members(found, members)
        yield Container(found, archive)


def write_container(path: Path, members: Mapping[str, bytes]) -> None:
    """Write members in their fixed order, with fixed dates and modes, so that equal is equal.

    They are stored, not deflated: weights hardly shrink, and the bytes of a deflated member would
    depend on the version of zlib.
    """
    with zipfile.ZipFile(path, 'w') as archive:
        for name in MEMBER_BYTES:
            if name in members:
                info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                info.create_system = 3  # Unix, on any machine
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, members[name])


def check_sizes(sizes: Mapping[str, int], source: str) -> None:
    """Raise `BundleLimitError` if a member, or all together, are larger than allowed."""
    for name, size in sizes.items():
        if size > MEMBER_BYTES[name]:
            raise BundleLimitError(
                f'{name} of {source} has {size} bytes; expected at most {MEMBER_BYTES[name]}.'
            )
    total = sum(sizes.values())
    if total > TOTAL_BYTES:
        raise BundleLimitError(
            f'the members of {source} have {total} bytes together; expected at most {TOTAL_BYTES}.'
        )


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = _find_file(path).open('rb')
    except OSError as error:
        if isinstance(error, BundleNotFoundError):
            raise
        raise BundleAccessError(
            f'{path} cannot be opened: {error.strerror or error}; expected a readable file.'
        ) from error
    with stream:
        yield stream


def _find_file(path: Path) -> Path:
    if path.is_dir():
        for name in FILE_NAMES:
            if (path / name).exists():
                return _find_file(path / name)
        raise BundleNotFoundError(
            f'The folder {path} holds no bundle; expected {" or ".join(FILE_NAMES)} in it. '
            'Name the file itself if it is called otherwise.'
        )
    if not path.exists():
        raise BundleNotFoundError(f'There is no file {path}; expected a model bundle.')
    if not path.is_file():
        # A pipe would block, a device might never end.
        raise NotABundleError(f'{path} is not a regular file; expected a model bundle.')
    return path


@contextmanager
def _defects_as_corrupt(source: str) -> Iterator[None]:
    try:
        yield
    except BundleError:
        raise
    except _ZIP_DEFECTS as error:
        raise CorruptBundleError(
            f'{source} is damaged: {quoted(error)}. '
            'Copy the bundle again from where it was written.'
        ) from error


def _check_end_record(path: Path, stream: BinaryIO) -> None:
    """Bound the zip directory before `zipfile` turns it into objects, and refuse zip64."""
    size = stream.seek(0, 2)
    if size > ARCHIVE_BYTES:
        raise BundleLimitError(f'{path} has {size} bytes; expected at most {ARCHIVE_BYTES}.')
    stream.seek(0)
    if stream.read(2) != b'PK':
        raise NotABundleError(f'{path} is not a zip archive; expected a model bundle (wts.h5.zip).')
    stream.seek(max(0, size - _END_RECORD.size - _ZIP64_LOCATOR_BYTES))
    tail = stream.read()
    record = tail[-_END_RECORD.size :]
    if len(record) < _END_RECORD.size or not record.startswith(_END_SIGNATURE):
        raise CorruptBundleError(
            f'{path} does not end with the directory of a zip archive: it is truncated, or has '
            'something appended. Copy the bundle again from where it was written.'
        )
    _, disk, first_disk, _, count, length, offset, comment = _END_RECORD.unpack(record)
    if length > DIRECTORY_BYTES:
        raise BundleLimitError(
            f'{path} has a zip directory of {length} bytes for {count} members; '
            f'expected at most {DIRECTORY_BYTES}.'
        )
    zip64 = tail[: -_END_RECORD.size].startswith(_ZIP64_LOCATOR_SIGNATURE)
    if disk or first_disk or comment or zip64 or offset + length + _END_RECORD.size != size:
        raise CorruptBundleError(
            f'{path} is not one plain zip archive: its directory is not where it should be, or it '
            'uses zip64 or several parts. Copy the bundle again from where it was written.'
        )


def _check_members(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    names = [info.orig_filename for info in members]
    if MANIFEST not in names:
        raise NotABundleError(
            f'{path} is a zip archive without {MANIFEST}; expected a model bundle. '
            'Name a wts.h5.zip that this package wrote.'
        )
    if len(members) > len(MEMBER_BYTES) and len(set(names)) == len(names):
        raise BundleLimitError(
            f'{path} has {len(members)} members; expected at most {len(MEMBER_BYTES)}.'
        )
    for info in members:
        fault = _member_fault(info, names)
        if fault:
            raise UnsafeMemberError(
                f'{path} has the member {quoted(info.orig_filename)}, {fault}; expected regular, '
                f'unencrypted members among {", ".join(MEMBER_BYTES)}, each once.'
            )
    missing = sorted(REQUIRED_MEMBERS - set(names))
    if missing:
        raise CorruptBundleError(
            f'{path} lacks the members {", ".join(missing)}. '
            'Copy the bundle again from where it was written.'
        )
    _check_compression(path, members)
    check_sizes({info.filename: info.file_size for info in members}, str(path))


def _member_fault(info: zipfile.ZipInfo, names: Sequence[str]) -> str | None:
    """Return what no bundle may have about a member, or None."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    faults = {
        'whose path is absolute': name.startswith('/') or name[1:2] == ':',
        'whose path leaves the archive': '..' in name.replace('\\', '/').split('/'),
        'whose name has a backslash': '\\' in name,
        'which is a folder': name.endswith('/') or stat.S_ISDIR(kind),
        'which is a symbolic link': stat.S_ISLNK(kind),
        'which is a special file': kind not in (0, stat.S_IFREG),
        'which occurs more than once': names.count(name) > 1,
        'which no bundle has': name not in MEMBER_BYTES,
        'which is encrypted': bool(info.flag_bits & _ENCRYPTED_FLAGS),
        f'compressed by method {info.compress_type} (only stored and deflated are read)': (
            info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        ),
    }
    return next((fault for fault, found in faults.items() if found), None)


def _check_compression(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    for info in members:
        if info.file_size > COMPRESSION_RATIO * info.compress_size:
            raise BundleLimitError(
                f'{info.filename} of {path} says that it grows from {info.compress_size} to '
                f'{info.file_size} bytes; expected at most {COMPRESSION_RATIO} times as much.'
            )
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise CorruptBundleError(
                f'{info.filename} of {path} is stored in {info.compress_size} bytes but says it '
                f'has {info.file_size}. Copy the bundle again from where it was written.'
            )
