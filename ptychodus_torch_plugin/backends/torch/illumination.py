"""From the patches of a group to the counts of its patterns: merge, illuminate, propagate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ptychodus_torch_plugin.arrays import ComplexArray
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.merging import (
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
    patches : (B, C, N, N) complex64
        One for each pattern, or (B, 1, N, N): one for the whole group, at its centre.
    offsets_px : (B, C, 2) float32
    weight : (N, N) float32
        Of each pixel of a patch.
    side_px
        Side of the group's canvas, `stitching.canvas_px`.
    """
    n_px, (_, n_patterns, _) = patches.shape[-1], offsets_px.shape
    if n_patterns == 1:
        return Merged(patches, patches[:, 0])
    rows, columns = translations(offsets_px, n_px, side_px)
    if patches.shape[1] == 1:
        canvas = single_patch_canvas(patches, side_px)
    else:
        canvas, _ = merge_patches(patches, weight, rows, columns)
    return Merged(read_patches(canvas, rows, columns), merged_patch(canvas, n_px))


class Illumination(nn.Module):
    """The probes of the training scans, and the detector.

    A probe has the energy that the counts of its scan demand, whatever training makes of its shape.
    If it is trained, all scans share that of the first.
    """

    board: Tensor
    kernel: Tensor | None

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
        shapes = [_largest_is_one(probe) for probe in (probes[:1] if trainable else probes)]
        self.shapes = nn.ParameterList(nn.Parameter(s, requires_grad=trainable) for s in shapes)
        self.energies = [
            group_energy(probe, scan.valid_pixels, config)
            for probe, scan in zip(probes, scans, strict=True)
        ]
        self._trainable = trainable
        n_px = config.N
        board = physics.checkerboard(n_px, torch.device('cpu'))
        if config.probe_mask:
            board = board * torch.from_numpy(disc(n_px))
        self.register_buffer('board', board, persistent=False)
        sigma = config.gaussian_smoothing_sigma
        kernel = torch.from_numpy(smoothing_kernel(sigma).astype(np.float32)) if sigma else None
        self.register_buffer('kernel', kernel, persistent=False)

    def probe(self, scan: int) -> Tensor:
        """Return the modes (m, N, N) complex64 that illuminate a scan."""
        shape = torch.view_as_complex(self.shapes[0 if self._trainable else scan])
        norm = physics.absolute_square(shape).sum().sqrt()
        return shape * (self.energies[scan] ** 0.5 / norm)

    def forward(self, seen: Tensor, scan: int) -> Tensor:
        """Return the counts (B, C, N, N) that objects (B, C, N, N) complex64 predict."""
        waves = self.probe(scan) * seen[:, :, None]
        if self.kernel is not None:
            waves = physics.smooth(waves, self.kernel)
        return physics.absolute_square(physics.far_field(waves * self.board)).sum(2)

    def exported(self, mean_counts: float) -> ComplexArray:
        """Return the probe (m, N, N) complex64 of the first scan with that energy."""
        probe = self.probe(0).detach().cpu().numpy()
        return np.asarray(probe * np.sqrt(mean_counts / np.sum(np.abs(probe) ** 2)))


def _largest_is_one(probe: ComplexArray) -> Tensor:
    """Return (m, N, N, 2) float32: with values of order one Adam's steps mean something."""
    scaled = (probe / np.abs(probe).max()).astype(np.complex64)
    return torch.view_as_real(torch.from_numpy(scaled)).clone()
