"""Training that a user can trust: on scans so small that an epoch takes a fraction of a second."""

import logging
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.backends.protocol import TrainingResult
from ptychodus_torch_plugin.backends.torch import backend as backend_module
from ptychodus_torch_plugin.backends.torch import training as training_module
from ptychodus_torch_plugin.backends.torch.backend import TorchBackend
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    ModelConfig,
    SweepConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.errors import ConfigError, TrainingError
from ptychodus_torch_plugin.training_plan import TrainingPlan, held_out_indices

MODEL = ModelConfig(
    N=32,
    channels=(4, 8),
    sweeps_before=4,
    sweeps_after=2,
    sweeps=SweepConfig(
        damping_start=0.2,
        damping_end=1.0,
        momentum=0.8,
        settling_sweeps=1,
        batch_size=9,
        refine_probe=True,
    ),
)
TRAINING = TrainingConfig(
    objective='thinned',
    epochs=3,
    learning_rate=5e-3,
    scheduler='one-cycle',
    patterns_per_step=12,
    window_px=60,
    thinnings=1,
    thinning_fraction=0.5,
    held_out_fraction=0.2,
    gradient_clip=1.0,
    patience=100,
    seed=1,
)
EXECUTION = ExecutionConfig(accelerator='cpu', deterministic=True)


def fit(scans, *, model=MODEL, training=TRAINING, execution=EXECUTION, options=None, **changes):
    """Train a fresh model; `changes` are those of the training settings."""
    training = TrainingConfig(**(training.model_dump() | changes))
    backend = TorchBackend()
    built = backend.build(model, seed=training.seed)
    scans = scans if isinstance(scans, list) else [scans]
    return backend.fit(built, scans, training, execution, **(options or {}))


def same_weights(one: TrainingResult, other: TrainingResult) -> bool:
    first, second = (result.model.export_weights() for result in (one, other))
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope='module')
def scan(simulated):
    """49 noisy patterns."""
    return simulated(photons=3e3)


@pytest.fixture(scope='module')
def held(scan):
    return held_out_indices(scan, TRAINING.held_out_fraction, TRAINING.seed)


@dataclass
class Run:
    """A whole training run and what it reported."""

    result: TrainingResult
    events: list[Any]
    checkpoints: Any


@pytest.fixture(scope='module')
def whole(scan, tmp_path_factory):
    """Three epochs without interruption."""
    folder = tmp_path_factory.mktemp('whole') / 'made by training'
    events = []
    options = {'checkpoint_dir': folder, 'on_event': events.append}
    return Run(fit(scan, options=options), events, folder)


def patterns_per_epoch(events):
    return max(e.total for e in events if e.phase == 'train') // TRAINING.epochs


# Learning


def test_the_network_learns_what_noise_is(simulated):
    """Held-out patterns are predicted better than by sweeps alone, and training's loss falls."""
    scan = simulated(photons=3e2)
    changes = {'epochs': 8, 'learning_rate': 1e-2}
    result = fit(scan, **changes)
    sweeps_alone = fit(scan, **(changes | {'epochs': 1, 'learning_rate': 1e-12}))
    losses = [record.loss for record in result.history]
    assert [record.epoch for record in result.history] == list(range(1, 9))
    assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])
    best = min(record.validation_loss for record in result.history)
    assert best < 0.97 * sweeps_alone.history[0].validation_loss


def oracle_loss_of_held_out(scan, held, config):
    """Return the loss of held-out patterns after sweeps over all others, by the oracle."""
    probe = plain.first_probe(scan, config.sweeps).astype(complex)
    state = plain.SweepState(np.ones(scan.frame.shape, dtype=complex), probe)
    pool = np.setdiff1d(np.arange(scan.n_patterns), held)
    sweeps = plain.schedule(config.sweeps, config.sweeps_before)
    plain.sweep_oracle(scan, state, config.sweeps, sweeps, pool=pool, seed=TRAINING.seed)
    where = scan.frame.corners(scan.positions_px[held], scan.n_px)
    predicted = oracle.predict_counts(state.object_, state.probe, *where)
    mean_count = scan.mean_counts() / scan.valid_pixels.sum()
    return oracle.poisson_loss(predicted, scan.patterns[held], scan.valid_pixels, mean_count)


