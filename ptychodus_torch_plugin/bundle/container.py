"""The zip around a bundle: from a path to checked member bytes, and back.

Every check that needs no content (count, names, kinds, sizes) is made before the first member is
read, and the size of the zip directory before `zipfile` parses it.
"""

from __future__ import annotations

import stat
import zipfile
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
    MANIFEST,
    MEMBER_BYTES,
    REQUIRED_MEMBERS,
    TOTAL_BYTES,
)
from ptychodus_torch_plugin.bundle.shipped import SHIPPED_FILE, is_shipped
from ptychodus_torch_plugin.bundle.zip_checks import (
    check_compression,
    check_end_record,
    defects_as_corrupt,
    member_fault,
    read_member,
)

FILE_NAMES = ('wts.h5.zip', 'model.zip')


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
        return read_member(self._archive, self._archive.getinfo(member), self.source(member))


@contextmanager
def open_container(path: str | Path) -> Iterator[Container]:
    """Open a bundle, or the one in a folder, and check all that can be checked without reading it.

    Raises
    ------
    BundleNotFoundError, BundleAccessError, NotABundleError, ForeignBundleError, BundleLimitError,
    UnsafeMemberError, CorruptBundleError
        As their names say; the message has the path.
    """
    with open_file(path) as stream:
        found = Path(stream.name)
        with defects_as_corrupt(str(found)):
            check_end_record(str(found), stream)
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
def open_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open the file that holds a model, the one in a folder, or the one of the package, to read.

    Raises
    ------
    BundleNotFoundError, BundleAccessError, NotABundleError
        If there is none, it cannot be read, or it is no regular file.
    """
    try:
        stream = _find_file(Path(path)).open('rb')
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
    if is_shipped(path):
        return SHIPPED_FILE
    if not path.exists():
        raise BundleNotFoundError(f'There is no file {path}; expected a model bundle.')
    if not path.is_file():
        # A pipe would block, a device might never end.
        raise NotABundleError(f'{path} is not a regular file; expected a model bundle.')
    return path


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
        fault = member_fault(info, names)
        if fault is None and info.orig_filename not in MEMBER_BYTES:
            fault = 'which no bundle has'
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
    for info in members:
        check_compression(str(path), info)
    check_sizes({info.filename: info.file_size for info in members}, str(path))
