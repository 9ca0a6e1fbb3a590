"""Events, devices, and the process in which training runs."""

import logging
import math
import os
import random
import signal
import warnings

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.backends.torch import backend as backend_module
from ptychodus_torch_plugin.backends.torch.backend import TorchBackend
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError

from .quick import MODEL, PowerCutError, cut_at, fit, same_weights

# What is reported


def test_events_tell_the_whole_story(noisy, whole):
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


def test_whatever_a_listener_raises_arrives(noisy):
    def on_event(event):
        if event.phase == 'prepare':
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fit(noisy, options={'on_event': on_event})


# The machine


def test_auto_trains_without_a_word(noisy, tmp_path, monkeypatch, capfd):
    """No GPU, and nobody complains: neither a warning nor a line on stdout or stderr."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        fit(
            noisy,
            epochs=1,
            execution=ExecutionConfig(accelerator='auto'),
            options={'checkpoint_dir': tmp_path},
        )
        fit(
            noisy,
            epochs=1,
            execution=ExecutionConfig(accelerator='auto'),
            options={'checkpoint_dir': tmp_path, 'resume': True},
        )
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('accelerator', ['gpu', 'cuda', 'mps', 'tpu'])
def test_a_device_that_is_not_there(noisy, monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
    with pytest.raises(ConfigError, match=f"accelerator = '{accelerator}', but PyTorch"):
        fit(noisy, execution=ExecutionConfig(accelerator=accelerator))


def test_the_wanted_number_of_threads_is_used(noisy):
    before, seen = torch.get_num_threads(), set()
    wanted = 1 if before != 1 else 2
    fit(
        noisy,
        epochs=1,
        num_threads=wanted,
        options={'on_event': lambda event: seen.add(torch.get_num_threads())},
    )
    assert seen == {wanted}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize('wanted', [True, False])
def test_determinism_is_what_was_asked_for(noisy, wanted):
    seen = set()
    fit(
        noisy,
        epochs=1,
        deterministic=wanted,
        options={
            'on_event': lambda event: seen.add(
                (event.phase, torch.are_deterministic_algorithms_enabled())
            )
        },
    )
    assert ('train', wanted) in seen
    assert ('train', not wanted) not in seen


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
        'cublas': os.environ.get('CUBLAS_WORKSPACE_CONFIG'),
        'signals': [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.mark.parametrize('deterministic', [True, False])
def test_training_leaves_the_process_as_it_was(noisy, deterministic, monkeypatch):
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    execution = ExecutionConfig(accelerator='cpu', deterministic=deterministic, num_threads=1)
    torch.use_deterministic_algorithms(not deterministic, warn_only=True)
    try:
        before = global_state()
        fit(noisy, epochs=1, execution=execution)
        after = global_state()
        with pytest.raises(PowerCutError):
            fit(noisy, execution=execution, options={'on_event': cut_at(1, 1, 6)})
        after_error = global_state()
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in before.items():
        assert after[name] == value, name
        assert after_error[name] == value, name


def test_training_does_not_depend_on_the_state_of_the_process(noisy, whole):
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002 - somebody else's program may do so
    random.seed(77)
    again = fit(noisy)
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


def test_steps_prepared_by_other_processes_are_the_same(noisy, whole):
    again = fit(noisy, num_workers=1, persistent_workers=True, prefetch_factor=3)
    assert again.history == whole.result.history
    assert same_weights(again, whole.result)
