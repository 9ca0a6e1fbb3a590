"""Which backends there are, found without importing any tensor framework.

The built-in ones stand in a table with what they need and how to get it; other packages add theirs
with an entry point of the group `ptychodus_torch_plugin.backends` whose object, called without
arguments, returns a `protocol.Backend`.  Choosing one backend never imports another.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

from ptychodus_torch_plugin.errors import BackendUnavailableError, UnknownBackendError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.backends.protocol import Backend

ENTRY_POINT_GROUP = 'ptychodus_torch_plugin.backends'

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used, and if not, why and what to do."""

    ok: bool
    version: str | None = None
    reason: str = ''
    hint: str = ''


@dataclass(frozen=True)
class BuiltIn:
    """A backend of this package: where it is, what it requires, and how to get that."""

    title: str
    module: str
    attribute: str
    requires: tuple[tuple[str, tuple[int, ...]], ...]
    hint: str


BUILT_IN = {
    'tensorflow': BuiltIn(
        'TensorFlow',
        'ptychodus_torch_plugin.backends.tensorflow',
        'TensorFlowBackend',
        (('tensorflow', (2, 16)),),
        "pip install 'ptychodus-torch-plugin[tensorflow]'",
    ),
    'pytorch': BuiltIn(
        'PyTorch',
        'ptychodus_torch_plugin.backends.torch',
        'TorchBackend',
        (('torch', (2, 2)), ('lightning', (2, 6))),
        "pip install 'ptychodus-torch-plugin[torch]'",
    ),
}
"""In order of preference where a user names none."""


def available_backends() -> dict[str, Availability]:
    """Return every known backend and whether it can be used here; imports no framework.

    A backend of another package that cannot be loaded is listed with the reason.
    """
    found = {name: _availability(entry) for name, entry in BUILT_IN.items()}
    for name, entry_point in _entry_points().items():
        try:
            packages = entry_point.load()().versions()
            versions = ', '.join(f'{package} {version}' for package, version in packages.items())
        except (Exception, SystemExit) as error:  # noqa: BLE001, RUF100 - somebody else's code
            reason = f'{entry_point.value} failed to load: {type(error).__name__}: {error}'
            found[name] = Availability(False, reason=reason)
        else:
            found[name] = Availability(True, version=versions)
    return found


def get_backend(name: str | None = None) -> Backend:
    """Return a backend, importing its framework.

    Parameters
    ----------
    name
        'tensorflow', 'pytorch', or the name of an entry point; `None` takes the first built-in one
        that is available.

    Raises
    ------
    UnknownBackendError
        (a `ValueError`) if nobody provides `name`; the message lists what exists.
    BackendUnavailableError
        (a `RuntimeError`) if its framework is missing, too old or broken; there is no fallback.
    """
    if name is None:
        name = _preferred()
    if name in BUILT_IN:
        return _load_built_in(BUILT_IN[name])
    added = _entry_points()
    if name not in added:
        known = ', '.join(repr(known) for known in (*BUILT_IN, *added))
        raise UnknownBackendError(f'backend = {name!r} is not known; expected one of {known}.')
    try:
        backend: Backend = added[name].load()()
    except Exception as error:
        raise BackendUnavailableError(
            f'{name} backend selected, but {added[name].value} failed to load: {error}'
        ) from error
    return backend


@contextmanager
def importing(entry: BuiltIn) -> Iterator[None]:
    """Import a framework, or raise `BackendUnavailableError` if that fails."""
    try:
        yield
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f'{entry.title} backend selected, but it fails to import: {error}. '
            f'Reinstall it with: {entry.hint}'
        ) from error


def entry_points(group: str) -> list[metadata.EntryPoint]:
    """Return the entry points of a group in the order of their names."""
    return sorted(_installed(tuple(sys.path)).select(group=group), key=lambda each: each.name)


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Any:  # noqa: ARG001 - what is found there is kept
    """Return all entry points; every look at them opens a file of each package.

    Their class has moved between releases of Python.
    """
    return metadata.entry_points()


def _preferred() -> str:
    for name, entry in BUILT_IN.items():
        if _availability(entry).ok:
            return name
    hints = '; or '.join(
        found.hint for found in map(_availability, BUILT_IN.values()) if found.hint
    )
    raise BackendUnavailableError(f'no backend is installed. Install one with: {hints}')


def _load_built_in(entry: BuiltIn) -> Backend:
    availability = _availability(entry)
    if not availability.ok:
        hint = availability.hint
        mend = f'Install it with: {hint}' if hint else f'Choose another one of {list(BUILT_IN)}.'
        raise BackendUnavailableError(
            f'{entry.title} backend selected, but {availability.reason}. {mend}'
        )
    with importing(entry):
        backend: Backend = getattr(importlib.import_module(entry.module), entry.attribute)()
    return backend


def _availability(entry: BuiltIn) -> Availability:
    if util.find_spec(entry.module) is None:
        reason = f'this release has no {entry.title} backend yet'
        return Availability(False, reason=reason)
    versions = []
    for package, minimum in entry.requires:
        if util.find_spec(package) is None:
            return Availability(False, reason=f'{package} is not installed', hint=entry.hint)
        version = _version(package)
        if _numbers(version) < minimum:
            needed = '.'.join(str(part) for part in minimum)
            reason = f'{package} {version} is too old (needs {needed} or newer)'
            return Availability(False, version=version, reason=reason, hint=entry.hint)
        versions.append(f'{package} {version}')
    return Availability(True, version=', '.join(versions))


def _version(package: str) -> str:
    for distribution in (package, f'{package}-cpu', f'{package}_cpu'):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return '0'


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('+')[0].split('.')[:2] if part.isdigit())


def _entry_points() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for entry_point in entry_points(ENTRY_POINT_GROUP):
        if entry_point.name in BUILT_IN or entry_point.name in found:
            logger.warning(
                'backend %r of %s is ignored: the name is taken',
                entry_point.name,
                entry_point.value,
            )
            continue
        found[entry_point.name] = entry_point
    return found
