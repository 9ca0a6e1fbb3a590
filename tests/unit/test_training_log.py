"""What every training tells and remembers."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.backends.protocol import EpochRecord, never_stop
from ptychodus_torch_plugin.backends.training_log import (
    TrainingLog,
    best_epoch,
    check_moments,
    fingerprint,
)
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.errors import BundleError, TrainingError
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan


def log_of(losses=(), validation=None, *, events=None):
    log = TrainingLog(9, (events if events is not None else []).append, never_stop)
    for epoch, loss in enumerate(losses):
        log.close(epoch, loss, None if validation is None else validation[epoch])
    return log


def test_steps_become_events_with_a_smoothed_loss():
    events = []
    log = log_of(events=events)
    log.start()
    for step, loss in enumerate((4.0, 2.0, 3.0)):
        log.step(0, step, 3, loss, 7)
    log.close(0, 3.0, 2.5)
    log.step(1, 0, 3, 1.0, 7)
    assert [event.done for event in events] == [1, 2, 3, 4]
    assert {(event.total, event.epochs, event.phase) for event in events} == {(27, 9, 'train')}
    assert [event.epoch for event in events] == [1, 1, 1, 2]
    smoothed = [4.0, 0.9 * 4 + 0.1 * 2, 0.9 * 3.8 + 0.1 * 3, 0.9 * 3.72 + 0.1 * 1]
    assert [event.loss for event in events] == pytest.approx(smoothed)
    assert [math.isnan(event.validation_loss) for event in events] == [True, True, True, False]
    assert events[-1].validation_loss == 2.5
    assert all(event.patterns_per_s > 0 and event.remaining_s > 0 for event in events)


def test_the_wish_to_stop_is_asked_for_after_every_step():
    answers = [False, True]
    log = TrainingLog(2, lambda _: None, lambda: answers.pop(0))
    log.step(0, 0, 2, 1.0, 1)
    assert not log.stop_requested
    log.step(0, 1, 2, 1.0, 1)
    assert log.stop_requested


def test_losses_must_be_finite():
    log = log_of()
    with pytest.raises(TrainingError, match='the loss became nan in epoch 3, step 5'):
        log.step(2, 4, 9, math.nan, 1)
    with pytest.raises(TrainingError, match='the validation loss became inf in epoch 3'):
        log.close(2, 1.0, math.inf)


def test_a_history_survives_a_text():
    log, again = log_of([0.3, 0.1], [0.4, 1 / 3]), log_of()
    again.restore(json.loads(json.dumps(log.rows())))
    assert again.history == log.history == [EpochRecord(1, 0.3, 0.4), EpochRecord(2, 0.1, 1 / 3)]
    assert again.losses('loss') == [0.3, 0.1]
    assert again.losses('val_loss') == [0.4, 1 / 3]


@pytest.mark.parametrize(
    ('losses', 'mode', 'impatient'),
    [
        ([], 'min', False),
        ([3, 2, 2], 'min', False),
        ([3, 2, 2, 2], 'min', True),
        ([3, 2, 5, 1.9], 'min', False),
        ([1, 2, 1.5], 'max', False),
        ([2, 1, 1.5], 'max', True),
    ],
)
def test_patience_ends_so_many_epochs_after_the_best(losses, mode, impatient):
    execution = ExecutionConfig(checkpoint_mode=mode, early_stop_patience=2)
    assert log_of(losses).impatient('loss', execution) == impatient


@pytest.mark.parametrize(
    ('monitor', 'changes', 'best'),
    [
        ('loss', {}, 3),
        ('val_loss', {}, 2),
        ('val_loss', {'checkpoint_mode': 'max'}, 1),
        ('val_loss', {'checkpoint_save_top_k': 0}, 4),
    ],
)
def test_the_best_epoch_is_counted_from_one(monitor, changes, best):
    history = log_of([4, 3, 1, 2], [5, 2, 4, 2]).history
    assert best_epoch(history, monitor, ExecutionConfig(**changes)) == best
    assert best_epoch([], monitor, ExecutionConfig(**changes)) is None


def test_faults_of_moments_are_listed():
    shapes = {'head.bias': (2,), 'probe': (1, 4, 4, 2)}
    moments = {
        f'{slot}/{name}': np.zeros(() if slot == 'step' else shape, np.float32)
        for name, shape in shapes.items()
        for slot in ('step', 'exp_avg', 'exp_avg_sq')
    }
    check_moments(moments, shapes)
    del moments['step/probe']
    moments['exp_avg/head.bias'] = np.zeros(3, np.float32)
    moments['exp_avg/tail.bias'] = np.zeros(3, np.float32)
    with pytest.raises(BundleError, match="optimiser's state has 3 faults"):
        check_moments(moments, shapes)


@pytest.fixture(scope='module')
def run():
    scan = simulate_scan(SimulationConfig(N=32, n_positions=9, step_px=6.5))
    return ModelConfig(N=32), [scan], TrainingConfig(), ExecutionConfig()


@pytest.mark.parametrize(
    ('part', 'change'),
    [
        (0, lambda model: model.model_copy(update={'sweeps_before': 3})),
        (1, lambda scans: [*scans, *scans]),
        (1, lambda scans: [replace(scans[0], probe=1j * scans[0].probe)]),
        (1, lambda scans: [replace(scans[0], positions_px=scans[0].positions_px + 0.1)]),
        (2, lambda training: training.model_copy(update={'seed': 5})),
        (3, lambda execution: execution.model_copy(update={'accum_steps': 2})),
    ],
    ids=['model', 'scans', 'probe', 'positions', 'training', 'execution'],
)
def test_whatever_decides_the_course_is_in_the_fingerprint(run, part, change):
    other = [change(each) if number == part else each for number, each in enumerate(run)]
    assert fingerprint(*other) != fingerprint(*run)


def test_what_does_not_decide_it_is_not(run):
    model, scans, training, execution = run
    other = execution.model_copy(update={'num_threads': 3, 'logger_backend': 'none'})
    assert fingerprint(model, scans, training, other) == fingerprint(*run)


def test_a_run_of_several_processes_is_another_run(run):
    assert fingerprint(*run, 1) == fingerprint(*run)
    assert len({fingerprint(*run, processes) for processes in (1, 2, 3)}) == 3
