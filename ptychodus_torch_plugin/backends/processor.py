"""What the processor can do, whichever framework asks."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ptychodus_torch_plugin.config import ExecutionConfig

CPUINFO = Path('/proc/cpuinfo')

BFLOAT16 = frozenset({'avx512_bf16', 'amx_bf16', 'bf16'})
"""Linux' names of instructions that multiply bfloat16; the last one is Arm's."""

logger = logging.getLogger(__name__)


def has_bfloat16(cpuinfo: Path = CPUINFO) -> bool | None:
    """Return whether the processor multiplies bfloat16 by itself; None where Linux does not say."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return None
    found = re.search(r'^(?:flags|Features)\s*:(.*)$', text, re.MULTILINE)
    return None if found is None else not BFLOAT16.isdisjoint(found[1].split())


def warn_of_emulation(execution: ExecutionConfig) -> None:
    """Warn if the wanted precision is rougher on this processor and not faster."""
    if execution.precision == 'bf16-mixed' and has_bfloat16() is False:
        logger.warning(
            "precision = 'bf16-mixed', but this processor has none of the instructions %s, so that "
            "bfloat16 saves no time; expected '32-true' on such a processor, which is also exact.",
            ', '.join(sorted(BFLOAT16)),
        )
