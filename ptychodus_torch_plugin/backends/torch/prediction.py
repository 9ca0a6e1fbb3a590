"""From groups of patterns to patches, and from all patches of a scan to its object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, IndexArray, check_array
from ptychodus_torch_plugin.backends.protocol import GroupPrediction
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.torch.illumination import merge
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import InferenceConfig
from ptychodus_torch_plugin.group_plan import check_reach
from ptychodus_torch_plugin.grouping import Groups, draw_groups
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.stitching import Canvas, canvas_px, probe_weight, uniform_weight

GROUPS_AT_ONCE = 32


def predict_groups(
    network: CnnNetwork, calibration: Calibration, patterns: FloatArray, offsets_px: FloatArray
) -> GroupPrediction:
    """Return the patches of groups; see `protocol.TrainedModel.predict`."""
    check_array(patterns, 'g C N N', name='patterns', dtype=np.float32)
    sizes = {'g': len(patterns), 'C': patterns.shape[1]}
    check_array(offsets_px, 'g C 2', name='offsets_px', dtype=np.float32, sizes=sizes)
    parts = [
        _predict(network, calibration, patterns[rows], offsets_px[rows])
        for rows in _cut(len(patterns), GROUPS_AT_ONCE)
    ]
    patches, centers = zip(*parts, strict=True)
    return GroupPrediction(np.concatenate(patches), np.concatenate(centers))


def predict_object(
    network: CnnNetwork,
    calibration: Calibration,
    scan: ScanData,
    groups: Groups,
    weighting: str,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> ComplexArray:
    """Return the object (h, w) complex64 that the patches of all groups make, 0 where none lies.

    Each pattern's patch is placed at the pattern's own position.  `on_batch` is told the number of
    patterns after every batch.
    """
    canvas = Canvas(scan.frame, patch_weight(scan, weighting))
    for rows in _cut(len(groups), batch_size):
        indices = groups.indices[rows]
        patterns = scan.patterns[indices] * scan.valid_pixels
        patches, _ = _predict(network, calibration, patterns, groups.offsets_px[rows])
        canvas.add(patches.reshape(-1, *patches.shape[2:]), scan.positions_px[indices.reshape(-1)])
        on_batch(indices.size)
    object_, _ = canvas.finish()
    return object_


def patch_weight(scan: ScanData, weighting: str) -> FloatArray:
    """Return the weight (N, N) float32 of a patch where patches overlap: 'probe' or 'uniform'."""
    return probe_weight(scan.probe) if weighting == 'probe' else uniform_weight(scan.n_px)


def groups_of(
    scan: ScanData, gridsize: int, inference: InferenceConfig, pool: IndexArray
) -> Groups:
    """Return one group for every pattern of `pool`, filled from the pool."""
    groups = draw_groups(
        scan.positions_px,
        gridsize,
        neighbor_count=inference.neighbor_count,
        seed=inference.seed,
        pool=pool,
    )
    check_reach(scan, groups)
    return groups


@torch.no_grad()
def _predict(
    network: CnnNetwork, calibration: Calibration, patterns: FloatArray, offsets_px: FloatArray
) -> tuple[ComplexArray, ComplexArray]:
    """Return patches (g, C, N, N) and merged patches (g, N, N)."""
    device = network.log_intensity_scale.device
    amplitudes = torch.from_numpy(patterns).to(device).sqrt() / calibration.input_scale
    patches = network(amplitudes) * network.intensity_scale
    weight = torch.from_numpy(probe_weight(calibration.probe)).to(device)
    side_px = canvas_px(network.n_px, float(np.abs(offsets_px).max()))
    merged = merge(patches, torch.from_numpy(offsets_px).to(device), weight, side_px)
    # One patch for the whole group says of each pattern what the pattern sees of it.
    own = patches if patches.shape[1] == patterns.shape[1] else merged.seen
    return own.cpu().numpy(), merged.center.cpu().numpy()


def _cut(n: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, n, size)]
