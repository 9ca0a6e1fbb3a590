"""The TensorFlow room behind the door of `backends.protocol`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
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
from ptychodus_torch_plugin.backends.tensorflow.fitting import fit
from ptychodus_torch_plugin.backends.tensorflow.limits import limits
from ptychodus_torch_plugin.backends.tensorflow.model import TensorFlowModel
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.scan import ScanData


class TensorFlowBackend:
    """See `protocol.Backend`."""

    name = 'tensorflow'

    def __init__(self) -> None:
        keep_freed_memory()

    def versions(self) -> dict[str, str]:
        return {'tensorflow': tf.__version__, 'keras': keras.__version__}

    def build(
        self, config: ModelConfig, calibration: Calibration, *, seed: int = 0
    ) -> TensorFlowModel:
        return TensorFlowModel(config, calibration, seed)

    def limits(self, threads: int) -> Mapping[str, Sequence[Kernel]]:
        return limits(threads)

    def fit(
        self,
        model: TensorFlowModel,
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
