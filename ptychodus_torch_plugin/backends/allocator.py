"""The C library's memory, which layers of a network take and give back many times a second."""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""

KEPT_BYTES = 2**30
LARGEST_THRESHOLDS = (KEPT_BYTES, 2**25)
"""What is asked for, and what older versions of glibc allow."""

TOP_PAD_BYTES = 2**26


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep up to 1 GiB that was freed; return whether it does, on glibc alone.

    It returns large blocks to the system as soon as they are free; the system then clears them,
    page by page, each time that a layer asks for one: a tenth of the time of a training step.
    Whoever set one of glibc's own variables in the environment (`MALLOC_*`, `GLIBC_TUNABLES`) keeps
    the say.
    """
    if any(name.startswith('MALLOC_') or name == 'GLIBC_TUNABLES' for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have a mallopt that means other things
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    kept = any(mallopt(MMAP_THRESHOLD, size) for size in LARGEST_THRESHOLDS)
    return bool(kept and mallopt(TRIM_THRESHOLD, KEPT_BYTES) and mallopt(TOP_PAD, TOP_PAD_BYTES))
