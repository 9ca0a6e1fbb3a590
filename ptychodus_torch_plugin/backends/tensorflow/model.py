"""A model of the TensorFlow backend: a network, what it is, and what it knows of the instrument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.protocol import (
    GroupPrediction,
    OnEvent,
    Reconstruction,
    ShouldStop,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.backends.stages import reconstruct
from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.tensorflow.devices import (
    choose_device,
    full_float32,
    precision,
    threads,
)
from ptychodus_torch_plugin.backends.tensorflow.layers import CanonicalModel, to_canonical
from ptychodus_torch_plugin.backends.tensorflow.prediction import predict_groups
from ptychodus_torch_plugin.backends.tensorflow.quiet import quiet_tensorflow
from ptychodus_torch_plugin.backends.tensorflow.reconstruction import (
    TensorFlowEngine,
    predict_patterns,
)
from ptychodus_torch_plugin.backends.tensorflow.unrolled import UnrolledNetwork
from ptychodus_torch_plugin.bundle.weights import check_weights
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.scan import ScanData


def build_network(config: ModelConfig, seed: int) -> CanonicalModel | None:
    """Return the network of an architecture with fresh weights; None for 'none'."""
    match config.architecture:
        case 'unrolled':
            return UnrolledNetwork(config.channels, seed)
        case 'cnn':
            return CnnNetwork(config, seed)
        case 'none':
            return None


class TensorFlowModel:
    """A model of the TensorFlow backend; see `protocol.TrainedModel`.

    The network is made when it is first needed: that starts TensorFlow, which from then on keeps
    the number of threads that it was told (`devices.threads`).
    """

    def __init__(self, config: ModelConfig, calibration: Calibration, seed: int) -> None:
        self.config = config
        self.calibration = calibration
        self._seed = seed
        self._imported: dict[str, NDArray[np.float32]] | None = None

    @cached_property
    def network(self) -> CanonicalModel | None:
        """The network, or None if the architecture has none."""
        network = build_network(self.config, self._seed)
        if network is not None and self._imported is not None:
            network.set_canonical_weights(self._imported)
        self._imported = None
        return network

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        if self._imported is not None:
            # A process that will train with others must not compute before it is connected.
            return {name: array.copy() for name, array in self._imported.items()}
        return {} if self.network is None else self.network.canonical_weights()

    def import_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        check_weights(weights, self._shapes())
        if 'network' not in vars(self):
            self._imported = {name: np.array(array) for name, array in weights.items()}
        elif self.network is not None:
            self.network.set_canonical_weights(weights)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by canonical name, without starting TensorFlow."""
        with tf.Graph().as_default():
            network = build_network(self.config, self._seed)
        variables = {} if network is None else network.canonical_variables()
        return {n: to_canonical(n, np.empty(v.shape)).shape for n, v in variables.items()}

    @contextmanager
    def engine(self, scan: ScanData, execution: ExecutionConfig) -> Iterator[TensorFlowEngine]:
        with (
            threads(execution),
            quiet_tensorflow(),
            full_float32(),
            tf.device(choose_device(execution)),
        ):
            network = self.network
            with nullcontext() if network is None else precision(network, execution):
                yield TensorFlowEngine(self.config, network, self.calibration, scan)

    def reconstruct(
        self,
        scan: ScanData,
        inference: InferenceConfig,
        execution: ExecutionConfig,
        *,
        on_event: OnEvent = ignore_event,
        should_stop: ShouldStop = never_stop,
    ) -> Reconstruction:
        with self.engine(scan, execution) as engine:
            return reconstruct(
                engine,
                self.config,
                self.calibration,
                scan,
                inference,
                execution,
                on_event=on_event,
                should_stop=should_stop,
            )

    def predict(
        self, patterns: FloatArray, offsets_px: FloatArray, *, normalized: bool = False
    ) -> GroupPrediction:
        if not isinstance(self.network, CnnNetwork):
            raise ConfigError(
                f"architecture = {self.config.architecture!r} works on whole scans; expected 'cnn' "
                'for groups of patterns. Call reconstruct.'
            )
        with full_float32():
            return predict_groups(
                self.network, self.calibration, patterns, offsets_px, normalized=normalized
            )

    def predict_patterns(self, scan: ScanData, reconstruction: Reconstruction) -> FloatArray:
        with full_float32():
            return predict_patterns(scan, reconstruction)
