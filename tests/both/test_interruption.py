"""Cut, killed, stopped, impatient, diverging: what is left of a training run."""

import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.errors import TrainingError

from .quick import (
    EXECUTION,
    MODEL,
    STEPS,
    TRAINING,
    PowerCutError,
    assert_same_arrays,
    assert_same_run,
    cut_at,
)

# Interruption


@pytest.mark.parametrize(
    ('epoch', 'step'), [(2, 1), pytest.param(2, 3, marks=pytest.mark.slow), (3, 6)]
)
def test_resuming_gives_the_run_that_was_never_cut(quick, noisy, whole, tmp_path, epoch, step):
    cut = cut_at(epoch, step)
    with pytest.raises(PowerCutError):
        quick.fit(noisy, options={'checkpoint_dir': tmp_path, 'on_event': cut})
    events = []
    options = {'checkpoint_dir': tmp_path, 'resume': True, 'on_event': events.append}
    resumed = quick.fit(noisy, options=options)
    assert_same_run(resumed, whole.result)
    first = next(e for e in events if e.phase == 'train')
    assert (first.epoch, first.epochs) == (epoch, 3)
    assert (first.done, first.total) == (1 + (epoch - 1) * 6, 18)
    assert first.validation_loss == whole.result.history[epoch - 2].validation_loss


@pytest.mark.slow_in('tensorflow')
def test_a_killed_process_can_be_resumed(quick, noisy, whole, tmp_path):
    """SIGKILL in the second epoch: nobody is asked, nothing is tidied up."""
    script = f"""
        import os, signal
        from ptychodus_torch_plugin.backends.registry import get_backend
        from ptychodus_torch_plugin.calibration import Calibration
        from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
        from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
        from pathlib import Path

        def on_event(event):
            if event.phase == 'train' and event.done == {STEPS + 2}:
                os.kill(os.getpid(), signal.SIGKILL)

        scan = simulate_scan(SimulationConfig(
            N=32, object_kind='dead-leaves', n_positions=49, step_px=4.5,
            offset_px=(1.3, -0.7), photons=3e3, seed=3,
        ))
        assert scan.fingerprint() == {noisy.fingerprint()!r}
        backend, model = get_backend({quick.backend.name!r}), ModelConfig.parse({MODEL.to_json()!r})
        training = TrainingConfig.parse({TRAINING.to_json()!r})
        backend.fit(
            backend.build(model, Calibration.of([scan], model), seed=training.seed), [scan],
            training, ExecutionConfig.parse({EXECUTION.to_json()!r}),
            checkpoint_dir=Path({str(tmp_path)!r}), on_event=on_event,
        )
    """
    # One thread, as here: more of them would round differently.
    finished = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(script)],
        env=os.environ | {'OMP_NUM_THREADS': '1'},
        check=False,
    )
    assert finished.returncode == -signal.SIGKILL
    resumed = quick.fit(noisy, options={'checkpoint_dir': tmp_path, 'resume': True})
    assert_same_run(resumed, whole.result)


def test_resuming_a_finished_run_gives_its_result(quick, noisy, whole):
    events = []
    options = {'checkpoint_dir': whole.checkpoints, 'resume': True, 'on_event': events.append}
    assert_same_run(quick.fit(noisy, options=options), whole.result)
    assert not [event for event in events if event.phase == 'train']


@pytest.mark.slow_in('tensorflow')
def test_a_fresh_run_forgets_the_checkpoints_of_an_older_one(quick, noisy, whole, tmp_path):
    quick.fit(noisy, seed=9, options={'checkpoint_dir': tmp_path})
    fresh = quick.fit(noisy, options={'checkpoint_dir': tmp_path})
    assert_same_run(fresh, whole.result)
    assert_same_run(quick.fit(noisy, options={'checkpoint_dir': tmp_path, 'resume': True}), fresh)


