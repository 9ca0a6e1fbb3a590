"""Training of the unrolled network by Lightning, without labels.

`training_plan` says what is drawn when; here are the sweeps that prepare the views, the Lightning
module with the likelihood, and the callback that reports progress and takes the wish to stop.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L  # noqa: N812 - Lightning's own convention
import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ptychodus_torch_plugin.arrays import FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import EpochRecord, OnEvent, Progress, ShouldStop
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, SweepState, photons_per_pixel
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork, mean_transmission
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import TrainingError
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import first_probe, schedule
from ptychodus_torch_plugin.training_plan import Step, TrainingPlan, View


@dataclass(frozen=True)
class Prepared:
    """A view after its sweeps: what the network sees, and how its prediction becomes counts."""

    scan: ScanTensors
    object_: Tensor
    photons: Tensor
    gauge: Tensor
    probe: Tensor
    scale: float
    mean_count: float

    def window(self, first: tuple[int, int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return object and photons inside a window of the canvas."""
        region = (slice(first[0], first[0] + shape[0]), slice(first[1], first[1] + shape[1]))
        return self.object_[region], self.photons[region]


class Preparation:
    """Runs the sweeps of all views, once, before training."""

    def __init__(
        self,
        scans: Sequence[ScanData],
        plan: TrainingPlan,
        config: ModelConfig,
        device: torch.device,
        on_event: OnEvent,
        should_stop: ShouldStop,
    ) -> None:
        self._scans, self._plan, self._config, self._device = scans, plan, config, device
        self._on_event, self._should_stop = on_event, should_stop
        validated = sum(1 for held in plan.held_out if len(held))
        self._total = (len(plan.views) + validated) * config.sweeps_before
        self._done = 0
        self._start = time.perf_counter()

    def training(self) -> list[Prepared]:
        """Return what each view of the plan sees."""
        return [self._prepare(view) for view in self._plan.views]

    def validation(self) -> list[tuple[Prepared, IndexArray]]:
        """Return each scan with all its counts but no held-out pattern, and those patterns."""
        return [
            (self._prepare(View(scan)), held)
            for scan, held in enumerate(self._plan.held_out)
            if len(held)
        ]

    def _prepare(self, view: View) -> Prepared:
        scan, fraction = self._scans[view.scan], self._plan.config.thinning_fraction
        share = view.share(fraction)
        scored = 1.0 if view.thinning < 0 else 1 - share
        counts = self._plan.seen_counts(view)
        tensors = ScanTensors(scan, self._device, counts)
        pool = self._plan.pools[view.scan]
        probe = first_probe(scan, self._config.sweeps) * math.sqrt(share)
        sweeper = Sweeper(tensors, self._config.sweeps, pool)
        state = sweeper.run(
            SweepState.start(tensors, probe),
            schedule(self._config.sweeps, self._config.sweeps_before),
            seed=self._plan.config.seed,
            on_sweep=lambda: self._report(len(pool)),
        )
        photons = photons_per_pixel(tensors, state.probe, pool)
        return Prepared(
            scan=tensors if view.thinning < 0 else ScanTensors(scan, self._device),
            object_=state.object_,
            photons=photons,
            gauge=mean_transmission(state.object_, photons),
            probe=state.probe,
            scale=scored / share,
            mean_count=tensors.mean_count * scored,
        )

    def _report(self, n_patterns: int) -> None:
        if self._should_stop():
            raise StopRequested
        self._done += 1
        elapsed = time.perf_counter() - self._start
        self._on_event(
            Progress(
                'prepare',
                self._done,
                self._total,
                patterns_per_s=n_patterns * self._done / elapsed,
                remaining_s=elapsed / self._done * (self._total - self._done),
            )
        )


class StopRequested(Exception):  # noqa: N818 - it is no error
    """The user asked to stop before there was anything to keep."""


class StepData(Dataset[tuple[Step, FloatArray]]):
    """The steps of one epoch with the counts that each scores."""

    def __init__(self, plan: TrainingPlan, epoch: int) -> None:
        self._plan = plan
        self._steps = plan.steps(epoch)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> tuple[Step, FloatArray]:
        step = self._steps[index]
        return step, self._plan.scored_counts(self._plan.views[step.view], step.patterns)


