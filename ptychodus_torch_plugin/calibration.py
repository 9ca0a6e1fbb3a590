"""What a model knows about the instrument that it was trained for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, FloatArray
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.probes import scale_probe
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import first_probe


@dataclass(frozen=True)
class Calibration:
    """Probe and scale of the training scans, frozen and used again at inference.

    Attributes
    ----------
    probe : (m, N, N) complex64
        Probe modes of the first training scan; their energy is its mean total counts less the
        background.
    mean_counts
        Mean total counts of a pattern over all training scans.
    probe_trained
        Whether training changed the probe, so that other scans are seen with it, too.
    """

    probe: ComplexArray
    mean_counts: float
    probe_trained: bool = False

    @classmethod
    def of(cls, scans: Sequence[ScanData], config: ModelConfig) -> Calibration:
        """Return the calibration of a model that is to be trained on `scans`."""
        return cls(
            probe=first_probe(scans[0], config.sweeps).astype(np.complex64),
            mean_counts=float(np.mean([scan.mean_counts() for scan in scans])),
        )

    @property
    def input_scale(self) -> float:
        """Divisor of the amplitudes (roots of counts) at the input of 'cnn'.

        The mean energy of a pattern of the training scans becomes (N / 2)^2.
        """
        return 2 * math.sqrt(self.mean_counts) / int(self.probe.shape[-1])


def input_scale(scan: ScanData, config: ModelConfig, calibration: Calibration) -> float:
    """Return the divisor of a scan's amplitudes at the input of 'cnn' (`config.input_scaling`)."""
    if config.input_scaling == 'scan':
        return Calibration(calibration.probe, scan.mean_counts()).input_scale
    return calibration.input_scale


def scaled_amplitudes(patterns: FloatArray, scale: float) -> FloatArray:
    """Return the roots of counts over a scale, as the network sees them, float32."""
    return np.asarray(np.sqrt(patterns) / np.float32(scale), dtype=np.float32)


def scan_probe(scan: ScanData, config: ModelConfig, calibration: Calibration) -> physics.Complex:
    """Return the probe (m, N, N) that a model sees a scan with, scaled to the scan's counts.

    It is the one that was trained, or else the scan's own.
    """
    if not calibration.probe_trained:
        return first_probe(scan, config.sweeps)
    return scale_probe(calibration.probe, scan.mean_signal(), scan.valid_pixels)


def group_energy(probe: physics.Complex, valid: BoolArray, config: ModelConfig) -> float:
    """Return the energy of a probe (m, N, N) with which 'cnn' keeps the gauge.

    Its exit wave may be smoothed and cut off; that takes light away, which the probe must have more
    of, so that an empty object still predicts the counts of `probe` over the pixels `valid` (N, N).
    """
    empty = np.ones((1, *valid.shape))
    waves = physics.shape_exit_waves(
        probe * empty, config.gaussian_smoothing_sigma, masked=config.probe_mask
    )
    before, after = (
        float(np.sum(np.abs(physics.far_field(each)[..., valid]) ** 2)) for each in (probe, waves)
    )
    return float(np.sum(np.abs(probe) ** 2)) * before / after
