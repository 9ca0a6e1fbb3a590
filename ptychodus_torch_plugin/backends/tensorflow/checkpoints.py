"""Checkpoints of a training: the best weights, and the point from which a killed run goes on.

A checkpoint is a NumPy archive of weights and moments by canonical name, with a JSON text about the
run.  Reading one executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.tensorflow.training import Training
from ptychodus_torch_plugin.backends.training_log import TrainingLog
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import TrainingError
from ptychodus_torch_plugin.files.atomic import atomic_path

BEST, LAST = 'best', 'last'
SUFFIX = '.ckpt'
ABOUT, STATE, MOMENTS = 'about', 'state/', 'moments/'


class Checkpoints:
    """Keeps the best state of a training, and writes what is to be written.

    Attributes
    ----------
    best
        State after the best epoch; None if none was completed, or none is kept.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        monitor: str,
        log: TrainingLog,
        execution: ExecutionConfig,
        *,
        writes: bool,
    ) -> None:
        self.best: dict[str, FloatArray] | None = None
        self._folder, self._identity, self._monitor = folder, identity, monitor
        self._log, self._execution, self._writes = log, execution, writes
        self._ranked: list[tuple[float, int]] = []

    def save(self, training: Training, epoch: int) -> None:
        """Take note of an epoch, counted from 0; one that was stopped is repeated on resuming."""
        state = training.state()
        self._rank([*self._ranked, (self._log.losses(self._monitor)[epoch], epoch)])
        if self._ranked and self._ranked[0][1] == epoch:
            self.best = state
        if self._log.stop_requested or not self._writes:
            return
        about = {
            'fingerprint': self._identity,
            'epoch': epoch,
            'steps': training.n_steps,
            'history': self._log.rows(),
            'ranked': self._ranked,
            'best': [self._best(best).name for _, best in self._ranked[:1]],
        }
        # Whatever is cut off after this, `resume` can make up for.
        _write(self._last, about, state, training.adam.moments())
        self._write_best(epoch, state)

    def _rank(self, epochs: Sequence[tuple[float, int]]) -> None:
        """Keep as many of the best epochs (loss, epoch) as are wanted, the best one first."""
        sign = 1 if self._execution.checkpoint_mode == 'min' else -1
        ranked = sorted(epochs, key=lambda each: sign * each[0])
        most = self._execution.checkpoint_save_top_k
        self._ranked = ranked if most < 0 else ranked[:most]

    def _write_best(self, epoch: int, state: dict[str, FloatArray]) -> None:
        """Write the state of an epoch if it is among the best; remove those that no longer are."""
        if not self._writes:
            return
        kept = {each: self._best(each) for _, each in self._ranked}
        if epoch in kept:
            _write(kept[epoch], {'epoch': epoch}, state, {})
        for file in {*self._folder.glob(f'{BEST}*{SUFFIX}')} - {*kept.values()}:
            file.unlink()

    def _best(self, epoch: int) -> Path:
        one = self._execution.checkpoint_save_top_k == 1
        return self._folder / (f'{BEST}{SUFFIX}' if one else f'{BEST}-epoch={epoch}{SUFFIX}')

    @property
    def _last(self) -> Path:
        return self._folder / f'{LAST}{SUFFIX}'

    def resume(self, training: Training) -> int:
        """Bring a training to where the interrupted run was; return the next epoch, from 0.

        Raises
        ------
        TrainingError
            If there is no checkpoint, if it cannot be read, or if it belongs to other data or
            settings.
        """
        about, state, moments = read_last(self._folder, self._identity)
        training.resume(state, moments, about['steps'])
        self._log.restore(about['history'])
        last = int(about['epoch'])
        self._rank([(loss, epoch) for loss, epoch in about['ranked']])
        if self._ranked:
            best = self._ranked[0][1]
            # The run may have been cut off before it wrote its last epoch as the best one.
            self.best = state if best == last else _read(self._folder / about['best'][0])[1]
            self._write_best(best, self.best)
            self._write_best(last, state)
        return last + 1


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of an earlier run from `folder`."""
    for pattern in (f'{BEST}*', LAST):
        for file in folder.glob(f'{pattern}{SUFFIX}'):
            file.unlink()


def read_last(
    folder: Path, identity: str
) -> tuple[dict[str, Any], dict[str, FloatArray], dict[str, FloatArray]]:
    """Return what the last checkpoint says of the run, its weights and its moments."""
    last = folder / f'{LAST}{SUFFIX}'
    if not last.is_file():
        raise TrainingError(
            f'{last} does not exist, so there is nothing to resume; expected the checkpoint of an '
            'interrupted run. Train without resume first.'
        )
    found = _read(last)
    if found[0].get('fingerprint') != identity:
        raise TrainingError(
            f'{last} belongs to another run: its data or settings differ from the ones given now. '
            'Resume with the same scans and settings, or start in a new folder.'
        )
    return found


def _write(
    path: Path,
    about: Mapping[str, Any],
    state: Mapping[str, FloatArray],
    moments: Mapping[str, FloatArray],
) -> None:
    arrays: dict[str, Any] = {ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}
    arrays |= {STATE + name: array for name, array in state.items()}
    arrays |= {MOMENTS + name: array for name, array in moments.items()}
    with atomic_path(path) as temporary, temporary.open('wb') as file:
        np.savez(file, **arrays)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, FloatArray], dict[str, FloatArray]]:
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as archive:
            about = json.loads(archive[ABOUT].tobytes())
            state, moments = (
                {n.removeprefix(p): archive[n] for n in archive.files if n.startswith(p)}
                for p in (STATE, MOMENTS)
            )
    except Exception as error:
        raise TrainingError(
            f'{path} cannot be read ({type(error).__name__}: {error}); expected the checkpoint of '
            'an interrupted run. Train without resume.'
        ) from error
    return about, state, moments
