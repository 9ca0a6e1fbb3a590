"""A model of the PyTorch backend: a network, what it is, and what it knows of the instrument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.torch.devices import (
    choose_device,
    full_float32,
    precision,
    threads,
)
from ptychodus_torch_plugin.backends.torch.prediction import predict_groups
from ptychodus_torch_plugin.backends.torch.reconstruction import TorchEngine, predict_patterns
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork
from ptychodus_torch_plugin.bundle.weights import check_weights
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.scan import ScanData


def build_network(config: ModelConfig) -> nn.Module | None:
    """Return the network of an architecture with fresh weights; None for 'none'."""
    match config.architecture:
        case 'unrolled':
            return UnrolledNetwork(config.channels)
        case 'cnn':
            return CnnNetwork(config)
        case 'none':
            return None


class TorchModel:
    """A model of the PyTorch backend; see `protocol.TrainedModel`."""

    def __init__(
        self, config: ModelConfig, network: nn.Module | None, calibration: Calibration
    ) -> None:
        self.config = config
        self.network = network
        self.calibration = calibration

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        if self.network is None:
            return {}
        state = self.network.state_dict()
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}

    def import_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        state = {} if self.network is None else self.network.state_dict()
        check_weights(weights, {name: tuple(tensor.shape) for name, tensor in state.items()})
        if self.network is not None:
            self.network.load_state_dict(
                {name: torch.from_numpy(np.array(weights[name])) for name in state}
            )

    @contextmanager
    def engine(self, scan: ScanData, execution: ExecutionConfig) -> Iterator[TorchEngine]:
        network = self.network
        shorter = nullcontext() if network is None else precision(network, execution)
        with threads(execution), full_float32(), shorter:
            device = choose_device(execution)
            if network is not None:
                network.eval().to(device)
            yield TorchEngine(self.config, network, self.calibration, scan, device)

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
                self.network.eval(), self.calibration, patterns, offsets_px, normalized=normalized
            )

    def predict_patterns(self, scan: ScanData, reconstruction: Reconstruction) -> FloatArray:
        with full_float32():
            return predict_patterns(scan, reconstruction)