def test_a_fresh_run_that_is_cut_early_leaves_nothing_of_an_older_one(quick, noisy, tmp_path):
    quick.fit(noisy, epochs=1, options={'checkpoint_dir': tmp_path})
    with pytest.raises(PowerCutError):
        quick.fit(noisy, epochs=1, options={'checkpoint_dir': tmp_path, 'on_event': cut_at(1, 1)})
    with pytest.raises(TrainingError, match=r'last\.ckpt\S* does not exist'):
        quick.fit(noisy, epochs=1, options={'checkpoint_dir': tmp_path, 'resume': True})


def other_probe(scan):
    return replace(scan, probe=scan.probe * np.exp(0.01j * np.arange(32)).astype(np.complex64))


@pytest.mark.parametrize(
    'change',
    [
        lambda scan: (replace(scan, patterns=scan.patterns[::-1].copy()), {}),
        lambda scan: (replace(scan, positions_px=scan.positions_px + 0.1), {}),
        lambda scan: (other_probe(scan), {}),
        lambda scan: (scan, {'learning_rate': 4e-3}),
        lambda scan: (scan, {'epochs': 4}),
        lambda scan: (scan, {'seed': 2}),
        lambda scan: (scan, {'sweeps_before': 5}),
        lambda scan: ([scan, scan], {}),
    ],
    ids=['patterns', 'positions', 'probe', 'rate', 'epochs', 'seed', 'model', 'scans'],
)
def test_resuming_another_run_is_refused(quick, noisy, whole, change):
    other, changes = change(noisy)
    with pytest.raises(TrainingError, match='belongs to another run'):
        quick.fit(other, options={'checkpoint_dir': whole.checkpoints, 'resume': True}, **changes)


def test_resuming_without_a_checkpoint_is_refused(quick, noisy, tmp_path):
    with pytest.raises(TrainingError, match=r'last\.ckpt\S* does not exist'):
        quick.fit(noisy, options={'checkpoint_dir': tmp_path / 'empty', 'resume': True})
    quick.fit(noisy, epochs=1, enable_checkpointing=False, options={'checkpoint_dir': tmp_path})
    with pytest.raises(TrainingError, match=r'last\.ckpt\S* does not exist'):
        quick.fit(noisy, epochs=1, options={'checkpoint_dir': tmp_path, 'resume': True})