@pytest.mark.parametrize('objective', ['thinned', 'poisson'])
def test_the_validation_loss_is_the_likelihood_of_unseen_patterns(simulated, objective):
    """An untrained network changes nothing: what is left is the oracle's own figure."""
    scan = simulated(photons=1e4, n_positions=144)
    changes = {'objective': objective, 'held_out_fraction': 0.5, 'patterns_per_step': 100}
    result = fit(scan, epochs=1, learning_rate=1e-12, **changes)
    held = held_out_indices(scan, 0.5, TRAINING.seed)
    assert len(held) == 72
    expected = oracle_loss_of_held_out(scan, held, MODEL)
    assert result.history[0].validation_loss == pytest.approx(expected, rel=5e-3)


def test_the_thinned_loss_is_that_of_the_other_half(simulated, monkeypatch):
    """Scored counts are the complement of those that sweeps saw, on the scale of their share."""
    scan = simulated(photons=1e4)
    scored = spy(monkeypatch)
    fit(scan, epochs=1, thinning_fraction=0.3, learning_rate=1e-12)
    plan = TrainingPlan([scan], TRAINING.model_copy(update={'thinning_fraction': 0.3}))
    training = [call for call in scored if call.training]
    assert training
    for call in training:
        seen = plan.seen_counts(plan.views[0], call.patterns)
        np.testing.assert_array_equal(call.counts + seen, scan.patterns[call.patterns])
        assert call.view.scale == pytest.approx(7 / 3)
        # The probe explains what was seen: 30 % of the photons.
        energy = float(call.view.probe.abs().square().sum())
        assert energy == pytest.approx(0.3 * scan.mean_counts(), rel=1e-3)
        assert call.view.mean_count == pytest.approx(0.7 * scan.mean_counts() / 32**2)


def test_the_recorded_loss_is_the_mean_over_patterns(scan, monkeypatch):
    scored = spy(monkeypatch)
    result = fit(scan, epochs=1, window_px=40)
    sizes = [len(call.patterns) for call in scored if call.training]
    losses = [call.loss for call in scored if call.training]
    assert len(set(sizes)) > 1
    expected = np.average(losses, weights=sizes)
    assert result.history[0].loss == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(np.mean(losses), rel=1e-4)


@dataclass
class Scored:
    view: Any
    patterns: np.ndarray
    counts: np.ndarray
    loss: float
    training: bool


def spy(monkeypatch):
    """Write down every call of the likelihood."""
    calls = []
    real = training_module._score

    def score(view, object_, first, chosen, counts):
        loss = real(view, object_, first, chosen, counts)
        calls.append(
            Scored(view, chosen, counts.numpy(), float(loss.detach()), torch.is_grad_enabled())
        )
        return loss

    monkeypatch.setattr(training_module, '_score', score)
    return calls


# Held-out patterns


def test_held_out_patterns_are_scored_for_validation_alone(scan, held, monkeypatch):
    scored = spy(monkeypatch)
    fit(scan, epochs=2)
    trained = np.concatenate([call.patterns for call in scored if call.training])
    validated = np.concatenate([call.patterns for call in scored if not call.training])
    assert len(held) == 10
    assert not set(trained.tolist()) & set(held.tolist())
    assert Counter(validated.tolist()) == dict.fromkeys(held.tolist(), 2)


