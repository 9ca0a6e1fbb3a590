"""A scan as tensors on a device."""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from torch import Tensor

from ptychodus_torch_plugin.arrays import FloatArray, IndexArray, PositionArray
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.exposures import Exposures
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.pattern_store import Patterns
from ptychodus_torch_plugin.scan import ScanData

RESIDENT_BYTES = 4 * 2**30
"""Patterns up to this size are kept on an accelerator; larger stacks stay in the host's memory."""


FETCHED_AT_ONCE = 256
"""Patterns that are brought to an accelerator at a time."""


class ScanTensors:
    """Patterns, positions and mask of one scan, ready for batches.

    Attributes
    ----------
    counts : (n, N, N) float32 or None
        Shares the memory of `patterns` on a CPU; None where batches are fetched from `patterns`.
    remainders : (n, 2) float64 or None
        Sub-pixel places of the probe; None where all positions are whole pixels.
    corners : (n, 2) int64
    starts : (n,) int64
        Flat canvas index of each patch's first pixel.
    positions_px : (n, 2) float64
        Patch centres on the object grid.
    amplitudes : (n,) float64 or None
        Amplitude of the beam for each pattern, relative to the mean; None where all are equal.
    valid : (N, N) float32
        1 where a pixel takes part in the likelihood, else 0.
    background : (N, N) float32 or None
        Counts per pixel that no wave makes; None where there are none.
    mean_count
        Mean count of a valid pixel.
    """

    def __init__(
        self,
        scan: ScanData,
        device: torch.device,
        patterns: Patterns | None = None,
        *,
        share: float = 1.0,
    ) -> None:
        """Take `patterns` for those of the scan; they hold that `share` of its counts."""
        self.patterns = scan.patterns if patterns is None else patterns
        self.device = device
        self.n_px = scan.n_px
        self.frame: ObjectFrame = scan.frame
        self.place(scan.positions_px)
        self.valid = torch.from_numpy(scan.valid_pixels.astype(np.float32)).to(device)
        dark = scan.background
        self.background = None if dark is None else torch.from_numpy(dark * share).to(device)
        self.mean_count = scan.mean_counts() / float(scan.valid_pixels.sum())
        self.counts = _resident(self.patterns, device)
        self.amplitudes: Tensor | None = None

    def place(self, positions_px: PositionArray) -> None:
        """Lay the patterns at these patch centres (n, 2) on the object grid."""
        corners, remainders = self.frame.corners(positions_px, self.n_px)
        self.corners = torch.from_numpy(corners).to(self.device)
        self.starts = self.corners[:, 0] * self.frame.shape[1] + self.corners[:, 1]
        self.positions_px = positions_px
        some = torch.from_numpy(remainders).to(self.device) if np.any(remainders) else None
        self.remainders = some

    def exposed(self, exposures: Exposures | None) -> ScanTensors:
        """Return the scan with refined positions and intensities; it shares the patterns."""
        if exposures is None:
            return self
        exposed = copy(self)
        exposed.place(exposures.positions_px)
        amplitudes = np.sqrt(exposures.intensities)
        exposed.amplitudes = torch.from_numpy(amplitudes).to(self.device)
        return exposed

    def __len__(self) -> int:
        return len(self.corners)

    def on_device(self, chosen: IndexArray) -> Tensor:
        """Return indices (B,) int64 as a tensor."""
        return torch.from_numpy(chosen).to(self.device, non_blocking=True)

    def batch_counts(self, chosen: IndexArray) -> Tensor:
        """Return the counts (B, N, N) of patterns `chosen` (B,) int64, on the device."""
        if self.counts is not None:
            return self.counts.index_select(0, self.on_device(chosen))
        return _to_device(self.patterns[chosen], self.device)

    def batch_index(self, chosen: Tensor) -> Tensor:
        """Return the flat canvas index of the patches `chosen` (B,) int64."""
        corners = self.corners.index_select(0, chosen)
        return physics.patch_index(corners, self.n_px, self.frame.shape[1])

    def batch_probes(self, probe: Tensor, chosen: Tensor) -> Tensor:
        """Return the probe (m, N, N) at the sub-pixel places of `chosen`: (B | 1, m, N, N).

        It is as bright as it was there.
        """
        probes = probe[None]
        if self.remainders is not None:
            remainders = self.remainders.index_select(0, chosen)
            probes = physics.shift_probe(probe, physics.shift_ramps(remainders, self.n_px))
        if self.amplitudes is not None:
            amplitudes = self.amplitudes.index_select(0, chosen)
            probes = probes * amplitudes.to(probe.real.dtype)[:, None, None, None]
        return probes

    def with_background(self, intensity: Tensor) -> Tensor:
        """Return the expected counts (B, N, N) of waves of this `intensity`."""
        return intensity if self.background is None else intensity + self.background

    def add_patches(self, canvas: Tensor, chosen: IndexArray, patches: Tensor) -> None:
        """Add the patches (B, N, N) of patterns `chosen` (B,) int64 onto a canvas, in place."""
        if self.device.type == 'cpu':
            starts = self.starts.numpy()[chosen].tolist()
            physics.add_windows(canvas, starts, patches)
        else:
            index = self.batch_index(self.on_device(chosen))
            canvas.view(-1).index_add_(0, index, patches.reshape(-1))


def _resident(patterns: Patterns, device: torch.device) -> Tensor | None:
    """Return all patterns as a tensor, where they are in memory or may be kept on `device`."""
    if device.type == 'cpu':
        if not isinstance(patterns, np.ndarray):
            return None
        return torch.from_numpy(np.require(patterns, requirements=['W', 'C']))
    if patterns.nbytes > RESIDENT_BYTES:
        return None
    counts = torch.empty(patterns.shape, dtype=torch.float32, device=device)
    for first in range(0, len(patterns), FETCHED_AT_ONCE):
        part = slice(first, first + FETCHED_AT_ONCE)
        counts[part] = _to_device(patterns[part], device)
    return counts


def _to_device(patterns: FloatArray, device: torch.device) -> Tensor:
    counts = torch.from_numpy(np.require(patterns, requirements=['W', 'C']))
    if device.type != 'cuda':
        return counts.to(device)
    return counts.pin_memory().to(device, non_blocking=True)
