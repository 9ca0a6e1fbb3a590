"""Questions of `doctor`, each answered in a process of its own: `python -m` with question and name.

A framework or a foreign package that hangs, crashes or prints takes nobody along there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

ANSWER = 'ANSWER '
"""What the line with the answer begins with, for packages print what they like."""


def backend(name: str) -> dict[str, Any]:
    """Return versions and devices of a backend; raise why it cannot be used."""
    from ptychodus_torch_plugin.backends.registry import BUILT_IN, get_backend, importing

    versions = get_backend(name).versions()
    if entry := BUILT_IN.get(name):
        with importing(entry):
            # What a backend leaves for its first training must be whole, too.
            for package, _ in entry.requires:
                import_module(package)
    devices = _DEVICES.get(name)
    return {'versions': versions, 'devices': None if devices is None else devices()}


def library(name: str) -> dict[str, Any]:
    """Return the reconstructors of a library and why they cannot be used, by the entry point."""
    from ptychodus_torch_plugin.integration.extensions import describe_library

    return describe_library(name)


def internals(module: str) -> dict[str, Any]:
    """Return what of Ptychodus' internals is not as expected, by the module that needs it."""
    from ptychodus_torch_plugin.integration.bridge import faults

    return {'reason': '; '.join(faults(module))}


# Loaded by name: only here, and only to ask what there is.
def _torch_devices() -> list[str]:
    torch = import_module('torch')
    cuda = [
        f'cuda:{number} {torch.cuda.get_device_name(number)}'
        for number in range(torch.cuda.device_count())
    ]
    return ['cpu', *cuda, *(['mps'] if torch.backends.mps.is_available() else [])]


def _tensorflow_devices() -> list[str]:
    config = import_module('tensorflow').config
    found = ['cpu']
    for number, device in enumerate(config.list_physical_devices('GPU')):
        details = config.experimental.get_device_details(device)
        found.append(f'gpu:{number} {details.get("device_name", "")}'.strip())
    return found


_DEVICES: dict[str, Callable[[], list[str]]] = {
    'pytorch': _torch_devices,
    'tensorflow': _tensorflow_devices,
}
_QUESTIONS = {'backend': backend, 'library': library, 'internals': internals}


def main(question: str, name: str) -> None:
    """Answer a question in one line of JSON."""
    try:
        answer = _QUESTIONS[question](name)
    except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, it is the answer
        from ptychodus_torch_plugin.errors import PluginError

        text = str(error) if isinstance(error, PluginError) else f'{type(error).__name__}: {error}'
        answer = {'reason': ' '.join(text.split())}
    typer.echo(f'\n{ANSWER}{json.dumps(answer)}')


if __name__ == '__main__':
    main(*sys.argv[1:])