def test_what_held_out_patterns_show_changes_no_weight(scan, held, whole):
    """Exchange them among themselves: not even the mean of all patterns is another one."""
    patterns = scan.patterns.copy()
    patterns[held] = patterns[np.roll(held, 1)]
    other = fit(replace(scan, patterns=patterns))
    for record, expected in zip(other.history, whole.result.history, strict=True):
        assert record.loss == expected.loss
        assert record.validation_loss != expected.validation_loss
    for name, moment in whole.result.optimizer.items():
        np.testing.assert_array_equal(other.optimizer[name], moment)


def test_nothing_needs_to_be_held_out(scan, monkeypatch):
    scored = spy(monkeypatch)
    result = fit(scan, epochs=2, held_out_fraction=0.0)
    assert [record.validation_loss for record in result.history] == [None, None]
    losses = [record.loss for record in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert all(call.training for call in scored)


# Determinism


def test_the_same_seed_gives_the_same_bits(scan, whole):
    again = fit(scan)
    assert again.history == whole.result.history
    assert same_weights(again, whole.result)


def test_another_seed_gives_another_model(scan, whole):
    other = fit(scan, seed=2)
    assert other.history[0].loss != whole.result.history[0].loss
    assert not same_weights(other, whole.result)


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    one, other, third = (TorchBackend().build(MODEL, seed=seed) for seed in (1, 1, 2))
    names = {name for name in one.export_weights() if 'head' not in name}
    for name in names:
        np.testing.assert_array_equal(one.export_weights()[name], other.export_weights()[name])
        assert (one.export_weights()[name] != third.export_weights()[name]).any()


# Interruption


class PowerCutError(Exception):
    pass


def cut_at(epoch, step, per_epoch):
    def on_event(event):
        if event.phase == 'train' and event.done == (epoch - 1) * per_epoch + step:
            raise PowerCutError

    return on_event


@pytest.mark.parametrize(('epoch', 'step'), [(2, 1), (2, 3), (3, 6)])
def test_resuming_gives_the_run_that_was_never_cut(scan, whole, tmp_path, epoch, step):
    cut = cut_at(epoch, step, patterns_per_epoch(whole.events))
    with pytest.raises(PowerCutError):
        fit(scan, options={'checkpoint_dir': tmp_path, 'on_event': cut})
    events = []
    options = {'checkpoint_dir': tmp_path, 'resume': True, 'on_event': events.append}
    resumed = fit(scan, options=options)
    assert_same_run(resumed, whole.result)
    assert min(e.epoch for e in events if e.phase == 'train') == epoch


def assert_same_run(resumed, expected):
    assert resumed.history == expected.history
    assert resumed.best_epoch == expected.best_epoch
    assert resumed.stopped == expected.stopped == ''
    assert same_weights(resumed, expected)
    assert resumed.optimizer.keys() == expected.optimizer.keys()
    for name, moment in expected.optimizer.items():
        np.testing.assert_array_equal(resumed.optimizer[name], moment)


def test_a_killed_process_can_be_resumed(scan, whole, tmp_path):
    """SIGKILL in the second epoch: nobody is asked, nothing is tidied up."""
    per_epoch = patterns_per_epoch(whole.events)
    script = f"""
        import os, signal
        from ptychodus_torch_plugin.backends.torch.backend import TorchBackend
        from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
        from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
        from pathlib import Path

        def on_event(event):
            if event.phase == 'train' and event.done == {per_epoch + 2}:
                os.kill(os.getpid(), signal.SIGKILL)

        scan = simulate_scan(SimulationConfig(
            N=32, object_kind='dead-leaves', n_positions=49, step_px=4.5,
            offset_px=(1.3, -0.7), photons=3e3, seed=3,
        ))
        assert scan.fingerprint() == {scan.fingerprint()!r}
        backend = TorchBackend()
        training = TrainingConfig.parse({TRAINING.to_json()!r})
        backend.fit(
            backend.build(ModelConfig.parse({MODEL.to_json()!r}), seed=training.seed), [scan],
            training, ExecutionConfig.parse({EXECUTION.to_json()!r}),
            checkpoint_dir=Path({str(tmp_path)!r}), on_event=on_event,
        )
    """
    finished = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], check=False)
    assert finished.returncode == -signal.SIGKILL
    resumed = fit(scan, options={'checkpoint_dir': tmp_path, 'resume': True})
    assert_same_run(resumed, whole.result)


