"""From the patches of a group to the counts of its patterns: merge, illuminate, propagate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.data import channels_first
from ptychodus_torch_plugin.backends.tensorflow.layers import Composite, new_variable
from ptychodus_torch_plugin.backends.tensorflow.merging import (
    merge_patches,
    merged_patch,
    read_patches,
    single_patch_canvas,
    translations,
)
from ptychodus_torch_plugin.calibration import Calibration, group_energy, scan_probe
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.physics import disc, smoothing_kernel
from ptychodus_torch_plugin.scan import ScanData


@dataclass(frozen=True)
class Merged:
    """Patches of groups after their merge.

    Attributes
    ----------
    seen : (B, C, N, N) complex64
        What each pattern sees of the merged object.
    center : (B, N, N) complex64
        The merged object around the centre of the group.
    """

    seen: Tensor
    center: Tensor


def merge(patches: Tensor, offsets_px: Tensor, weight: Tensor, side_px: int) -> Merged:
    """Merge the patches of each group where they overlap.

    Parameters
    ----------
    patches : (B, N, N, C) complex64
        One for each pattern, or (B, N, N, 1): one for the whole group, at its centre.
    offsets_px : (B, C, 2) float32
    weight : (N, N) float32
        Of each pixel of a patch.
    side_px
        Side of the group's canvas, `stitching.canvas_px`.
    """
    patches = channels_first(patches)
    n_px, n_patterns = patches.shape[-1], offsets_px.shape[1]
    if n_patterns == 1:
        return Merged(patches, patches[:, 0])
    rows, columns = translations(offsets_px, n_px, side_px)
    if patches.shape[1] == 1:
        canvas = single_patch_canvas(patches, side_px)
    else:
        canvas, _ = merge_patches(patches, weight, rows, columns)
    return Merged(read_patches(canvas, rows, columns), merged_patch(canvas, n_px))


class Illumination(Composite):
    """The probes of the training scans, and the detector.

    A probe has the energy that the counts of its scan demand, whatever training makes of its shape.
    If it is trained, all scans share that of the first.
    """

    def __init__(
        self,
        scans: Sequence[ScanData],
        config: ModelConfig,
        calibration: Calibration,
        *,
        trainable: bool,
    ) -> None:
        super().__init__()
        probes = [scan_probe(scan, config, calibration) for scan in scans]
        # One tensor for all scans: which of them a batch is of is known when it is computed.
        if trainable:
            self.shapes = new_variable(self, 'probe', _largest_is_one(probes[0]))
        else:
            self.shapes = tf.constant(_stacked([_largest_is_one(probe) for probe in probes]))
        energies = [
            group_energy(probe, scan.valid_pixels, config)
            for probe, scan in zip(probes, scans, strict=True)
        ]
        self.energies = tf.constant(energies, tf.float32)
        self._trained = trainable
        n_px = config.N
        self.board = physics.checkerboard(n_px)
        if config.probe_mask:
            self.board *= disc(n_px)
        sigma = config.gaussian_smoothing_sigma
        self.kernel = tf.constant(smoothing_kernel(sigma), tf.float32) if sigma else None

    def probe(self, scan: int | Tensor) -> Tensor:
        """Return the modes (m, N, N) complex64 that illuminate a scan."""
        parts = tf.convert_to_tensor(self.shapes) if self._trained else tf.gather(self.shapes, scan)
        factor = tf.sqrt(tf.gather(self.energies, scan) / tf.reduce_sum(tf.square(parts)))
        return tf.complex(parts[..., 0] * factor, parts[..., 1] * factor)

    def call(self, seen: Tensor, *, scan: int | Tensor) -> Tensor:
        """Return the counts (B, C, N, N) that objects (B, C, N, N) complex64 predict."""
        waves = self.probe(scan) * seen[:, :, None]
        if self.kernel is not None:
            waves = physics.smooth(waves, self.kernel)
        return tf.reduce_sum(physics.absolute_square(physics.far_field(waves * self.board)), 2)

    def exported(self, mean_counts: float) -> ComplexArray:
        """Return the probe (m, N, N) complex64 of the first scan with that energy."""
        probe = self.probe(0).numpy()
        return np.asarray(probe * np.sqrt(mean_counts / np.sum(np.abs(probe) ** 2)))


def _stacked(shapes: list[FloatArray]) -> FloatArray:
    """Return (s, m, N, N, 2) float32: dark modes where a scan has fewer than another one."""
    most = max(len(shape) for shape in shapes)
    dark = [[(0, most - len(shape)), (0, 0), (0, 0), (0, 0)] for shape in shapes]
    return np.stack([np.pad(*pair) for pair in zip(shapes, dark, strict=True)])


def _largest_is_one(probe: ComplexArray) -> FloatArray:
    """Return (m, N, N, 2) float32: with values of order one Adam's steps mean something."""
    scaled = probe / np.abs(probe).max()
    return np.stack([scaled.real, scaled.imag], axis=-1).astype(np.float32)
