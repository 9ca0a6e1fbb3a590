"""The Ptychodus that is installed beside the plugin: whether, which release, and where it lies."""

from __future__ import annotations

import re
from importlib import import_module, metadata, util
from pathlib import Path

from ptychodus_torch_plugin.errors import PluginError
from ptychodus_torch_plugin.integration.support import SUPPORTED_PTYCHODUS

MODEL = 'ptychodus.model.core'
CONTROLLER = 'ptychodus.controller.core'
WIDGETS = 'ptychodus.controller.parameters'
"""Modules of Ptychodus whose inside is used; `bridge.TOUCHED` says what of it."""

INSTALL = "pip install 'ptychodus-torch-plugin[gui]'"


class PtychodusError(PluginError, RuntimeError):
    """Ptychodus is missing, or not as this package knows it."""


class NoPtychodusError(PtychodusError):
    """There is no Ptychodus."""

    def __init__(self) -> None:
        super().__init__(f'Ptychodus is not installed here. Install it with: {INSTALL}')


def supported_range() -> str:
    """Return the supported releases as pip writes them, e.g. '>=1.7,<1.8'."""
    first, end = ('.'.join(map(str, release)) for release in SUPPORTED_PTYCHODUS)
    return f'>={first},<{end}'


def installed_version() -> str:
    """Return the release of Ptychodus, 'unknown' for a bare source tree.

    Raises
    ------
    NoPtychodusError
        If there is none.
    """
    spec = util.find_spec('ptychodus')
    # The shim of our wheel alone makes a namespace package of this name, which has no origin.
    if spec is None or spec.origin is None:
        raise NoPtychodusError
    try:
        return metadata.version('ptychodus')
    except metadata.PackageNotFoundError:
        return 'unknown'


def check_ptychodus() -> None:
    """Raise `PtychodusError` unless there is a Ptychodus, of a release that this package knows."""
    version = installed_version()
    numbers = re.match(r'(\d+)\.(\d+)', version)
    first, end = SUPPORTED_PTYCHODUS
    if numbers is None or not first <= tuple(map(int, numbers.groups())) < end:
        raise PtychodusError(
            f'Ptychodus {version} is not known to this release of the plugin; expected '
            f'{supported_range()}. Look for a newer plugin, or: '
            f"pip install 'ptychodus{supported_range()}'"
        )


def plugins_folder() -> Path:
    """Return the folder where Ptychodus looks for plugins; see `installed_version`."""
    installed_version()
    return Path(next(iter(import_module('ptychodus.plugins').__path__)))
