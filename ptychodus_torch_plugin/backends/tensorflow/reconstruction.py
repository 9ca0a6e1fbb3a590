"""What `backends.stages` needs of TensorFlow to turn a scan into an object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import Reconstruction
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.backends.tensorflow.layers import CanonicalModel
from ptychodus_torch_plugin.backends.tensorflow.prediction import predict_patches
from ptychodus_torch_plugin.backends.tensorflow.sweeps import (
    Sweeper,
    SweepState,
    photons_per_pixel,
)
from ptychodus_torch_plugin.backends.tensorflow.unrolled import UnrolledNetwork, mean_transmission
from ptychodus_torch_plugin.calibration import Calibration, input_scale, scaled_amplitudes
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.exposures import Exposures
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import Sweep

PATTERNS_AT_ONCE = 64


class TensorFlowEngine:
    """See `protocol.Engine`."""

    def __init__(
        self,
        config: ModelConfig,
        network: CanonicalModel | None,
        calibration: Calibration,
        scan: ScanData,
    ) -> None:
        self._config, self._network, self._calibration = config, network, calibration
        self._input_scale = input_scale(scan, config, calibration)
        self._scan = ScanTensors(scan)

    def start(self, probe: ComplexArray) -> SweepState:
        return SweepState.start(self._scan, probe)

    def placed(self, object_: ComplexArray, state: SweepState) -> SweepState:
        return replace(state, object_=tf.constant(object_))

    def swept(
        self,
        state: SweepState,
        pool: IndexArray,
        sweeps: Sequence[Sweep],
        seed: int,
        on_sweep: Callable[[], None],
    ) -> SweepState:
        sweeper = Sweeper(self._scan, self._config.sweeps, pool)
        return sweeper.run(state, sweeps, seed=seed, on_sweep=on_sweep)

    def corrected(self, state: SweepState, pool: IndexArray, noise_excess: float) -> SweepState:
        assert isinstance(self._network, UnrolledNetwork)
        scan = self._scan.exposed(state.exposures)
        photons = photons_per_pixel(scan, state.probe, pool) / noise_excess
        gauge = mean_transmission(state.object_, photons)
        return replace(state, object_=self._network.tiled(state.object_, photons, gauge))

    def patches(self, patterns: FloatArray, offsets_px: FloatArray) -> ComplexArray:
        assert isinstance(self._network, CnnNetwork)
        network, scale = self._network, float(self._network.intensity_scale)
        amplitudes = scaled_amplitudes(patterns, self._input_scale)
        said = predict_patches(network, self._calibration, amplitudes, offsets_px, scale)
        return said.patches

    def photons(self, state: SweepState, pool: IndexArray) -> FloatArray:
        scan = self._scan.exposed(state.exposures)
        return np.asarray(photons_per_pixel(scan, state.probe, pool).numpy())

    def r_factor(self, state: SweepState, chosen: IndexArray) -> float:
        return r_factor(self._scan.exposed(state.exposures), state, chosen)

    def misfits(self, state: SweepState, chosen: IndexArray) -> FloatArray:
        return misfits(self._scan.exposed(state.exposures), state, chosen)

    def export(self, state: SweepState) -> tuple[ComplexArray, ComplexArray]:
        return state.export()

    def exposures(self, state: SweepState) -> Exposures | None:
        return state.exposures


def r_factor(scan: ScanTensors, state: SweepState, chosen: IndexArray) -> float:
    """Return sum |sqrt i - sqrt k| / sum sqrt k over valid pixels, i being the expected counts."""
    difference = total = 0.0
    for part in _cut(chosen):
        measured = tf.sqrt(scan.batch_counts(part)) * scan.valid
        predicted = tf.sqrt(_predict(scan, state, part)) * scan.valid
        difference += float(np.abs(predicted - measured).sum(dtype=np.float64))
        total += float(measured.numpy().sum(dtype=np.float64))
    return difference / total


def misfits(scan: ScanTensors, state: SweepState, chosen: IndexArray) -> FloatArray:
    """Return sum (i - k)^2 / sum i over valid pixels of each pattern, i being expected counts."""
    found = []
    for part in _cut(chosen):
        predicted = _predict(scan, state, part) * scan.valid
        measured = scan.batch_counts(part) * scan.valid
        squares = tf.reduce_sum(tf.square(predicted - measured), (1, 2))
        found.append(squares / tf.reduce_sum(predicted, (1, 2)))
    return np.asarray(tf.concat(found, 0).numpy())


def predict_patterns(scan: ScanData, reconstruction: Reconstruction) -> FloatArray:
    """Return the expected counts (n, N, N) float32 of an object under its probe."""
    tensors = ScanTensors(scan).exposed(reconstruction.exposures)
    state = SweepState.start(tensors, reconstruction.probe)
    state.object_ = tf.constant(reconstruction.object_)
    parts = [_predict(tensors, state, part) for part in _cut(np.arange(scan.n_patterns))]
    return np.concatenate([part.numpy() for part in parts])


def _predict(scan: ScanTensors, state: SweepState, chosen: IndexArray) -> Tensor:
    patches = physics.gather_patches(state.object_, scan.batch_index(chosen), scan.n_px)
    intensity = physics.predict_counts(patches, scan.batch_probes(state.probe, chosen))
    return scan.with_background(intensity)


def _cut(chosen: IndexArray) -> list[IndexArray]:
    return [chosen[i : i + PATTERNS_AT_ONCE] for i in range(0, len(chosen), PATTERNS_AT_ONCE)]
