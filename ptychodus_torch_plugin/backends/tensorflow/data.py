"""A scan as tensors; tensors lie where the surrounding `tf.device` says."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import FloatArray, IndexArray
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.scan import ScanData

RESIDENT_BYTES = 4 * 2**30
"""Patterns up to this size are kept on an accelerator; larger stacks stay in the host's memory."""


def channels_last(groups: NDArray[Any] | Tensor) -> Tensor:
    """Return patterns or patches (g, c, h, w) in the networks' layout (g, h, w, c)."""
    return tf.transpose(groups, (0, 2, 3, 1))


def channels_first(groups: Tensor) -> Tensor:
    """Invert `channels_last`."""
    return tf.transpose(groups, (0, 3, 1, 2))


class ScanTensors:
    """Patterns, positions and mask of one scan, ready for batches.

    Attributes
    ----------
    counts : (n, N, N) float32
        On a CPU an array, which shares the memory of `patterns`.
    ramps : (n, 2, N) complex64 or None
        Sub-pixel shifts of the probe; None where all positions are whole pixels.
    corners : (n, 2) int64
    valid : (N, N) float32
        1 where a pixel takes part in the likelihood, else 0.
    mean_count
        Mean count of a valid pixel.
    on_host
        Whether a CPU computes.
    """

    def __init__(self, scan: ScanData, patterns: FloatArray | None = None) -> None:
        patterns = scan.patterns if patterns is None else patterns
        self.n_px = scan.n_px
        self.frame: ObjectFrame = scan.frame
        corners, remainders = self.frame.corners(scan.positions_px, scan.n_px)
        self.corners = tf.constant(corners)
        self.ramps = (
            physics.shift_ramps(tf.constant(remainders), scan.n_px) if np.any(remainders) else None
        )
        self.valid = tf.constant(scan.valid_pixels.astype(np.float32))
        self.mean_count = scan.mean_counts() / float(scan.valid_pixels.sum())
        self.on_host = 'CPU' in self.valid.device
        resident = not self.on_host and patterns.nbytes <= RESIDENT_BYTES
        self.counts = tf.constant(patterns) if resident else patterns

    def __len__(self) -> int:
        return len(self.corners)

    def batch_counts(self, chosen: IndexArray) -> Tensor:
        """Return the counts (B, N, N) of patterns `chosen` (B,) int64."""
        if isinstance(self.counts, np.ndarray):
            return tf.constant(self.counts[chosen])
        return tf.gather(self.counts, chosen)

    def batch_index(self, chosen: IndexArray | Tensor) -> Tensor:
        """Return the flat canvas index of the patches `chosen` (B,) int64."""
        corners = tf.gather(self.corners, chosen)
        return physics.patch_index(corners, self.n_px, self.frame.shape[1])

    def batch_probes(self, probe: Tensor, chosen: IndexArray | Tensor) -> Tensor:
        """Return the probe (m, N, N) at the sub-pixel places of `chosen`: (B | 1, m, N, N)."""
        if self.ramps is None:
            return probe[None]
        return physics.shift_probe(probe, tf.gather(self.ramps, chosen))