def test_resuming_a_finished_run_gives_its_result(scan, whole):
    events = []
    options = {'checkpoint_dir': whole.checkpoints, 'resume': True, 'on_event': events.append}
    assert_same_run(fit(scan, options=options), whole.result)
    assert not [event for event in events if event.phase == 'train']


def test_a_fresh_run_forgets_the_checkpoints_of_an_older_one(scan, whole, tmp_path):
    fit(scan, seed=9, options={'checkpoint_dir': tmp_path})
    fresh = fit(scan, options={'checkpoint_dir': tmp_path})
    assert_same_run(fresh, whole.result)
    assert_same_run(fit(scan, options={'checkpoint_dir': tmp_path, 'resume': True}), fresh)


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
        lambda scan: (scan, {'model': MODEL.model_copy(update={'sweeps_before': 5})}),
        lambda scan: ([scan, scan], {}),
    ],
    ids=['patterns', 'positions', 'probe', 'rate', 'epochs', 'seed', 'model', 'scans'],
)
def test_resuming_another_run_is_refused(scan, whole, change):
    other, changes = change(scan)
    with pytest.raises(TrainingError, match='the checkpoint belongs to another run'):
        fit(other, options={'checkpoint_dir': whole.checkpoints, 'resume': True}, **changes)


def test_resuming_without_a_checkpoint_is_refused(scan, tmp_path):
    with pytest.raises(TrainingError, match=r'last\.ckpt does not exist'):
        fit(scan, options={'checkpoint_dir': tmp_path / 'empty', 'resume': True})
    execution = EXECUTION.model_copy(update={'checkpoints': False})
    fit(scan, epochs=1, execution=execution, options={'checkpoint_dir': tmp_path})
    with pytest.raises(TrainingError, match=r'last\.ckpt does not exist'):
        fit(scan, epochs=1, options={'checkpoint_dir': tmp_path, 'resume': True})


