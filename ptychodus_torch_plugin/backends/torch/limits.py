"""What the machine can do in PyTorch: convolutions and Fourier transforms.

See `protocol.Kernel`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from ptychodus_torch_plugin.backends.protocol import Kernel
from ptychodus_torch_plugin.backends.torch.devices import threads as limited_threads
from ptychodus_torch_plugin.config import ExecutionConfig

DTYPES = {'32-true': torch.float32, 'bf16-mixed': torch.bfloat16}

CONVOLUTIONS = ((16, 64, 32), (16, 128, 16), (8, 128, 32))
"""Images, channels and side: sizes as the networks have them."""

FFT_SIDES_PX = (64, 128, 256)
FFT_BYTES = (2**19, 2**21)
"""Sizes of a batch: half of what a core's cache holds, and all of it."""


def limits(threads: int) -> dict[str, list[Kernel]]:
    """Return kernels at so many threads; see `protocol.OffersLimits`."""
    execution = ExecutionConfig(num_threads=threads)
    named = {f'convolution {name}': convolutions(dtype) for name, dtype in DTYPES.items()}
    named |= {f'fft2 {side_px}': transforms(side_px) for side_px in FFT_SIDES_PX}
    return {
        name: [Kernel(_at(execution, each.run), each.amount, each.unit) for each in kernels]
        for name, kernels in named.items()
    }


def convolutions(dtype: torch.dtype) -> list[Kernel]:
    """Return 3 x 3 convolutions, channels last."""
    return [_convolution(*size, dtype) for size in CONVOLUTIONS]


def transforms(side_px: int) -> list[Kernel]:
    """Return batches of 2-D transforms of complex64."""
    return [_transform(max(1, size // (8 * side_px**2)), side_px) for size in FFT_BYTES]


def _convolution(images: int, channels: int, side_px: int, dtype: torch.dtype) -> Kernel:
    layout = torch.channels_last
    x = torch.randn(images, channels, side_px, side_px).to(dtype).to(memory_format=layout)
    kernel = torch.randn(channels, channels, 3, 3).to(dtype).to(memory_format=layout)

    @torch.no_grad()
    def run() -> object:
        return functional.conv2d(x, kernel, padding=1)

    return Kernel(run, 2.0 * 9 * images * side_px**2 * channels**2, 'FLOP')


def _transform(count: int, side_px: int) -> Kernel:
    x = torch.randn(count, side_px, side_px, dtype=torch.complex64)
    return Kernel(lambda: torch.fft.fft2(x), count, 'transforms')


def _at(execution: ExecutionConfig, run: Callable[[], object]) -> Callable[[], object]:
    def with_threads() -> object:
        with limited_threads(execution):
            return run()

    return with_threads
