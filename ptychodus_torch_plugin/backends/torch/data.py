"""A scan as tensors on a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.scan import ScanData

RESIDENT_BYTES = 4 * 2**30
"""Patterns up to this size are kept on an accelerator; larger stacks stay in the host's memory."""


class ScanTensors:
    """Patterns, positions and mask of one scan, ready for batches.

    Attributes
    ----------
    counts : (n, N, N) float32
        Shares the memory of `patterns` on a CPU.
    ramps : (n, 2, N) complex64 or None
        Sub-pixel shifts of the probe; None where all positions are whole pixels.
    corners : (n, 2) int64
    valid : (N, N) float32
        1 where a pixel takes part in the likelihood, else 0.
    mean_count
        Mean count of a valid pixel.
    """

    def __init__(
        self, scan: ScanData, device: torch.device, patterns: FloatArray | None = None
    ) -> None:
        patterns = scan.patterns if patterns is None else patterns
        self.device = device
        self.n_px = scan.n_px
        self.frame: ObjectFrame = scan.frame
        corners, remainders = self.frame.corners(scan.positions_px, scan.n_px)
        self.corners = torch.from_numpy(corners).to(device)
        self.ramps = (
            physics.shift_ramps(torch.from_numpy(remainders).to(device), scan.n_px)
            if np.any(remainders)
            else None
        )
        self.valid = torch.from_numpy(scan.valid_pixels.astype(np.float32)).to(device)
        self.mean_count = scan.mean_counts() / float(scan.valid_pixels.sum())
        counts = torch.from_numpy(np.require(patterns, requirements=['W', 'C']))
        resident = device.type == 'cpu' or patterns.nbytes <= RESIDENT_BYTES
        self.counts = counts.to(device) if resident else counts

    def __len__(self) -> int:
        return len(self.corners)

    def batch_counts(self, chosen: Tensor) -> Tensor:
        """Return the counts (B, N, N) of patterns `chosen` (B,) int64, on the device."""
        return self.counts.index_select(0, chosen.to(self.counts.device)).to(self.device)

    def batch_index(self, chosen: Tensor) -> Tensor:
        """Return the flat canvas index of the patches `chosen` (B,) int64."""
        corners = self.corners.index_select(0, chosen)
        return physics.patch_index(corners, self.n_px, self.frame.shape[1])

    def batch_probes(self, probe: Tensor, chosen: Tensor) -> Tensor:
        """Return the probe (m, N, N) at the sub-pixel places of `chosen`: (B | 1, m, N, N)."""
        if self.ramps is None:
            return probe[None]
        return physics.shift_probe(probe, self.ramps.index_select(0, chosen))
