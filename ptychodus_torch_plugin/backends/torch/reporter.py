"""The callback between Lightning and whoever watches a training."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L  # noqa: N812 - Lightning's own convention

from ptychodus_torch_plugin.backends.torch.processes import Team
from ptychodus_torch_plugin.backends.torch.training import Training
from ptychodus_torch_plugin.backends.training_log import TrainingLog


class Reporter(L.Callback):
    """Hands Lightning's hooks to the log of a training."""

    def __init__(self, log: TrainingLog, fingerprint: str, team: Team) -> None:
        self.training_log = log
        self._fingerprint, self._team = fingerprint, team

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.training_log.start()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, Training)
        self.training_log.step(
            trainer.current_epoch,
            batch_idx,
            int(trainer.num_training_batches),
            # Lightning hands over the batch's share in the step.
            self._team.joint_loss(float(outputs['loss'])) * trainer.accumulate_grad_batches,
            pl_module.patterns_in(batch) * self._team.rank.count,
        )
        trainer.should_stop |= self.training_log.stop_requested

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        validation = metrics.get('val_loss')
        self.training_log.close(
            trainer.current_epoch,
            float(metrics['loss']),
            None if validation is None else float(validation),
        )

    def state_dict(self) -> dict[str, Any]:
        # Plain numbers, so that the checkpoint can be read without executing anything.
        return {'history': self.training_log.rows(), 'fingerprint': self._fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.training_log.restore(state_dict['history'])
