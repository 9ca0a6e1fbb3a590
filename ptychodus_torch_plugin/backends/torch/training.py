"""What the trainings of all families share: the task, the optimiser, the loaders, the names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import lightning.pytorch as L  # noqa: N812 - Lightning's own convention
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ptychodus_torch_plugin.backends.torch.processes import Team
from ptychodus_torch_plugin.backends.training_log import SLOTS, TrainingLog, check_moments
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.schedules import learning_rate


@dataclass(frozen=True)
class Task:
    """All that a training is made from."""

    network: nn.Module
    model: ModelConfig
    calibration: Calibration
    scans: Sequence[ScanData]
    training: TrainingConfig
    execution: ExecutionConfig
    device: torch.device
    log: TrainingLog
    optimizer: Mapping[str, NDArray[np.float32]]
    team: Team = field(default_factory=Team)


class Ahead:
    """Batches of a loader, each of which a thread makes while the one before it is in use."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(next, batches, None)
            while (batch := following.result()) is not None:
                following = pool.submit(next, batches, None)
                yield batch


class Training(L.LightningModule):
    """The training of a network; a family adds what it sees and what it is scored by.

    Losses are logged as 'loss' and 'val_loss'.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self._task = task
        self._shared = not task.team.rank.alone

    @classmethod
    def prepare(cls, task: Task) -> Self:
        """Make ready to train; raise `StopRequested` if the user lost patience meanwhile."""
        raise NotImplementedError

    @property
    def validated(self) -> bool:
        """Whether there are patterns to validate on."""
        raise NotImplementedError

    def patterns_in(self, batch: Any) -> int:
        """Return how many patterns a batch visits."""
        raise NotImplementedError

    def calibration(self) -> Calibration:
        """Return what the model knows about the instrument after training."""
        return self._task.calibration

    def named_variables(self) -> dict[str, nn.Parameter]:
        """Return what the optimiser changes, by canonical name."""
        return {n: p for n, p in self.network.named_parameters() if p.requires_grad}

    @property
    def monitor(self) -> str:
        """Name of the loss that says which epoch is best."""
        usual = 'train_loss' if self._task.training.compares_objects else 'val_loss'
        wanted = self._task.execution.checkpoint_monitor_metric or usual
        return 'val_loss' if self.validated and wanted == 'val_loss' else 'loss'

    def loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        """Return a loader of ready-made batches."""
        execution = self._task.execution
        return DataLoader(
            dataset,
            batch_size=None,
            num_workers=execution.num_workers,
            pin_memory=execution.pin_memory and self.device.type == 'cuda',
            persistent_workers=execution.persistent_workers,
            prefetch_factor=execution.prefetch_factor,
            # It draws a seed although it shuffles nothing: not from the generator of the process.
            generator=torch.Generator(),
        )

    def log_loss(self, name: str, loss: Tensor, n_patterns: int) -> None:
        """Log the mean of a loss over an epoch and all ranks, batches weighted by patterns."""
        # Lightning takes the mean of the weights over the ranks, and cuts whole numbers off for it.
        weight: Any = float(n_patterns) if self._shared else n_patterns
        self.log(
            name, loss, on_step=False, on_epoch=True, batch_size=weight, sync_dist=self._shared
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self._n_steps = int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.Adam(self.named_variables().values())
        self._set_moments(optimizer)
        return optimizer

    def _set_moments(self, optimizer: torch.optim.Optimizer) -> None:
        """Go on from the moments of an earlier training."""
        moments, variables = self._task.optimizer, self.named_variables()
        if not moments:
            return
        check_moments(moments, {name: tuple(v.shape) for name, v in variables.items()})
        for name, variable in variables.items():
            optimizer.state[variable] = {
                slot: torch.tensor(moments[f'{slot}/{name}'], device=variable.device)
                for slot in SLOTS
            }

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        rate = learning_rate(
            self._task.execution,
            self.trainer.global_step,
            self._n_steps,
            self._task.training.epochs,
            self._task.log.losses(self.monitor),
        )
        for group in self.trainer.optimizers[0].param_groups:
            group['lr'] = rate

    def moments(self) -> dict[str, NDArray[np.float32]]:
        """Return Adam's moments after the last step, under the canonical names of the variables."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        return {
            f'{slot}/{name}': torch.as_tensor(state[slot], dtype=torch.float32).cpu().numpy().copy()
            for name, variable in self.named_variables().items()
            if (state := optimizer.state.get(variable))
            for slot in SLOTS
        }
