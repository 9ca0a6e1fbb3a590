"""The PyTorch room behind the door of `backends.protocol`; Lightning comes in with `fit` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ptychodus_torch_plugin.backends.allocator import keep_freed_memory
from ptychodus_torch_plugin.backends.protocol import (
    Kernel,
    OnEvent,
    ShouldStop,
    TrainingResult,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.backends.registry import BUILT_IN, importing
from ptychodus_torch_plugin.backends.torch.limits import limits
from ptychodus_torch_plugin.backends.torch.model import TorchModel, build_network
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.scan import ScanData


class TorchBackend:
    """See `protocol.Backend`."""

    name = 'pytorch'

    def __init__(self) -> None:
        keep_freed_memory()

    def versions(self) -> dict[str, str]:
        return {'torch': torch.__version__, 'lightning': metadata.version('lightning')}

    def build(self, config: ModelConfig, calibration: Calibration, *, seed: int = 0) -> TorchModel:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return TorchModel(config, build_network(config), calibration)

    def limits(self, threads: int) -> Mapping[str, Sequence[Kernel]]:
        return limits(threads)

    def fit(
        self,
        model: TorchModel,
        scans: Sequence[ScanData],
        training: TrainingConfig,
        execution: ExecutionConfig,
        *,
        checkpoint_dir: Path | None = None,
        log_dir: Path | None = None,
        resume: bool = False,
        optimizer: Mapping[str, NDArray[np.float32]] | None = None,
        on_event: OnEvent = ignore_event,
        should_stop: ShouldStop = never_stop,
    ) -> TrainingResult:
        if model.config.architecture == 'none':
            return TrainingResult(model, history=(), best_epoch=None)
        with importing(BUILT_IN[self.name]):
            from ptychodus_torch_plugin.backends.torch.fitting import fit

        return fit(
            model,
            scans,
            training,
            execution,
            checkpoint_dir=checkpoint_dir,
            log_dir=log_dir,
            resume=resume,
            optimizer=optimizer,
            on_event=on_event,
            should_stop=should_stop,
        )
