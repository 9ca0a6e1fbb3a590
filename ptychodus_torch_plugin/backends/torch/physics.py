"""The physics in PyTorch; `ptychodus_torch_plugin.physics` is the oracle, name by name.

Far fields are centred without moving memory: the probe carries a checkerboard (-1)^(y+x), which by
the shift theorem puts the zero frequency at [N//2, N//2].  Axes: B pattern, m mode.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ptychodus_torch_plugin.physics import MIN_INTENSITY, POISSON_OVERSHOOT, SMALLEST_STEP


def checkerboard(n_px: int, device: torch.device) -> Tensor:
    """Return (N, N) float32 of +1 and -1; N is even."""
    line = 1 - 2 * (torch.arange(n_px, device=device) % 2)
    return (line[:, None] * line).to(torch.float32)


def fft2(x: Tensor, norm: str = 'backward') -> Tensor:
    """Transform the last two axes.

    MKL splits a *single* 2-D transform over its threads and then waits for them up to a hundred
    times longer than it computes (8 ms against 20 us for 64 x 64 on two busy cores), so that one is
    done axis by axis.
    """
    if x.shape[:-2].numel() == 1:
        return torch.fft.fft(torch.fft.fft(x, dim=-1, norm=norm), dim=-2, norm=norm)
    return torch.fft.fft2(x, norm=norm)


def ifft2(x: Tensor, norm: str = 'backward') -> Tensor:
    """Invert `fft2`."""
    if x.shape[:-2].numel() == 1:
        return torch.fft.ifft(torch.fft.ifft(x, dim=-1, norm=norm), dim=-2, norm=norm)
    return torch.fft.ifft2(x, norm=norm)


def shift_ramps(remainders_px: Tensor, n_px: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Return (n, 2, N) complex factors that shift a probe with checkerboard along [y, x].

    `remainders_px` is (n, 2) float64; the frequencies are centred, as such a probe's spectrum is.
    """
    frequency = torch.fft.fftshift(torch.fft.fftfreq(n_px, dtype=torch.float64))
    frequency = frequency.to(remainders_px.device)
    return torch.exp(-2j * math.pi * remainders_px[:, :, None] * frequency).to(dtype)


def shift_kernel(ramps: Tensor) -> Tensor:
    """Return (B, 1, N, N) complex64 from the factors (B, 2, N) of `shift_ramps`."""
    return (ramps[:, 0, :, None] * ramps[:, 1, None, :])[:, None]


def shift_probe(probe: Tensor, ramps: Tensor) -> Tensor:
    """Shift every mode of (m, N, N) by every row of `ramps` (B, 2, N); gives (B, m, N, N)."""
    return ifft2(fft2(probe) * shift_kernel(ramps))


def patch_index(corners: Tensor, n_px: int, width: int) -> Tensor:
    """Return the flat canvas index (B * N * N,) int64 of every pixel of patches at `corners`."""
    line = torch.arange(n_px, device=corners.device)
    rows = (corners[:, 0, None] + line) * width
    columns = corners[:, 1, None] + line
    return (rows[:, :, None] + columns[:, None, :]).reshape(-1)


def gather_patches(object_: Tensor, index: Tensor, n_px: int) -> Tensor:
    """Return patches (B, 1, N, N) of the canvas (h, w); differentiable."""
    return object_.reshape(-1).index_select(0, index).view(-1, 1, n_px, n_px)


