"""Ptychodus with the plugin, wherever that is installed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from ptychodus_torch_plugin.integration.host import installed_version

logger = logging.getLogger(__name__)


def launch(arguments: Sequence[str]) -> int:
    """Start Ptychodus with these arguments of its own; return its exit code.

    A Ptychodus of an unknown release starts as well, without the plugin.

    Raises
    ------
    NoPtychodusError
        If there is no Ptychodus.
    """
    installed_version()
    try:
        # Imported here, for a Ptychodus of an unknown release may lack what it is made of.
        from ptychodus_torch_plugin.integration.bridge import install

        install()
    except Exception as error:  # noqa: BLE001, RUF100 - Ptychodus must start, whatever is wrong here
        logger.warning('ptychodus-torch-plugin is left out: %s', error)
    sys.argv = ['ptychodus', *arguments]
    return int(import_module('ptychodus.__main__').main())
