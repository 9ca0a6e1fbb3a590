"""From groups of patterns to patches of the object."""

from __future__ import annotations

import numpy as np
import torch

from ptychodus_torch_plugin.arrays import FloatArray, check_array
from ptychodus_torch_plugin.backends.protocol import GroupPrediction
from ptychodus_torch_plugin.backends.stages import GROUPS_AT_ONCE
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.torch.illumination import merge
from ptychodus_torch_plugin.calibration import Calibration, scaled_amplitudes
from ptychodus_torch_plugin.stitching import canvas_px, probe_weight


def predict_groups(
    network: CnnNetwork,
    calibration: Calibration,
    patterns: FloatArray,
    offsets_px: FloatArray,
    *,
    normalized: bool,
) -> GroupPrediction:
    """Return the patches of groups; see `protocol.TrainedModel.predict`."""
    check_array(patterns, 'g C N N', name='patterns', dtype=np.float32)
    sizes = {'g': len(patterns), 'C': patterns.shape[1]}
    check_array(offsets_px, 'g C 2', name='offsets_px', dtype=np.float32, sizes=sizes)
    amplitudes = patterns if normalized else scaled_amplitudes(patterns, calibration.input_scale)
    scale = 1.0 if normalized else float(network.intensity_scale.detach())
    parts = [
        predict_patches(network, calibration, amplitudes[rows], offsets_px[rows], scale)
        for first in range(0, len(patterns), GROUPS_AT_ONCE)
        for rows in [slice(first, first + GROUPS_AT_ONCE)]
    ]
    return GroupPrediction(
        np.concatenate([part.patches for part in parts]),
        np.concatenate([part.merged for part in parts]),
    )


@torch.no_grad()
def predict_patches(
    network: CnnNetwork,
    calibration: Calibration,
    amplitudes: FloatArray,
    offsets_px: FloatArray,
    scale: float,
) -> GroupPrediction:
    """Return the patches of one batch of groups, times `scale`.

    `amplitudes` (g, C, N, N) float32 are on the network's own scale.
    """
    device = network.log_intensity_scale.device
    patches = network(torch.from_numpy(amplitudes).to(device)) * scale
    weight = torch.from_numpy(probe_weight(calibration.probe)).to(device)
    side_px = canvas_px(network.n_px, float(np.abs(offsets_px).max()))
    merged = merge(patches, torch.from_numpy(offsets_px).to(device), weight, side_px)
    # One patch for the whole group says of each pattern what the pattern sees of it.
    own = patches if patches.shape[1] == amplitudes.shape[1] else merged.seen
    return GroupPrediction(own.cpu().numpy(), merged.center.cpu().numpy())