def scatter_patches(patches: Tensor, index: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the canvas (h, w) on which patches (B, N, N) add up; adjoint of `gather_patches`."""
    canvas = patches.new_zeros(shape[0] * shape[1])
    return canvas.index_add_(0, index, patches.reshape(-1)).view(shape)


def windows(canvas: Tensor, n_px: int) -> Tensor:
    """Return all patches of a canvas (h, w), (h w - ..., N, N), by their flat first pixel.

    They share the memory of the canvas, and each other's.
    """
    height, width = canvas.shape
    last = (height - n_px) * width + width - n_px
    return canvas.as_strided((last + 1, n_px, n_px), (1, width, 1))


def add_windows(canvas: Tensor, starts: list[int], patches: Tensor) -> None:
    """Add patches (B, N, N) onto a canvas (h, w) in the memory of a CPU, one after the other.

    Three times as fast as `index_add_`, with rows instead of pixels.
    """
    places = windows(canvas, patches.shape[-1])
    torch._foreach_add_([places[start] for start in starts], list(patches.unbind()))


def absolute_square(waves: Tensor) -> Tensor:
    """Return |x|^2 of a complex tensor, several times faster than `abs().square()`."""
    return torch.real(waves * waves.conj())


def far_field(exit_waves: Tensor) -> Tensor:
    """Propagate (..., N, N) exit waves of a probe with checkerboard; centred far field."""
    return fft2(exit_waves, norm='ortho')


def near_field(waves: Tensor) -> Tensor:
    """Invert `far_field`."""
    return ifft2(waves, norm='ortho')


def predict_counts(patches: Tensor, probes: Tensor) -> Tensor:
    """Return expected counts (B, N, N) of patches (B, 1, N, N) under probes (B | 1, m, N, N)."""
    return absolute_square(far_field(probes * patches)).sum(1)


def poisson_loss(predicted: Tensor, counts: Tensor, valid: Tensor, mean_count: float) -> Tensor:
    """Return the loss of the oracle; `valid` is (N, N) float32, 1 where a pixel counts."""
    i = predicted.clamp_min(MIN_INTENSITY)
    best = counts - torch.xlogy(counts, counts)
    terms = (i - counts * i.log() - best) * valid
    return terms.sum() / (len(counts) * valid.sum() * mean_count)


def amplitude_error(predicted: Tensor, counts: Tensor, valid: Tensor, mean_count: float) -> Tensor:
    """Return the error of the oracle; arguments as for `poisson_loss`."""
    difference = (predicted.clamp_min(MIN_INTENSITY).sqrt() - counts.sqrt()).abs() * valid
    return difference.sum() / (len(counts) * valid.sum() * math.sqrt(mean_count))


def object_error(patches: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return the mean absolute error of patches (n, N, N), weighted by `weight` (N, N)."""
    return ((patches - truth).abs() * weight).sum() / (len(patches) * weight.sum())


def total_variation(objects: Tensor) -> Tensor:
    """Return the mean length of the gradient of objects (n, h, w) complex64."""
    down = (objects[:, 1:] - objects[:, :-1])[:, :, :-1]
    right = (objects[:, :, 1:] - objects[:, :, :-1])[:, :-1]
    return (absolute_square(down) + absolute_square(right) + SMALLEST_STEP**2).sqrt().mean()


def displacement_figures(patches: Tensor, probes: Tensor, change: Tensor) -> Tensor:
    """Return g_y, g_x, h_yy, h_xx, h_xy (n, 5); see `exposures.displacement_figures`.

    From patches (n, N, N), and probes and changes of their exit waves, both (n, m, N, N).
    """
    slopes = patches.new_zeros(len(patches), 2, 1, *patches.shape[1:])
    torch.sub(patches[:, 2:], patches[:, :-2], out=slopes[:, 0, 0, 1:-1])
    torch.sub(patches[:, :, 2:], patches[:, :, :-2], out=slopes[:, 1, 0, :, 1:-1])
    # Twice what a pattern displaced by a pixel would change its exit waves by.
    displaced = torch.view_as_real(probes[:, None] * slopes).reshape(len(patches), 2, -1)
    wanted = torch.view_as_real(change).reshape(len(patches), -1, 1)
    g = torch.bmm(displaced, wanted)[..., 0] / 2
    h = torch.bmm(displaced, displaced.transpose(1, 2)) / 4
    return torch.cat([g, torch.stack([h[:, 0, 0], h[:, 1, 1], h[:, 0, 1]], 1)], 1)


def smooth(waves: Tensor, kernel: Tensor) -> Tensor:
    """Filter waves (..., N, N) with a `kernel` (3, 3) float32, zero beyond the edges."""
    parts = torch.view_as_real(waves).movedim(-1, 0)
    n_px = waves.shape[-1]
    filtered = nn.functional.conv2d(
        parts.reshape(-1, 1, n_px, n_px), kernel[None, None], padding=1
    ).view(parts.shape)
    return torch.complex(filtered[0], filtered[1])


def count_factor(
    intensity: Tensor, counts: Tensor, valid: Tensor, background: Tensor | None = None
) -> Tensor:
    """Return (factor - 1) of the oracle's `impose_counts`, (B, N, N): what a wave changes by."""
    if background is not None:
        intensity = intensity + background
    ratio = counts / intensity.clamp_min(MIN_INTENSITY)
    return (0.25 * (1 + (1 + 8 * ratio).sqrt()) - 1) * (POISSON_OVERSHOOT * valid)
