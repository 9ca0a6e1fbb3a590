"""What `doctor` finds: plain values, of whatever is there and of whatever is not."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata, util
from typing import Any

from ptychodus_torch_plugin.backends.registry import BUILT_IN, ENTRY_POINT_GROUP
from ptychodus_torch_plugin.cli.probes import ANSWER
from ptychodus_torch_plugin.integration.host import (
    CONTROLLER,
    INSTALL,
    MODEL,
    WIDGETS,
    NoPtychodusError,
    PtychodusError,
    check_ptychodus,
    installed_version,
    supported_range,
)
from ptychodus_torch_plugin.integration.shim import DISTRIBUTION, find_shim
from ptychodus_torch_plugin.integration.support import LIBRARY_GROUP, VIEW_GROUP

PACKAGES = (DISTRIBUTION, 'numpy', 'scipy', 'scikit-image', 'h5py', 'pydantic', 'safetensors')
PROBES = 'ptychodus_torch_plugin.cli.probes'
SECONDS_TO_ANSWER = 120.0
"""The first import of a framework from a network drive takes its time."""


def versions() -> dict[str, str]:
    """Return the releases of Python and of the packages that compute without a framework."""
    return {'python': platform.python_version()} | {name: _version(name) for name in PACKAGES}


def ptychodus() -> dict[str, Any]:
    """Return the release of Ptychodus, whether it is supported, and how it finds the plugin."""
    report: dict[str, Any] = {'supported': supported_range(), 'problem': '', 'mend': ''}
    try:
        report['version'] = installed_version()
        report |= _discovery()
        check_ptychodus()
        report |= _internals()
    except NoPtychodusError:
        report |= {'version': None, 'problem': 'Ptychodus is not installed', 'mend': INSTALL}
    except PtychodusError as error:
        mend = f"pip install 'ptychodus{supported_range()}'"
        report |= {'problem': str(error), 'mend': mend}
    return report


def _internals() -> dict[str, str]:
    """Return what is in the way although the release is a known one."""
    window = util.find_spec('PyQt5') is not None
    modules = [MODEL, *((CONTROLLER, WIDGETS) if window else ())]
    reasons = [reason for module in modules if (reason := ask('internals', module)['reason'])]
    if not reasons and not window:
        return {'problem': 'PyQt5 is not installed: no window, but -b works', 'mend': INSTALL}
    return {'problem': '; '.join(reasons)}


def _discovery() -> dict[str, Any]:
    shim = find_shim()
    ways = {
        'package': 'by itself, through the file that came with the package',
        'user': "by itself, through the file that 'install-shim' wrote",
        'nobody': f"only when started with '{DISTRIBUTION} gui'; '{DISTRIBUTION} install-shim' "
        'makes it find the plugin by itself',
        'others': 'only when started with this program: another file has the name of ours',
    }
    return {'shim': shim.path, 'by_itself': shim.works, 'finds_plugin': ways[shim.owner]}


def backend_names() -> list[str]:
    """Return the built-in backends and those of other packages."""
    return [*BUILT_IN, *sorted(set(_names(ENTRY_POINT_GROUP)) - set(BUILT_IN))]


def backend(name: str) -> dict[str, Any]:
    """Return whether a backend can be used, its versions and devices, or why not."""
    answer = ask('backend', name)
    reason = answer.pop('reason', '')
    mend = BUILT_IN[name].hint if reason and name in BUILT_IN else ''
    return {'usable': not reason, 'reason': reason, 'mend': mend, **answer}


def library_names() -> list[str]:
    """Return the entry points of libraries."""
    return sorted(set(_names(LIBRARY_GROUP)))


def library(name: str) -> dict[str, Any]:
    """Return what Ptychodus will see of a library, or why nothing."""
    return {'reason': '', 'panel': name in _names(VIEW_GROUP), **ask('library', name)}


def ask(question: str, name: str) -> dict[str, Any]:
    """Return the answer of `probes`; one without an answer is a 'reason'."""
    command = [sys.executable, '-m', PROBES, question, name]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False
        )
    except subprocess.TimeoutExpired:
        return {'reason': f'it did not answer within {SECONDS_TO_ANSWER:g} s'}
    for line in reversed(ran.stdout.splitlines()):
        if line.startswith(ANSWER):
            found: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            return found
    said = ran.stderr.strip().splitlines()[-1:]
    how = f'signal {-ran.returncode}' if ran.returncode < 0 else f'code {ran.returncode}'
    return {'reason': ': '.join([f'its process ended with {how}', *said])}


def _names(group: str) -> list[str]:
    return [entry_point.name for entry_point in metadata.entry_points(group=group)]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return 'not installed'
