"""Archives that nobody should trust: one error per defect, at bounded cost."""

from __future__ import annotations

import contextlib
import io
import os
import random
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychodus_torch_plugin.bundle import container, limits
from ptychodus_torch_plugin.bundle.archive import read_bundle, read_manifest
from ptychodus_torch_plugin.bundle.errors import (
    BundleAccessError,
    BundleLimitError,
    CorruptBundleError,
    NotABundleError,
    UnsafeMemberError,
)
from ptychodus_torch_plugin.errors import BundleError

Members = dict[str, bytes]
Forge = Callable[..., Path]
Sign = Callable[..., Members]
Refuse = Callable[[Path, type[BundleError], str], None]


def member(name: str, mode: int = 0, method: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.compress_type = mode << 16, method
    return info


@pytest.mark.parametrize(
    ('info', 'words'),
    [
        (member('/preview.png'), 'absolute'),
        (member('C:/preview.png'), 'absolute'),
        (member('../preview.png'), 'leaves the archive'),
        (member('a/../../preview.png'), 'leaves the archive'),
        (member('a\\preview.png'), 'backslash'),
        (member('..\\preview.png'), 'leaves the archive'),
        (member('preview.png/'), 'folder'),
        (member('preview.png', stat.S_IFDIR | 0o755), 'folder'),
        (member('preview.png', stat.S_IFLNK | 0o777), 'symbolic link'),
        (member('preview.png', stat.S_IFIFO | 0o644), 'special file'),
        (member('preview.png', method=zipfile.ZIP_BZIP2), 'method 12'),
        (member('preview.png', method=zipfile.ZIP_LZMA), 'method 14'),
        (member('code.py'), 'no bundle has'),
        (member('PREVIEW.PNG'), 'no bundle has'),
        (member('\x1b[2Jclear'), r'\\x1b\[2Jclear'),
    ],
)
def test_unsafe_members(
    info: zipfile.ZipInfo, words: str, members: Members, forge: Forge, both_refuse: Refuse
) -> None:
    data = members.pop('preview.png')
    both_refuse(forge([*members.items(), (info, data)]), UnsafeMemberError, words)


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('name', ['manifest.json', 'weights.safetensors'])
def test_duplicate_members(name: str, members: Members, forge: Forge, both_refuse: Refuse) -> None:
    path = forge([*members.items(), (name, members[name])])
    both_refuse(path, UnsafeMemberError, 'more than once')


def patched(data: bytes, name: str, offset: int, form: str, value: int) -> bytearray:
    """Alter a field of a member's entry in the central directory."""
    result = bytearray(data)
    entry = data.rindex(name.encode()) - 46
    assert data[entry : entry + 4] == b'PK\x01\x02'
    struct.pack_into(form, result, entry + offset, value)
    return result


@pytest.mark.parametrize('flag', [0x0001, 0x0040, 0x2000])
def test_encrypted_members(
    flag: int, golden_bytes: bytes, tmp_path: Path, both_refuse: Refuse
) -> None:
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(patched(golden_bytes, 'history.json', 8, '<H', flag))
    both_refuse(path, UnsafeMemberError, 'encrypted')


def test_a_name_with_a_null_byte(golden_bytes: bytes, tmp_path: Path, both_refuse: Refuse) -> None:
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(golden_bytes.replace(b'preview.png', b'preview\0png'))
    both_refuse(path, UnsafeMemberError, r'preview\\x00png')


def test_too_many_members(members: Members, forge: Forge, both_refuse: Refuse) -> None:
    more = {f'{i}.json': b'{}' for i in range(20)}
    both_refuse(forge(members | more), BundleLimitError, '27 members; expected at most 7')


def test_a_huge_directory_is_refused_before_it_is_parsed(
    members: Members, forge: Forge, monkeypatch, both_refuse: Refuse
) -> None:
    path = forge(members | {f'{i}.json': b'' for i in range(2000)})
    monkeypatch.setattr(zipfile, 'ZipFile', None)
    both_refuse(path, BundleLimitError, 'directory of .* for 2007 members')


def test_zip64_cannot_hide_a_huge_directory(
    golden_bytes: bytes, tmp_path: Path, both_refuse: Refuse
) -> None:
    # A locator before the end record makes zipfile use another directory than the record's.
    start = golden_bytes.rindex(b'PK\x05\x06')
    locator = struct.pack('<4sLQL', b'PK\x06\x07', 0, 0, 1)
    record = bytearray(golden_bytes[start:])
    (length,) = struct.unpack_from('<L', record, 12)
    struct.pack_into('<L', record, 12, length + len(locator))
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(golden_bytes[:start] + locator + record)
    both_refuse(path, CorruptBundleError, 'or it uses zip64')


@pytest.mark.parametrize('place', [4, 6, 20], ids=['disk', 'first disk', 'comment length'])
def test_end_records_of_other_kinds(
    place: int, golden_bytes: bytes, tmp_path: Path, both_refuse: Refuse
) -> None:
    data = bytearray(golden_bytes)
    data[len(data) - 22 + place] = 1
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(data)
    both_refuse(path, CorruptBundleError, 'not one plain zip archive')


def test_declared_sizes_are_limited(
    golden_bytes: bytes, tmp_path: Path, both_refuse: Refuse
) -> None:
    path = tmp_path / 'wts.h5.zip'
    for name, size in (('manifest.json', 2**20 + 1), ('weights.safetensors', 2**29 + 1)):
        data = patched(golden_bytes, name, 24, '<L', size)
        path.write_bytes(patched(bytes(data), name, 20, '<L', size))
        both_refuse(path, BundleLimitError, f'{name} .* {size} bytes; expected at most {size - 1}')


def test_total_and_file_size_are_limited(
    maker, monkeypatch, golden_bytes: bytes, tmp_path: Path, both_refuse: Refuse
) -> None:
    monkeypatch.setattr(container, 'TOTAL_BYTES', 5000)
    both_refuse(maker.GOLDEN, BundleLimitError, 'together; expected at most 5000')
    path = tmp_path / 'sparse.zip'
    with path.open('wb') as stream:
        stream.truncate(limits.ARCHIVE_BYTES + 1)
    both_refuse(path, BundleLimitError, f'expected at most {limits.ARCHIVE_BYTES}')


def test_an_honest_bomb_is_refused_by_its_ratio(
    members: Members, forge: Forge, sign: Sign, both_refuse: Refuse
) -> None:
    members['history.json'] = b'[' + b' ' * 3_000_000 + b']'
    path = forge(sign(members), zipfile.ZIP_DEFLATED)
    both_refuse(path, BundleLimitError, 'at most 200 times')


def test_a_lying_bomb_costs_little_memory(members: Members, forge: Forge) -> None:
    bomb = b'[' + b' ' * 30_000_000 + b']'
    path = forge(members | {'history.json': bomb}, zipfile.ZIP_DEFLATED)
    path.write_bytes(
        patched(path.read_bytes(), 'history.json', 24, '<L', len(members['history.json']))
    )
    tracemalloc.start()
    with pytest.raises(CorruptBundleError, match=r'history\.json'):
        read_bundle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_a_member_shorter_than_declared(
    members: Members, forge: Forge, both_refuse: Refuse
) -> None:
    path = forge(members, zipfile.ZIP_DEFLATED)
    size = len(members['manifest.json']) + 40
    path.write_bytes(patched(path.read_bytes(), 'manifest.json', 24, '<L', size))
    both_refuse(path, CorruptBundleError, f'has {size - 40} bytes; its header says {size}')


def test_a_stored_member_with_two_sizes(
    golden_bytes: bytes, tmp_path: Path, both_refuse: Refuse
) -> None:
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(patched(golden_bytes, 'history.json', 24, '<L', 108))
    both_refuse(path, CorruptBundleError, 'stored in 109 bytes but says it has 108')


def test_deflated_members_are_read(members: Members, forge: Forge) -> None:
    assert read_bundle(forge(members, zipfile.ZIP_DEFLATED)).history[0]['loss'] == 0.25


def test_truncated_files(golden_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'wts.h5.zip'
    for length in range(0, len(golden_bytes), 47):
        path.write_bytes(golden_bytes[:length])
        error = NotABundleError if length < 2 else CorruptBundleError
        with pytest.raises(error):
            read_bundle(path)


def test_flipped_bits_change_nothing_or_are_refused(
    golden_bytes: bytes, tmp_path: Path, maker
) -> None:
    path, weights, random_ = (
        tmp_path / 'wts.h5.zip',
        maker.golden_bundle().weights,
        random.Random(7),
    )
    refused = 0
    for _ in range(1500):
        data = bytearray(golden_bytes)
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        path.write_bytes(data)
        try:
            found = read_bundle(path)
        except BundleError:
            refused += 1
        else:
            assert all(found.weights[name].tobytes() == weights[name].tobytes() for name in weights)
    assert refused > 1200


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_spliced_files_raise_nothing_else(
    data: st.DataObject, golden_bytes: bytes, tmp_path: Path
) -> None:
    # Mostly in the directory at the end, where the structure is.
    back = data.draw(st.integers(0, 700) | st.integers(0, len(golden_bytes)))
    place = len(golden_bytes) - back
    cut = data.draw(st.integers(0, 8))
    piece = data.draw(
        st.binary(max_size=8)
        | st.sampled_from([b'\xff' * 4, b'PK\x01\x02', b'PK\x05\x06', b'\0' * 8])
    )
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(golden_bytes[:place] + piece + golden_bytes[place + cut :])
    for read in (read_bundle, read_manifest):
        with contextlib.suppress(BundleError):
            read(path)


@pytest.mark.parametrize(
    ('before', 'after', 'error'),
    [
        (b'#!/bin/sh\n', b'', NotABundleError),
        (b'PK', b'', CorruptBundleError),
        (b'', b'appended', CorruptBundleError),
    ],
)
def test_polyglots(
    before: bytes,
    after: bytes,
    error: type[BundleError],
    golden_bytes: bytes,
    tmp_path: Path,
    both_refuse: Refuse,
) -> None:
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(before + golden_bytes + after)
    both_refuse(path, error, 'zip archive')


def test_an_archive_comment_is_refused(members: Members, forge: Forge, both_refuse: Refuse) -> None:
    path = forge(members)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.comment = b'hello'
    both_refuse(path, CorruptBundleError, 'appended')


def test_other_files_are_no_bundles(tmp_path: Path, forge: Forge, both_refuse: Refuse) -> None:
    path = tmp_path / 'model.pth'
    for data in (b'', b'hello', b'\x89HDF\r\n\x1a\n'):
        path.write_bytes(data)
        both_refuse(path, NotABundleError, 'not a zip archive')
    both_refuse(forge({'a.txt': b''}), NotABundleError, 'without manifest.json')
    both_refuse(forge({}), NotABundleError, 'zip archive')


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='named pipes exist on POSIX only')
def test_a_pipe_is_not_waited_for(tmp_path: Path, both_refuse: Refuse) -> None:
    os.mkfifo(tmp_path / 'wts.h5.zip')
    both_refuse(tmp_path, NotABundleError, 'not a regular file')


def test_a_file_that_the_system_refuses(maker, monkeypatch, both_refuse: Refuse) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'open', refuse)
    both_refuse(maker.GOLDEN, BundleAccessError, 'Permission denied')


def test_overlapping_members_are_bounded_or_refused(golden_bytes: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(golden_bytes)) as archive:
        offset = archive.getinfo('weights.safetensors').header_offset
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(patched(golden_bytes, 'optimizer.safetensors', 42, '<L', offset))
    with pytest.raises(CorruptBundleError, match='optimizer'):
        read_bundle(path)
