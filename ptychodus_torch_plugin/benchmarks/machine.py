"""The machine and its threads; no name of it, of its user or of a folder."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from ptychodus_torch_plugin.backends.registry import available_backends

CPU_INFO = Path('/proc/cpuinfo')
MEMORY_INFO = Path('/proc/meminfo')
FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')
"""What decides the speed of convolutions; the last two are arithmetic in bfloat16."""

PACKAGES = ('ptychodus-torch-plugin', 'numpy', 'scipy', 'h5py', 'hdf5plugin')

THREAD_VARIABLES = (
    'OMP_NUM_THREADS',
    'MKL_NUM_THREADS',
    'OPENBLAS_NUM_THREADS',
    'TF_NUM_INTRAOP_THREADS',
    'TF_NUM_INTEROP_THREADS',
)


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process whose libraries all use so many threads."""
    chosen = {name: str(threads) for name in THREAD_VARIABLES}
    # Threads that spin while they wait would count as work.
    return {**os.environ, **chosen, 'OMP_WAIT_POLICY': 'PASSIVE', 'CUDA_VISIBLE_DEVICES': ''}


def facts() -> dict[str, Any]:
    """Return processor, memory and versions as JSON types."""
    information = _lines(CPU_INFO)
    flags = set(information.get('flags', information.get('Features', '')).split())
    return {
        'system': f'{platform.system()} {platform.machine()}',
        'processor': information.get('model name', platform.processor()),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None,
        'cores_of_the_machine': os.cpu_count(),
        'flags': [flag for flag in FLAGS if flag in flags],
        'memory_bytes': _memory_bytes(),
        'python': platform.python_version(),
        'packages': {name: _version(name) for name in PACKAGES},
        'backends': {
            name: found.version if found.ok else f'unavailable: {found.reason}'
            for name, found in available_backends().items()
        },
    }


def _lines(path: Path) -> dict[str, str]:
    """Return the first value of each name in a file of `name: value` lines; none where it lacks."""
    values: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(':')
            values.setdefault(name.strip(), value.strip())
    return values


def _memory_bytes() -> int | None:
    total = _lines(MEMORY_INFO).get('MemTotal', '').split()
    return 1024 * int(total[0]) if total else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