class UnrolledTraining(L.LightningModule):
    """The likelihood of patterns that the network's object predicts."""

    def __init__(
        self,
        network: UnrolledNetwork,
        plan: TrainingPlan,
        training: list[Prepared],
        validation: list[tuple[Prepared, IndexArray]],
    ) -> None:
        super().__init__()
        self.network = network
        self._plan = plan
        self._training_views = training
        self._validation_views = validation

    def train_dataloader(self) -> DataLoader[tuple[Step, FloatArray]]:
        # It draws a seed although it shuffles nothing: not from the generator of the process.
        generator = torch.Generator()
        return DataLoader(
            StepData(self._plan, self.current_epoch), batch_size=None, generator=generator
        )

    def val_dataloader(self) -> list[int]:
        return list(range(len(self._validation_views)))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return batch  # a step names what it needs; `training_step` fetches it

    def training_step(self, batch: tuple[Step, FloatArray], _: int) -> Tensor:
        step, counts = batch
        view = self._training_views[step.view]
        shape = self._plan.window_shape(self._plan.views[step.view].scan)
        object_, photons = view.window(step.window, shape)
        corrected = self.network(object_, photons, view.gauge)
        scored = torch.as_tensor(counts).to(self.device)
        loss = _score(view, corrected, step.window, step.patterns, scored)
        self.log('loss', loss, on_step=False, on_epoch=True, batch_size=len(step.patterns))
        return loss

    def validation_step(self, batch: int, _: int) -> None:
        view, held_out = self._validation_views[batch]
        corrected = self.network.tiled(view.object_, view.photons, view.gauge)
        for part in np.array_split(held_out, math.ceil(len(held_out) / 64)):
            scored = view.scan.batch_counts(torch.from_numpy(part))
            loss = _score(view, corrected, (0, 0), part, scored)
            self.log('val_loss', loss, on_epoch=True, batch_size=len(part))

    def configure_optimizers(self) -> Any:
        config = self._plan.config
        optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        if config.scheduler == 'constant':
            return optimizer
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            config.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
        )
        return [optimizer], [{'scheduler': scheduler, 'interval': 'step'}]


def _score(
    view: Prepared, object_: Tensor, first: tuple[int, int], chosen: IndexArray, counts: Tensor
) -> Tensor:
    """Return the loss of patterns `chosen` on a part of the canvas that starts at `first`."""
    scan = view.scan
    indices = torch.from_numpy(chosen).to(scan.device)
    corners = scan.corners.index_select(0, indices) - torch.tensor(first, device=scan.device)
    index = physics.patch_index(corners, scan.n_px, object_.shape[1])
    patches = physics.gather_patches(object_, index, scan.n_px)
    predicted = physics.predict_counts(patches, scan.batch_probes(view.probe, indices))
    return physics.poisson_loss(predicted * view.scale, counts, scan.valid, view.mean_count)


class Reporter(L.Callback):
    """Turns Lightning's hooks into events and history, and takes the wish to stop."""

    def __init__(
        self, fingerprint: str, epochs: int, on_event: OnEvent, should_stop: ShouldStop
    ) -> None:
        self.history: list[EpochRecord] = []
        self.stop_requested = False
        self._fingerprint = fingerprint
        self.epochs, self._on_event, self._should_stop = epochs, on_event, should_stop
        self._start = time.perf_counter()
        self._steps = self._patterns = 0
        self._loss = self._validation_loss = math.nan

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.perf_counter()
        self._steps = self._patterns = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._steps += 1
        self._patterns += len(batch[0].patterns)
        loss = float(outputs['loss'])
        _check_finite('loss', loss, f'epoch {trainer.current_epoch + 1}, step {batch_idx + 1}')
        self._loss = loss if math.isnan(self._loss) else 0.9 * self._loss + 0.1 * loss
        per_epoch = int(trainer.num_training_batches)
        done = trainer.current_epoch * per_epoch + batch_idx + 1
        total = self.epochs * per_epoch
        elapsed = time.perf_counter() - self._start
        self._on_event(
            Progress(
                'train',
                done,
                total,
                epoch=trainer.current_epoch + 1,
                epochs=self.epochs,
                loss=self._loss,
                validation_loss=self._validation_loss,
                patterns_per_s=self._patterns / elapsed,
                remaining_s=elapsed / self._steps * (total - done),
            )
        )
        if self._should_stop():
            self.stop_requested = trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        validation = metrics.get('val_loss')
        record = EpochRecord(
            epoch=trainer.current_epoch + 1,
            loss=float(metrics['loss']),
            validation_loss=None if validation is None else float(validation),
        )
        if record.validation_loss is not None:
            _check_finite('validation loss', record.validation_loss, f'epoch {record.epoch}')
            self._validation_loss = record.validation_loss
        self.history.append(record)

    def state_dict(self) -> dict[str, Any]:
        # Plain numbers, so that the checkpoint can be read without executing anything.
        rows = [[r.epoch, r.loss, r.validation_loss] for r in self.history]
        return {'history': rows, 'fingerprint': self._fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [EpochRecord(*row) for row in state_dict['history']]
        if self.history and self.history[-1].validation_loss is not None:
            self._validation_loss = self.history[-1].validation_loss


def _check_finite(name: str, loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f'the {name} became {loss} in {where}; expected a finite number. Lower the learning '
            'rate.'
        )


CHATTER = (
    # It is not empty because it is the one to resume from.
    'Checkpoint directory .* exists and is not empty',
    # Lightning 2.6 with PyTorch 2.12 and newer.
    r'`isinstance\(treespec, LeafSpec\)` is deprecated',
)
"""Beginnings of warnings that tell a user nothing."""

CUBLAS_WORKSPACE = 'CUBLAS_WORKSPACE_CONFIG'


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about itself; its warnings about real faults stay."""
    loggers = [logging.getLogger(name) for name in ('lightning.pytorch', 'lightning.fabric')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', PossibleUserWarning)
            for message in CHATTER:
                warnings.filterwarnings('ignore', message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def determinism_restored() -> Iterator[None]:
    """Give back the process-wide switches that Lightning's `deterministic` turns."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(CUBLAS_WORKSPACE)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        os.environ.pop(CUBLAS_WORKSPACE, None)
        if workspace is not None:
            os.environ[CUBLAS_WORKSPACE] = workspace
