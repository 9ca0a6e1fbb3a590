"""The device and the threads that compute."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from ptychodus_torch_plugin.backends.processor import warn_of_emulation
from ptychodus_torch_plugin.backends.tensorflow.layers import CanonicalModel, set_precision
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError

logger = logging.getLogger(__name__)


def choose_device(execution: ExecutionConfig) -> str:
    """Return TensorFlow's name of the device for an accelerator; `ConfigError` if it is not there.

    'cpu' does not even look for others.
    """
    wanted = execution.accelerator
    if wanted in ('gpu', 'cuda', 'auto') and tf.config.list_physical_devices('GPU'):
        return '/GPU:0'
    if wanted in ('auto', 'cpu'):
        warn_of_emulation(execution)
        return '/CPU:0'
    raise ConfigError(
        f'accelerator = {wanted!r}, but TensorFlow {tf.__version__} finds no such device; expected '
        "'auto' or 'cpu' on this machine."
    )


@contextmanager
def determinism(execution: ExecutionConfig, device: str) -> Iterator[None]:
    """On a GPU, refuse operations whose result depends on timing; on a CPU there are none."""
    if execution.deterministic and device != '/CPU:0':
        tf.config.experimental.enable_op_determinism()
    yield


@contextmanager
def threads(execution: ExecutionConfig) -> Iterator[None]:
    """Use the wanted number of CPU threads, which TensorFlow can choose once in a process."""
    wanted = execution.num_threads
    if wanted is not None and tf.config.threading.get_intra_op_parallelism_threads() != wanted:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(wanted)
        except RuntimeError:
            logger.warning(
                'num_threads = %d has no effect: TensorFlow has started its threads already, and '
                'keeps them as long as the process lives.',
                wanted,
            )
    yield


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep GPUs from TF32 for a while: products of float32 with 10 bits of mantissa, not 23.

    What computes in bfloat16 does so still.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@contextmanager
def precision(network: CanonicalModel, execution: ExecutionConfig) -> Iterator[None]:
    """Let a network compute in the wanted precision for a while."""
    set_precision(network, execution.precision)
    try:
        yield
    finally:
        set_precision(network, '32-true')
