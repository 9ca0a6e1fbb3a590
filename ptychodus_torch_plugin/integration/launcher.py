"""Ptychodus with the plugin, wherever that is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from ptychodus_torch_plugin.integration.host import installed_version
from ptychodus_torch_plugin.integration.shim_module import register_plugins


def launch(arguments: Sequence[str]) -> int:
    """Start Ptychodus with these arguments of its own; return its exit code.

    A Ptychodus of an unknown release starts as well, without the plugin.

    Raises
    ------
    NoPtychodusError
        If there is no Ptychodus.
    """
    installed_version()
    # Ptychodus calls the same shim if it finds it; the second call does nothing.
    register_plugins(None)
    sys.argv = ['ptychodus', *arguments]
    return int(import_module('ptychodus.__main__').main())
