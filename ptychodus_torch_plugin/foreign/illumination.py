"""The probe of a model that was trained elsewhere, and the scale of its object that follows.

PtychoPINN normalises patterns to X with mean energy (N / 2)^2 and predicts them as
X = |F(P_ref o)|, whatever the number of photons.  Here k = s^2 |F(P o)|^2 with P = P_ref sqrt(n /
sum |P_ref|^2), so that the probe's energy is the mean counts n: then s = sqrt(sum |P_ref|^2) /
(N / 2), with sums over what is left of the probe behind the filter and the mask of the exit wave.
"""

from __future__ import annotations

import numpy as np

from ptychodus_torch_plugin.bundle.errors import ForeignBundleError
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.physics import Complex, disc, shape_exit_waves

PLACEHOLDER_WIDTH = 1 / 8
"""Sigma of the amplitude of the placeholder, relative to N."""


def normalised_probe(probe: Complex, probe_scale: float) -> Complex:
    """Return P_ref of a probe (m, N, N) as the TensorFlow variant makes it.

    Its mean amplitude, of what lies inside the disc of diameter N / 2, is 1 / probe_scale.

    Raises
    ------
    ForeignBundleError
        If the probe is not finite, or zero there.
    """
    inside = np.abs(probe) * disc(probe.shape[-1])
    mean = float(inside.mean())
    if not (np.isfinite(probe).all() and mean > 0):
        raise ForeignBundleError(
            'the probe in the archive is not finite, or zero inside the disc of diameter N / 2; '
            'expected the probe of a trained model. Train the model here instead.'
        )
    return np.asarray(probe / (probe_scale * mean))


def placeholder_probe(n_px: int) -> Complex:
    """Return a Gaussian beam (1, N, N) complex128, where nothing is known of the true one."""
    line = np.exp(-0.5 * ((np.arange(n_px) - (n_px - 1) / 2) / (PLACEHOLDER_WIDTH * n_px)) ** 2)
    return np.asarray(np.outer(line, line)[None], dtype=np.complex128)


def object_scale(reference: Complex, config: ModelConfig) -> float:
    """Return s, the factor from the patches of the network to the object's transmission.

    Parameters
    ----------
    reference : (m, N, N) complex
        P_ref.
    config
        Filter and mask of the exit wave.
    """
    waves = shape_exit_waves(reference, config.gaussian_smoothing_sigma, masked=config.probe_mask)
    return float(np.linalg.norm(waves)) / (config.N / 2)