def test_a_broken_checkpoint_is_refused(scan, whole, tmp_path):
    content = (whole.checkpoints / 'last.ckpt').read_bytes()
    for broken in (content[: len(content) // 2], b'', b'no checkpoint at all'):
        (tmp_path / 'last.ckpt').write_bytes(broken)
        with pytest.raises(TrainingError, match=r'last\.ckpt cannot be read'):
            fit(scan, options={'checkpoint_dir': tmp_path, 'resume': True})


def test_checkpoints_lie_where_they_were_asked_for(scan, whole, tmp_path, monkeypatch):
    assert sorted(p.name for p in whole.checkpoints.iterdir()) == ['best.ckpt', 'last.ckpt']
    monkeypatch.chdir(tmp_path)
    fit(scan, epochs=1)
    assert list(tmp_path.iterdir()) == []


# Stopping


def weights_per_epoch(scan, **changes):
    """Train and copy the weights after the last step of every epoch."""
    training = TrainingConfig(**(TRAINING.model_dump() | changes))
    backend = TorchBackend()
    model = backend.build(MODEL, seed=training.seed)
    copies = {}

    def on_event(event):
        if event.phase == 'train':
            copies[event.epoch] = model.export_weights()

    return backend.fit(model, [scan], training, EXECUTION, on_event=on_event), copies


RECKLESS = {'learning_rate': 0.5, 'scheduler': 'constant', 'gradient_clip': None, 'epochs': 9}


def test_the_weights_of_the_best_epoch_are_kept(scan):
    result, copies = weights_per_epoch(scan, **RECKLESS)
    losses = [record.validation_loss for record in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.best_epoch < len(losses)
    for name, array in result.model.export_weights().items():
        np.testing.assert_array_equal(array, copies[result.best_epoch][name])


def test_patience_ends_training(scan):
    result, copies = weights_per_epoch(scan, patience=2, **RECKLESS)
    assert result.stopped == 'patience'
    assert len(result.history) == result.best_epoch + 2 < 9
    for name, array in result.model.export_weights().items():
        np.testing.assert_array_equal(array, copies[result.best_epoch][name])


def stop_after(n_steps):
    """Return options that ask to stop once `n_steps` optimiser steps are done."""
    events = []

    def should_stop():
        return sum(event.phase == 'train' for event in events) >= n_steps

    return events, {'on_event': events.append, 'should_stop': should_stop}


def test_a_stop_keeps_what_was_learnt(scan, whole):
    per_epoch = patterns_per_epoch(whole.events)
    events, options = stop_after(per_epoch + 2)
    result = fit(scan, options=options)
    assert result.stopped == 'request'
    # The second epoch was cut after two steps, and validated as it stood.
    assert len(events) == len([e for e in events if e.phase == 'prepare']) + per_epoch + 2
    assert [record.epoch for record in result.history] == [1, 2]
    assert result.history[0] == whole.result.history[0]
    assert result.best_epoch in (1, 2)
    fresh = TorchBackend().build(MODEL, seed=TRAINING.seed).export_weights()
    weights = result.model.export_weights()
    assert any((weights[name] != fresh[name]).any() for name in fresh)


def test_a_stop_in_the_first_epoch_keeps_its_steps(scan):
    _, options = stop_after(2)
    result = fit(scan, options=options)
    assert (result.stopped, result.best_epoch) == ('request', 1)
    assert len(result.history) == 1


def test_a_stopped_run_can_be_resumed(scan, whole, tmp_path):
    _, options = stop_after(patterns_per_epoch(whole.events) + 2)
    stopped = fit(scan, options=options | {'checkpoint_dir': tmp_path})
    resumed = fit(scan, options={'checkpoint_dir': tmp_path, 'resume': True})
    assert [record.epoch for record in resumed.history] == [1, 2, 3]
    assert resumed.history[0] == stopped.history[0]
    assert resumed.stopped == ''


def test_a_stop_before_the_first_step_leaves_the_model_as_it_was(scan):
    calls = []

    def should_stop():
        calls.append(1)
        return len(calls) > 3

    result = fit(scan, options={'should_stop': should_stop})
    assert (result.stopped, list(result.history), result.best_epoch) == ('request', [], None)
    fresh = TorchBackend().build(MODEL, seed=TRAINING.seed).export_weights()
    for name, array in result.model.export_weights().items():
        np.testing.assert_array_equal(array, fresh[name])


def test_a_loss_that_is_not_finite_ends_training(scan, monkeypatch):
    real, calls = training_module._score, []

    def score(*args):
        calls.append(torch.is_grad_enabled())
        loss = real(*args)
        return loss * math.nan if sum(calls) == 3 else loss

    monkeypatch.setattr(training_module, '_score', score)
    with pytest.raises(TrainingError, match=r'the loss became nan in epoch 1, step 3; expected a'):
        fit(scan)


# What is reported


def test_events_tell_the_whole_story(scan, whole):
    phases = [event.phase for event in whole.events]
    n_prepare = phases.count('prepare')
    assert phases == ['prepare'] * n_prepare + ['train'] * (len(phases) - n_prepare)
    prepare, train = whole.events[:n_prepare], whole.events[n_prepare:]
    # Two halves of the counts, and all of them for validation.
    assert n_prepare == 3 * MODEL.sweeps_before
    for events in (prepare, train):
        assert [event.done for event in events] == list(range(1, len(events) + 1))
        assert {event.total for event in events} == {len(events)}
        assert all(event.patterns_per_s > 0 for event in events)
        assert all(math.isfinite(event.patterns_per_s) for event in events)
        assert all(event.remaining_s >= 0 for event in events)
        assert events[-1].remaining_s == 0
    assert {(event.epoch, event.epochs) for event in prepare} == {(0, 0)}
    assert {event.epochs for event in train} == {3}
    # 39 patterns in steps of 12, for each of two views.
    assert [event.epoch for event in train] == [1] * 6 + [2] * 6 + [3] * 6
    assert all(math.isfinite(event.loss) for event in train)
    for event in train:
        known = event.epoch - 2
        if known < 0:
            assert math.isnan(event.validation_loss)
        else:
            assert event.validation_loss == whole.result.history[known].validation_loss


def test_whatever_a_listener_raises_arrives(scan):
    def on_event(event):
        if event.phase == 'prepare':
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fit(scan, options={'on_event': on_event})


# Objectives, architectures, scans


@pytest.mark.parametrize(
    'changes',
    [
        {'objective': 'poisson'},
        {'thinnings': 2, 'thinning_fraction': 0.7},
        {'window_px': 32, 'patterns_per_step': 5},
        {'window_px': None, 'gradient_clip': None, 'scheduler': 'constant'},
    ],
    ids=['poisson', 'unequal parts', 'smallest window', 'whole canvas'],
)
def test_other_settings_train_as_well(scan, changes):
    result = fit(scan, epochs=2, **changes)
    assert len(result.history) == 2
    assert all(math.isfinite(record.loss) for record in result.history)
    fresh = TorchBackend().build(MODEL, seed=TRAINING.seed).export_weights()
    assert all(
        (array != fresh[name]).any() for name, array in result.model.export_weights().items()
    )


def test_reduced_precision_of_the_network(scan, whole):
    result = fit(scan, execution=EXECUTION.model_copy(update={'precision': 'bf16-mixed'}))
    for record, full in zip(result.history, whole.result.history, strict=True):
        assert record.loss == pytest.approx(full.loss, rel=0.02)
        assert record.loss != full.loss
    assert {a.dtype for a in result.model.export_weights().values()} == {np.dtype(np.float32)}


def test_thinning_needs_whole_counts(scan):
    amplitudes = replace(scan, patterns=np.sqrt(scan.patterns), name='roots')
    with pytest.raises(TrainingError, match='roots: patterns are not whole counts'):
        fit(amplitudes)
    result = fit(amplitudes, objective='poisson', epochs=1)
    assert math.isfinite(result.history[0].loss)


def test_sweeps_alone_have_nothing_to_train(scan):
    events = []
    model = ModelConfig(N=32, architecture='none')
    result = fit(scan, model=model, options={'on_event': events.append})
    assert (list(result.history), result.best_epoch, result.optimizer) == ([], None, None)
    assert result.model.export_weights() == {}
    assert events == []


def test_several_scans_of_unequal_canvases(scan, simulated, lopsided, monkeypatch):
    scans = [scan, lopsided(32, 3, whole=True), simulated(n_positions=16, seed=8)]
    assert len({s.frame.shape for s in scans}) == 3
    scored = spy(monkeypatch)
    result = fit(scans, epochs=2, held_out_fraction=0.2)
    assert len(result.history) == 2
    shapes = {tuple(call.view.object_.shape) for call in scored}
    assert shapes == {s.frame.shape for s in scans}
    validated = [len(call.patterns) for call in scored if not call.training]
    assert validated == [10, 6, 3] * 2
    # The validation loss is the mean over all held-out patterns.
    losses = [call.loss for call in scored if not call.training][:3]
    expected = np.average(losses, weights=[10, 6, 3])
    assert result.history[0].validation_loss == pytest.approx(expected, rel=1e-5)


def test_two_unequal_scans_are_two_scans(scan, simulated):
    other = simulated(photons=3e3, seed=8)
    one, both = fit(scan, epochs=1), fit([scan, other], epochs=1)
    assert one.history[0].loss != both.history[0].loss


# The machine


def test_auto_trains_without_a_word(scan, tmp_path, monkeypatch, capfd):
    """No GPU, and nobody complains: neither a warning nor a line on stdout or stderr."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        fit(
            scan,
            epochs=1,
            execution=ExecutionConfig(accelerator='auto'),
            options={'checkpoint_dir': tmp_path},
        )
        fit(
            scan,
            epochs=1,
            execution=ExecutionConfig(accelerator='auto'),
            options={'checkpoint_dir': tmp_path, 'resume': True},
        )
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('accelerator', ['gpu', 'cuda', 'mps'])
def test_a_device_that_is_not_there(scan, monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
    with pytest.raises(ConfigError, match=f"accelerator = '{accelerator}', but PyTorch"):
        fit(scan, execution=ExecutionConfig(accelerator=accelerator))


def test_the_wanted_number_of_threads_is_used(scan):
    before, seen = torch.get_num_threads(), set()
    wanted = 1 if before != 1 else 2
    fit(
        scan,
        epochs=1,
        execution=EXECUTION.model_copy(update={'num_threads': wanted}),
        options={'on_event': lambda event: seen.add(torch.get_num_threads())},
    )
    assert seen == {wanted}
    assert torch.get_num_threads() == before


def global_state():
    loggers = ('', 'lightning', 'lightning.pytorch', 'lightning.fabric', 'torch')
    return {
        'threads': torch.get_num_threads(),
        'deterministic': torch.are_deterministic_algorithms_enabled(),
        'warn only': torch.is_deterministic_algorithms_warn_only_enabled(),
        'cudnn': (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        'matmul': torch.get_float32_matmul_precision(),
        'dtype': torch.get_default_dtype(),
        'gradients': torch.is_grad_enabled(),
        'torch rng': torch.get_rng_state().tolist(),
        'numpy rng': str(np.random.get_state()),  # noqa: NPY002 - the one of other programs
        'python rng': random.getstate(),
        'levels': [logging.getLogger(name).level for name in loggers],
        'handlers': [len(logging.getLogger(name).handlers) for name in loggers],
        'warnings': list(warnings.filters),
        'environment': dict(os.environ),
        'signals': [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.mark.parametrize('deterministic', [True, False])
def test_training_leaves_the_process_as_it_was(scan, deterministic):
    execution = ExecutionConfig(accelerator='cpu', deterministic=deterministic, num_threads=1)
    torch.use_deterministic_algorithms(not deterministic, warn_only=True)
    try:
        before = global_state()
        fit(scan, epochs=1, execution=execution)
        after = global_state()
        with pytest.raises(PowerCutError):
            fit(scan, execution=execution, options={'on_event': cut_at(1, 1, 6)})
        after_error = global_state()
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in before.items():
        assert after[name] == value, name
        assert after_error[name] == value, name


def test_training_does_not_depend_on_the_state_of_the_process(scan, whole):
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002 - somebody else's program may do so
    random.seed(77)
    again = fit(scan)
    assert again.history == whole.result.history


def test_moments_stand_under_the_names_of_their_weights(whole):
    names = whole.result.model.export_weights().keys()
    assert whole.result.optimizer.keys() == {
        f'{slot}/{name}' for slot in ('step', 'exp_avg', 'exp_avg_sq') for name in names
    }
    for name, weights in whole.result.model.export_weights().items():
        assert whole.result.optimizer[f'exp_avg/{name}'].shape == weights.shape
        assert whole.result.optimizer[f'step/{name}'] == 18
    assert {array.dtype for array in whole.result.optimizer.values()} == {np.dtype(np.float32)}


def test_versions_are_those_that_compute():
    assert TorchBackend().versions() == {
        'torch': torch.__version__,
        'lightning': backend_module.lightning.__version__,
    }
