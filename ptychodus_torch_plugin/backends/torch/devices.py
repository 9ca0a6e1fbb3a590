"""The device and the threads that compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ptychodus_torch_plugin.backends.processor import warn_of_emulation
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError


def choose_device(execution: ExecutionConfig) -> torch.device:
    """Return the device for an accelerator; raise `ConfigError` if it is not there."""
    wanted = execution.accelerator
    if wanted in ('gpu', 'cuda', 'auto') and torch.cuda.is_available():
        return torch.device('cuda')
    if wanted == 'mps' and torch.backends.mps.is_available():
        return torch.device('mps')
    if wanted in ('auto', 'cpu'):
        warn_of_emulation(execution)
        return torch.device('cpu')
    raise ConfigError(
        f'accelerator = {wanted!r}, but PyTorch {torch.__version__} finds no such device; expected '
        "'auto' or 'cpu' on this machine."
    )


@contextmanager
def threads(execution: ExecutionConfig) -> Iterator[None]:
    """Use the wanted number of CPU threads for a while."""
    before = torch.get_num_threads()
    if execution.num_threads is not None:
        torch.set_num_threads(execution.num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep GPUs from TF32 for a while: products of float32 with 10 bits of mantissa, not 23.

    PyTorch takes it for convolutions unless told otherwise.  What computes in bfloat16 does so
    still.
    """
    products = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def precision(network: nn.Module, execution: ExecutionConfig) -> Iterator[None]:
    """Let a network compute in the wanted precision for a while.

    Its layers alone: `torch.autocast` would catch all products of matrices around them, too.
    """
    if execution.precision == '32-true':
        yield
        return
    full = network.forward

    def shorter(x: torch.Tensor, *others: Any) -> Any:
        with torch.autocast(x.device.type, torch.bfloat16):
            return full(x, *others)

    network.forward = shorter
    try:
        yield
    finally:
        del network.forward
