"""From groups of patterns to patches of the object."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ptychodus_torch_plugin.arrays import FloatArray, check_array
from ptychodus_torch_plugin.backends.protocol import GroupPrediction
from ptychodus_torch_plugin.backends.stages import GROUPS_AT_ONCE
from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.tensorflow.data import channels_first, channels_last
from ptychodus_torch_plugin.backends.tensorflow.illumination import merge
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
    scale = 1.0 if normalized else float(network.intensity_scale)
    parts = [
        predict_patches(network, calibration, amplitudes[rows], offsets_px[rows], scale)
        for first in range(0, len(patterns), GROUPS_AT_ONCE)
        for rows in [slice(first, first + GROUPS_AT_ONCE)]
    ]
    return GroupPrediction(
        np.concatenate([part.patches for part in parts]),
        np.concatenate([part.merged for part in parts]),
    )


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
    patches = network.predicted(channels_last(amplitudes)) * scale
    weight = tf.constant(probe_weight(calibration.probe))
    side_px = canvas_px(network.n_px, float(np.abs(offsets_px).max()))
    merged = merge(patches, tf.constant(offsets_px), weight, side_px)
    # One patch for the whole group says of each pattern what the pattern sees of it.
    own = channels_first(patches) if patches.shape[-1] == amplitudes.shape[1] else merged.seen
    return GroupPrediction(own.numpy(), merged.center.numpy())
