"""A scan as tensors; tensors lie where the surrounding `tf.device` says."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import IndexArray, PositionArray
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.exposures import Exposures
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.pattern_store import Patterns
from ptychodus_torch_plugin.physics import Real
from ptychodus_torch_plugin.scan import ScanData

RESIDENT_BYTES = 4 * 2**30
"""Patterns up to this size are kept on an accelerator; larger stacks stay in the host's memory."""

FETCHED_AT_ONCE = 256
"""Patterns that are brought to an accelerator at a time."""


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
    patterns, counts : (n, N, N) float32
        In memory or not; `counts` are a tensor where an accelerator keeps them.
    remainders : (n, 2) float64 or None
        Sub-pixel places of the probe, an array; None where all positions are whole pixels.
    corners : (n, 2) int64
        An array.
    positions_px : (n, 2) float64
        Patch centres on the object grid.
    amplitudes : (n,) float64 or None
        Amplitude of the beam for each pattern, relative to the mean, an array; None where all are
        equal.
    valid : (N, N) float32
        1 where a pixel takes part in the likelihood, else 0.
    background : (N, N) float32
        Counts per pixel that no wave makes, zero where there are none.
    mean_count
        Mean count of a valid pixel.
    on_host
        Whether a CPU computes.
    """

    def __init__(
        self, scan: ScanData, patterns: Patterns | None = None, *, share: float = 1.0
    ) -> None:
        """Take `patterns` for those of the scan; they hold that `share` of its counts."""
        patterns = scan.patterns if patterns is None else patterns
        self.n_px = scan.n_px
        self.frame: ObjectFrame = scan.frame
        self.place(scan.positions_px)
        self.amplitudes: Real | None = None
        self.valid = tf.constant(scan.valid_pixels.astype(np.float32))
        dark = scan.background
        self.background = tf.zeros_like(self.valid) if dark is None else tf.constant(dark * share)
        self.mean_count = scan.mean_counts() / float(scan.valid_pixels.sum())
        self.on_host = 'CPU' in self.valid.device
        resident = not self.on_host and patterns.nbytes <= RESIDENT_BYTES
        self.patterns, self.counts = patterns, _resident(patterns) if resident else patterns

    def place(self, positions_px: PositionArray) -> None:
        """Lay the patterns at these patch centres (n, 2) on the object grid."""
        self.corners, remainders = self.frame.corners(positions_px, self.n_px)
        self.positions_px = positions_px
        self.remainders = remainders if np.any(remainders) else None

    def exposed(self, exposures: Exposures | None) -> ScanTensors:
        """Return the scan with refined positions and intensities; it shares the patterns."""
        if exposures is None:
            return self
        exposed = copy(self)
        exposed.place(exposures.positions_px)
        exposed.amplitudes = np.sqrt(exposures.intensities)
        return exposed

    def __len__(self) -> int:
        return len(self.corners)

    def batch_counts(self, chosen: IndexArray) -> Tensor:
        """Return the counts (B, N, N) of patterns `chosen` (B,) int64."""
        if isinstance(self.counts, Tensor):
            return tf.gather(self.counts, chosen)
        return tf.constant(self.counts[chosen])

    def batch_index(self, chosen: IndexArray | Tensor) -> Tensor:
        """Return the flat canvas index of the patches `chosen` (B,) int64."""
        corners = tf.gather(self.corners, chosen)
        return physics.patch_index(corners, self.n_px, self.frame.shape[1])

    def batch_probes(self, probe: Tensor, chosen: IndexArray | Tensor) -> Tensor:
        """Return the probe (m, N, N) at the sub-pixel places of `chosen`: (B | 1, m, N, N).

        It is as bright as it was there.
        """
        ramps = self.batch_ramps(chosen)
        if ramps is None:
            return probe[None]
        return physics.shift_probe(probe, tf.cast(ramps, probe.dtype))

    def with_background(self, intensity: Tensor) -> Tensor:
        """Return the expected counts (B, N, N) of waves of this `intensity`."""
        return intensity + self.background

    def batch_ramps(self, chosen: IndexArray | Tensor) -> Tensor | None:
        """Return the factors (B, 2, N) complex64 that shift the probe to `chosen`, or None.

        Those along y have the amplitude of the beam there.
        """
        if self.remainders is None and self.amplitudes is None:
            return None
        remainders = np.zeros((len(self), 2)) if self.remainders is None else self.remainders
        ramps = physics.shift_ramps(tf.gather(remainders, chosen), self.n_px)
        if self.amplitudes is None:
            return ramps
        bright = tf.gather(self.amplitudes, chosen)
        along = tf.stack([bright, tf.ones_like(bright)], 1)[:, :, None]
        return ramps * tf.cast(along, ramps.dtype)


def _resident(patterns: Patterns) -> Tensor:
    """Return all patterns as a tensor on the device, brought there in parts."""
    parts = [
        tf.constant(patterns[first : first + FETCHED_AT_ONCE])
        for first in range(0, len(patterns), FETCHED_AT_ONCE)
    ]
    return tf.concat(parts, 0)
