"""What the trainings of all families share: the task, the optimiser, the loop, the names."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.tensorflow.layers import (
    CanonicalModel,
    to_canonical,
    to_native,
)
from ptychodus_torch_plugin.backends.tensorflow.optimizer import Adam
from ptychodus_torch_plugin.backends.tensorflow.processes import Team
from ptychodus_torch_plugin.backends.training_log import TrainingLog, check_moments
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.schedules import learning_rate


@dataclass(frozen=True)
class Task:
    """All that a training is made from."""

    network: CanonicalModel
    model: ModelConfig
    calibration: Calibration
    scans: Sequence[ScanData]
    training: TrainingConfig
    execution: ExecutionConfig
    log: TrainingLog
    optimizer: Mapping[str, NDArray[np.float32]]
    team: Team = field(default_factory=Team)


class Training:
    """The training of a network; a family adds what it sees and what it is scored by.

    A family also makes batches, and says with `loss` what a batch costs.
    """

    threads_ahead = 0
    """Threads that make batches ahead where no workers are asked for."""

    def __init__(self, task: Task) -> None:
        self.network = task.network
        self._task = task
        self.n_steps = 0  # so far

    @classmethod
    def prepare(cls, task: Task) -> Self:
        """Make ready to train; raise `StopRequested` if the user lost patience meanwhile."""
        raise NotImplementedError

    @property
    def validated(self) -> bool:
        """Whether there are patterns to validate on."""
        raise NotImplementedError

    def training_batches(self, epoch: int) -> list[Callable[[], Any]]:
        """Return what makes the batches of an epoch, in order."""
        raise NotImplementedError

    def validation_batches(self) -> Iterable[Callable[[], Any]]:
        """Return what makes the batches that validate."""
        raise NotImplementedError

    def patterns_in(self, batch: Any) -> int:
        """Return how many patterns a batch scores."""
        raise NotImplementedError

    def loss(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        raise NotImplementedError

    def validation_loss(self, batch: Any) -> Tensor:
        """Return the loss of a batch that validates."""
        return self.loss(batch)

    def calibration(self) -> Calibration:
        """Return what the model knows about the instrument after training."""
        return self._task.calibration

    def named_variables(self) -> dict[str, keras.Variable]:
        """Return what the optimiser changes, by canonical name."""
        return {n: v for n, v in self.network.canonical_variables().items() if v.trainable}

    @property
    def monitor(self) -> str:
        """Name of the loss that says which epoch is best."""
        usual = 'train_loss' if self._task.training.compares_objects else 'val_loss'
        wanted = self._task.execution.checkpoint_monitor_metric or usual
        return 'val_loss' if self.validated and wanted == 'val_loss' else 'loss'

    def begin(self) -> None:
        """Make the optimiser and the functions that compute; call it once, before any epoch."""
        variables = self.named_variables()
        self.adam = Adam(variables)
        if moments := self._task.optimizer:
            shapes = {n: to_canonical(n, v.numpy()).shape for n, v in variables.items()}
            check_moments(moments, shapes)
            self.adam.set_moments(moments)
        self._sums = [tf.Variable(tf.zeros(v.shape)) for v in variables.values()]
        self._gather = tf.function(self._gathered, reduce_retracing=True, autograph=False)
        self._step = tf.function(self._stepped, autograph=False)
        self._score = tf.function(self.validation_loss, reduce_retracing=True, autograph=False)

    def _gathered(self, batch: Any) -> Tensor:
        """Add the gradients of a batch to those of the step under way; return its loss."""
        variables = [v.value for v in self.named_variables().values()]
        # What is trainable is decided here, not by what TensorFlow was told at first.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss = self.loss(batch)
        share = batch.weight / self._task.execution.accum_steps
        # A supervised loss does not look at a trained probe.
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, variables, unconnected_gradients=zero)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient * share)
        return loss

    def _stepped(self) -> None:
        """Change the variables by the gradients so far, of all ranks, and forget these."""
        limit, team = self._task.execution.gradient_clip_val, self._task.team
        gradients = [tf.convert_to_tensor(total) for total in self._sums]
        gradients = [each / team.rank.count for each in team.summed_tensors(gradients)]
        if limit is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, limit)
        self.adam.apply(gradients)
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def train(self, epoch: int, callbacks: keras.callbacks.CallbackList) -> float:
        """Train for an epoch, counted from 0, or until the user wants to stop; return its loss."""
        makers = self.training_batches(epoch)
        every, log, team = self._task.execution.accum_steps, self._task.log, self._task.team
        mean = _Mean(team)
        for number, batch in enumerate(self._made(makers)):
            self._set_rate(len(makers))
            loss = float(self._gather(batch))
            if (number + 1) % every == 0 or number + 1 == len(makers):
                self._step()
                self.n_steps += 1
            n_patterns = self.patterns_in(batch)
            mean.add(loss, n_patterns)
            loss = team.joint_loss(loss * float(batch.weight))
            log.step(epoch, number, len(makers), loss, n_patterns * team.rank.count)
            callbacks.on_train_batch_end(number, {'loss': loss})
            if log.stop_requested:
                break
        return mean.value

    def validate(self) -> float | None:
        """Return the validation loss, if there is any."""
        if not self.validated:
            return None
        mean = _Mean(self._task.team)
        for batch in self._made(self.validation_batches()):
            mean.add(float(self._score(batch)), self.patterns_in(batch))
        return mean.value

    def _set_rate(self, batches: int) -> None:
        task = self._task
        per_epoch = -(-batches // task.execution.accum_steps)
        self.adam.learning_rate = learning_rate(
            task.execution,
            self.n_steps,
            per_epoch * task.training.epochs,
            task.training.epochs,
            task.log.losses(self.monitor),
        )

    def _made(self, makers: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        """Yield the batches, which threads make ahead if there are any."""
        execution = self._task.execution
        workers = execution.num_workers or self.threads_ahead
        if workers == 0:
            yield from (make() for make in makers)
            return
        ahead = workers * (execution.prefetch_factor or 2)
        with ThreadPoolExecutor(workers) as pool:
            queue: deque[Future[Any]] = deque()
            for make in makers:
                queue.append(pool.submit(make))
                if len(queue) > ahead:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Return all that training changes, in the canonical layout."""
        variables = self.network.canonical_variables() | self.named_variables()
        return {name: to_canonical(name, v.numpy()) for name, v in variables.items()}

    def set_state(self, state: dict[str, FloatArray]) -> None:
        """Take over what `state` returned."""
        variables = self.network.canonical_variables() | self.named_variables()
        for name, variable in variables.items():
            variable.assign(to_native(name, state[name]))

    def resume(
        self, state: dict[str, FloatArray], moments: dict[str, FloatArray], n_steps: int
    ) -> None:
        """Go on from a checkpoint, after `n_steps` optimiser steps."""
        self.set_state(state)
        self.adam.set_moments(moments)
        self.n_steps = n_steps


class _Mean:
    """A mean of losses over all ranks, each weighted by its patterns."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._sum = self._weight = 0.0

    def add(self, loss: float, weight: int) -> None:
        self._sum += loss * weight
        self._weight += weight

    @property
    def value(self) -> float:
        total, weight = self._team.summed(self._sum, self._weight)
        return total / weight
