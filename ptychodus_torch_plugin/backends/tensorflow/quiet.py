"""What TensorFlow says about itself, kept from whoever only wants to train."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LEVEL = 'TF_CPP_MIN_LOG_LEVEL'
STDERR = 2


@contextmanager
def quiet_import() -> Iterator[None]:
    """Silence TensorFlow's libraries while they are imported, and below errors afterwards.

    They speak of processor instructions and of GPUs that they do not find, partly before any level
    of logging holds, so the stream itself is turned away; it is turned back whatever happens.
    """
    os.environ.setdefault(LEVEL, '3')
    with tempfile.TemporaryFile() as nowhere:
        stderr = os.dup(STDERR)
        try:
            os.dup2(nowhere.fileno(), STDERR)
            yield
        finally:
            os.dup2(stderr, STDERR)
            os.close(stderr)


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Silence what TensorFlow's Python side says below errors, as on tracing a function again."""
    logger = logging.getLogger('tensorflow')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
