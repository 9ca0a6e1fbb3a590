"""The golden bundle, and a forge for archives that no writer of ours would make."""

from __future__ import annotations

import hashlib
import io
import json
import runpy
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ptychodus_torch_plugin.bundle.archive import Bundle, read_bundle, read_manifest
from ptychodus_torch_plugin.errors import BundleError

Entry = tuple[str | zipfile.ZipInfo, bytes]


@pytest.fixture(scope='session')
def maker() -> SimpleNamespace:
    """The names of make_golden.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / 'make_golden.py')))


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is not named after the test, or messages with a path would match anything."""
    return tmp_path_factory.mktemp('work')


@pytest.fixture
def bundle(maker: SimpleNamespace) -> Bundle:
    return maker.golden_bundle()


@pytest.fixture(scope='session')
def golden_bytes(maker: SimpleNamespace) -> bytes:
    return maker.GOLDEN.read_bytes()


@pytest.fixture
def members(golden_bytes: bytes) -> dict[str, bytes]:
    """The golden members in their order, to be altered."""
    with zipfile.ZipFile(io.BytesIO(golden_bytes)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def sign() -> Callable[..., dict[str, bytes]]:
    """Make the manifest agree with altered members, so that later checks are reached."""

    def signed(members: dict[str, bytes], **fields: object) -> dict[str, bytes]:
        manifest = json.loads(members['manifest.json']) | fields
        manifest['members'] = {
            name: {'sha256': hashlib.sha256(data).hexdigest(), 'size': len(data)}
            for name, data in members.items()
            if name != 'manifest.json'
        }
        return {**members, 'manifest.json': json.dumps(manifest).encode()}

    return signed


@pytest.fixture
def forge(tmp_path: Path) -> Callable[..., Path]:
    """Write a zip archive of any entries; return its path."""

    def forged(entries: dict[str, bytes] | Iterable[Entry], method: int = 0) -> Path:
        path = tmp_path / 'forged.zip'
        pairs = entries.items() if isinstance(entries, dict) else entries
        with zipfile.ZipFile(path, 'w', compression=method) as archive:
            for name, data in pairs:
                archive.writestr(name, data)
        return path

    return forged


@pytest.fixture
def both_refuse() -> Callable[[Path, type[BundleError], str], None]:
    """What needs no content to be known is refused by the cheap reader, too."""

    def refuse(path: Path, error: type[BundleError], words: str) -> None:
        for read in (read_bundle, read_manifest):
            with pytest.raises(error, match=words):
                read(path)

    return refuse
