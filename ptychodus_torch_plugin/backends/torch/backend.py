"""The PyTorch room behind the door of `backends.protocol`."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as L  # noqa: N812 - Lightning's own convention
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.protocol import (
    EpochRecord,
    OnEvent,
    Reconstruction,
    ShouldStop,
    TrainingResult,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.backends.torch.checkpoints import (
    checkpoints,
    remove_checkpoints,
    resume_point,
)
from ptychodus_torch_plugin.backends.torch.reconstruction import predict_patterns, reconstruct
from ptychodus_torch_plugin.backends.torch.training import (
    Preparation,
    Reporter,
    StopRequested,
    UnrolledTraining,
    determinism_restored,
    quiet_lightning,
)
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork
from ptychodus_torch_plugin.bundle.weights import check_weights
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.training_plan import TrainingPlan


class TorchModel:
    """A model of the PyTorch backend; see `protocol.TrainedModel`."""

    def __init__(self, config: ModelConfig, network: UnrolledNetwork | None) -> None:
        self.config = config
        self.network = network

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

    def reconstruct(
        self,
        scan: ScanData,
        inference: InferenceConfig,
        execution: ExecutionConfig,
        *,
        on_event: OnEvent = ignore_event,
        should_stop: ShouldStop = never_stop,
    ) -> Reconstruction:
        with threads(execution):
            device = choose_device(execution)
            if self.network is not None:
                self.network.eval().to(device)
            return reconstruct(
                self.config,
                self.network,
                scan,
                inference,
                device,
                on_event=on_event,
                should_stop=should_stop,
            )

    def predict_patterns(self, scan: ScanData, reconstruction: Reconstruction) -> FloatArray:
        return predict_patterns(scan, reconstruction)


class TorchBackend:
    """See `protocol.Backend`."""

    name = 'pytorch'

    def versions(self) -> dict[str, str]:
        return {'torch': torch.__version__, 'lightning': lightning.__version__}

    def build(self, config: ModelConfig, *, seed: int = 0) -> TorchModel:
        if config.architecture == 'none':
            return TorchModel(config, None)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return TorchModel(config, UnrolledNetwork(config.channels))

    def fit(
        self,
        model: TorchModel,
        scans: Sequence[ScanData],
        training: TrainingConfig,
        execution: ExecutionConfig,
        *,
        checkpoint_dir: Path | None = None,
        resume: bool = False,
        on_event: OnEvent = ignore_event,
        should_stop: ShouldStop = never_stop,
    ) -> TrainingResult:
        if model.network is None:
            return TrainingResult(model, history=(), best_epoch=None)
        plan = TrainingPlan(scans, training)
        with (
            threads(execution),
            quiet_lightning(),
            determinism_restored(),
            _folder(checkpoint_dir) as folder,
        ):
            device = choose_device(execution)
            fingerprint = _fingerprint(model.config, scans, training)
            last = resume_point(folder, fingerprint) if resume else None
            if not resume:
                remove_checkpoints(folder)
            preparation = Preparation(scans, plan, model.config, device, on_event, should_stop)
            try:
                module = UnrolledTraining(
                    model.network, plan, preparation.training(), preparation.validation()
                )
            except StopRequested:
                return TrainingResult(model, history=(), best_epoch=None, stopped='request')
            reporter = Reporter(fingerprint, training.epochs, on_event, should_stop)
            trainer = _trainer(training, execution, device, folder, reporter, plan)
            trainer.fit(module, ckpt_path=last, weights_only=True)
            return _result(model, trainer, module, reporter)


def _trainer(
    training: TrainingConfig,
    execution: ExecutionConfig,
    device: torch.device,
    folder: Path,
    reporter: Reporter,
    plan: TrainingPlan,
) -> L.Trainer:
    validated = any(len(held) for held in plan.held_out)
    monitor = 'val_loss' if validated else 'loss'
    # The reporter comes first, so that the history is complete in what the checkpoint saves.
    callbacks: list[Callback] = [
        reporter,
        EarlyStopping(monitor=monitor, patience=training.patience),
        *checkpoints(folder, monitor, reporter, keep_last=execution.checkpoints),
    ]
    return L.Trainer(
        accelerator='cpu' if device.type == 'cpu' else 'gpu',
        devices=1,
        precision=execution.precision,
        deterministic=execution.deterministic,
        max_epochs=training.epochs,
        gradient_clip_val=training.gradient_clip,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validated else 0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=folder,
    )


def _result(
    model: TorchModel, trainer: L.Trainer, module: UnrolledTraining, reporter: Reporter
) -> TrainingResult:
    """Give the model the weights of its best epoch, if one was completed."""
    assert trainer.checkpoint_callback is not None
    best = getattr(trainer.checkpoint_callback, 'best_model_path', '')
    optimizer = _moments(module)
    if best:
        state = torch.load(best, map_location='cpu', weights_only=True)['state_dict']
        module.load_state_dict(state)
    module.cpu()
    early = len(reporter.history) < reporter.epochs
    return TrainingResult(
        model,
        history=tuple(reporter.history),
        best_epoch=_best_epoch(reporter.history),
        stopped='request' if reporter.stop_requested else 'patience' if early else '',
        optimizer=optimizer,
    )


def _best_epoch(history: Sequence[EpochRecord]) -> int | None:
    if not history:
        return None
    return min(
        history, key=lambda r: r.loss if r.validation_loss is None else r.validation_loss
    ).epoch


def _moments(module: UnrolledTraining) -> dict[str, NDArray[np.float32]]:
    """Return Adam's moments after the last step under the canonical names of their weights."""
    optimizer: Any = module.optimizers(use_pl_optimizer=False)
    moments: dict[str, NDArray[np.float32]] = {}
    for name, parameter in module.network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            array = torch.as_tensor(value, dtype=torch.float32).cpu().numpy().copy()
            moments[f'{key}/{name}'] = array
    return moments


def _fingerprint(config: ModelConfig, scans: Sequence[ScanData], training: TrainingConfig) -> str:
    """Return a sha256 of all that decides the course of training."""
    data = [
        (scan.fingerprint(), hashlib.sha256(scan.probe.tobytes()).hexdigest(), scan.frame.shape)
        for scan in scans
    ]
    text = json.dumps([config.to_json(), training.to_json(), data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _folder(checkpoint_dir: Path | None) -> Iterator[Path]:
    if checkpoint_dir is not None:
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        yield checkpoint_dir
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def choose_device(execution: ExecutionConfig) -> torch.device:
    """Return the device for an accelerator; raise `ConfigError` if it is not there."""
    wanted = execution.accelerator
    if wanted in ('gpu', 'cuda', 'auto') and torch.cuda.is_available():
        return torch.device('cuda')
    if wanted == 'mps' and torch.backends.mps.is_available():
        return torch.device('mps')
    if wanted in ('auto', 'cpu'):
        return torch.device('cpu')
    raise ConfigError(
        f'accelerator = {wanted!r}, but PyTorch {torch.__version__} finds no such device; expected '
        "'auto' or 'cpu' on this machine."
    )


@contextmanager
def threads(execution: ExecutionConfig) -> Iterator[None]:
    """Use the wanted number of CPU threads for a while."""
    before = torch.get_num_threads()
    if execution.num_threads is not None:
        torch.set_num_threads(execution.num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