def test_a_broken_checkpoint_is_refused(inside, quick, noisy, whole, tmp_path):
    content = (whole.checkpoints / inside.LAST).read_bytes()
    for broken in (content[: len(content) // 2], b'', b'no checkpoint at all'):
        (tmp_path / inside.LAST).write_bytes(broken)
        with pytest.raises(TrainingError, match=r'last\.ckpt\S* cannot be read'):
            quick.fit(noisy, options={'checkpoint_dir': tmp_path, 'resume': True})


def test_checkpoints_lie_where_they_were_asked_for(
    inside, quick, noisy, whole, tmp_path, monkeypatch
):
    assert sorted(p.name for p in whole.checkpoints.iterdir()) == [inside.BEST, inside.LAST]
    monkeypatch.chdir(tmp_path)
    quick.fit(noisy, epochs=1)
    assert list(tmp_path.iterdir()) == []


# Stopping


def weights_per_epoch(quick, scan, **changes):
    """Train and copy the weights after the last step of every epoch."""
    model, copies = quick.build([scan]), {}

    def on_event(event):
        if event.phase == 'train':
            copies[event.epoch] = model.export_weights()

    return quick.fit(scan, built=model, options={'on_event': on_event}, **changes), copies


RECKLESS = {'learning_rate': 0.5, 'scheduler': 'constant', 'gradient_clip_val': None, 'epochs': 6}


def test_the_weights_of_the_best_epoch_are_kept(quick, noisy):
    result, copies = weights_per_epoch(quick, noisy, **RECKLESS)
    losses = [record.validation_loss for record in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.best_epoch < len(losses)
    assert_same_arrays(result.model.export_weights(), copies[result.best_epoch])


def test_patience_ends_training(quick, noisy):
    result, copies = weights_per_epoch(quick, noisy, early_stop_patience=2, **RECKLESS)
    assert result.stopped == 'patience'
    assert len(result.history) == result.best_epoch + 2 < 6
    assert_same_arrays(result.model.export_weights(), copies[result.best_epoch])


def stop_after(n_steps):
    """Return options that ask to stop once `n_steps` optimiser steps are done."""
    events = []

    def should_stop():
        return sum(event.phase == 'train' for event in events) >= n_steps

    return events, {'on_event': events.append, 'should_stop': should_stop}


def test_a_stop_keeps_what_was_learnt(quick, noisy, whole):
    events, options = stop_after(STEPS + 2)
    result = quick.fit(noisy, options=options)
    assert result.stopped == 'request'
    # The second epoch was cut after two steps, and validated as it stood.
    assert len(events) == len([e for e in events if e.phase == 'prepare']) + STEPS + 2
    assert [record.epoch for record in result.history] == [1, 2]
    assert result.history[0] == whole.result.history[0]
    assert result.best_epoch in (1, 2)
    fresh = quick.build().export_weights()
    weights = result.model.export_weights()
    assert any((weights[name] != fresh[name]).any() for name in fresh)


def test_a_stop_in_the_first_epoch_keeps_its_steps(quick, noisy):
    _, options = stop_after(2)
    result = quick.fit(noisy, options=options)
    assert (result.stopped, result.best_epoch) == ('request', 1)
    assert len(result.history) == 1


def test_a_stopped_run_can_be_resumed(quick, noisy, whole, tmp_path):
    """The epoch that was stopped half-way is repeated: the run is the one that nobody stopped."""
    _, options = stop_after(STEPS + 2)
    stopped = quick.fit(noisy, options=options | {'checkpoint_dir': tmp_path})
    assert stopped.history[1] != whole.result.history[1]
    resumed = quick.fit(noisy, options={'checkpoint_dir': tmp_path, 'resume': True})
    assert_same_run(resumed, whole.result)


@pytest.mark.slow_in('tensorflow')
def test_a_stopped_epoch_does_not_outlive_its_repetition(
    inside, quick, noisy, tmp_path, monkeypatch
):
    """It was the best one when it was stopped; repeated to its end it is worse than the first."""
    validated = []
    inside.change_losses(
        monkeypatch, lambda loss, *, training: loss if training else validated.pop(0)
    )

    def train(losses, folder, **options):
        validated[:] = losses
        return quick.fit(noisy, options={'checkpoint_dir': tmp_path / folder} | options)

    never_stopped = train([1.0, 2.0, 3.0], 'one')
    _, options = stop_after(8)
    stopped = train([1.0, 0.5], 'other', **options)
    resumed = train([2.0, 3.0], 'other', resume=True)
    assert (stopped.best_epoch, resumed.best_epoch) == (2, 1)
    assert_same_run(resumed, never_stopped)
    for name, array in stopped.model.export_weights().items():
        assert (array != resumed.model.export_weights()[name]).any()


def test_a_stop_before_the_first_step_leaves_the_model_as_it_was(quick, noisy):
    calls = []

    def should_stop():
        calls.append(1)
        return len(calls) > 3

    result = quick.fit(noisy, options={'should_stop': should_stop})
    assert (result.stopped, list(result.history), result.best_epoch) == ('request', [], None)
    fresh = quick.build().export_weights()
    assert_same_arrays(result.model.export_weights(), fresh)


def test_a_loss_that_is_not_finite_ends_training(inside, quick, noisy, monkeypatch):
    calls = []

    def change(loss, *, training):
        calls.append(training)
        return math.nan if sum(calls) == 3 else loss

    inside.change_losses(monkeypatch, change)
    with pytest.raises(TrainingError, match=r'the loss became nan in epoch 1, step 3; expected a'):
        quick.fit(noisy)


def test_a_validation_loss_that_is_not_finite_ends_training(inside, quick, noisy, monkeypatch):
    validations = []

    def change(loss, *, training):
        validations.append(training)
        return math.inf if validations.count(False) == 2 else loss

    inside.change_losses(monkeypatch, change)
    with pytest.raises(TrainingError, match='the validation loss became inf in epoch 2; expected'):
        quick.fit(noisy)
