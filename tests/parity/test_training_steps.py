"""Twenty optimiser steps from the same weights on the same batches, in both backends."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ptychodus_torch_plugin.backends.training_log import SLOTS
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptychodus_torch_plugin.scan import ScanData
from tests.parity.comparison import TOLERANCES, assert_close
from tests.parity.scenes import lopsided_scan, simulated_scan
from tests.parity.trainings import BACKENDS, Course, first_model, train, watch_inputs

EXECUTION = ExecutionConfig(accelerator='cpu', learning_rate=3e-5, checkpoint_save_top_k=0)
CNN = {'architecture': 'cnn', 'n_filters_scale': 1}
GROUPS = {'batch_size': 4, 'n_groups': 22}
KEPT_PROBE = {'refine_probe': False, 'batch_size': 9}
UNROLLED = {'N': 32, 'channels': (4, 8), 'sweeps_before': 4, 'sweeps': KEPT_PROBE}
FAST = {'learning_rate': 1e-2}
VIEWS = {'patterns_per_step': 7, 'window_px': 60, 'held_out_fraction': 0.2}
OBJECTS = VIEWS | {'objective': 'thinned-objects'}
CASES = {
    'groups of 1': (1, CNN, GROUPS, {}),
    'groups of 4, probe and scale trained': (
        3,
        CNN | {'gridsize': 2},
        GROUPS | {'probe_trainable': True, 'intensity_scale_trainable': True},
        {'scheduler': 'constant', 'gradient_clip_val': None},
    ),
    'groups of 9 with one patch': (
        1,
        CNN | {'gridsize': 3, 'object_big': False, 'amp_activation': 'swish'},
        GROUPS | {'mae_weight': 0.7, 'nll_weight': 0.2},
        {'accum_steps': 2, 'gradient_clip_val': None},
    ),
    'all terms, and a probe cut off': (
        3,
        CNN | {'gridsize': 2, 'probe_mask': True, 'gaussian_smoothing_sigma': 0.7},
        GROUPS
        | {'mae_weight': 0.5, 'tv_weight': 0.2, 'realspace_mae_weight': 0.3}
        | {'probe_trainable': True},
        {},
    ),
    'against a known object': (
        1,
        CNN
        | {'gridsize': 2, 'model_type': 'supervised', 'pad_object': False}
        | {'amp_activation': 'relu', 'probe_big': False},
        GROUPS,
        {'gradient_clip_val': 0.2},
    ),
    '128 px': (
        3,
        CNN | {'N': 128, 'gridsize': 2, 'amp_activation': 'softplus'},
        GROUPS | {'batch_size': 2, 'n_groups': 14},
        {},
    ),
    'thinned': (3, UNROLLED, VIEWS | {'objective': 'thinned', 'thinnings': 2}, FAST),
    'objects of halves': (3, UNROLLED, OBJECTS | {'thinnings': 2, 'epochs': 2}, FAST),
    'objects of unequal parts': (
        3,
        UNROLLED | {'channels': (4,)},
        OBJECTS | {'thinnings': 3, 'thinning_fraction': 0.7, 'least_fraction': 0.3},
        FAST | {'accum_steps': 2, 'gradient_clip_val': None},
    ),
    # Sweeps have fitted the very counts that are scored: what is left of the gradient is small.
    'poisson': (
        3,
        UNROLLED,
        VIEWS | {'objective': 'poisson', 'epochs': 7},
        {'learning_rate': 1e-3},
    ),
}

BETWEEN = {'groups of 1', '128 px'}
"""Cases whose settings all stand in other cases, too, or in a single step of `test_networks`."""


def scan_of(n_px: int, modes: int) -> ScanData:
    """Return a scan with bad pixels; few photons where 'unrolled' is to find noise."""
    settings = {
        32: {'n_positions': 30, 'photons': 300},
        64: {'n_positions': 36, 'step_px': 7.0, 'photons': 2e4, 'seed': 5},
        128: {'n_positions': 16, 'step_px': 14.0, 'photons': 8e4, 'seed': 5},
    }[n_px]
    scan = simulated_scan(N=n_px, probe_modes=modes, **settings)
    bad_pixels = np.random.default_rng(2).random((n_px, n_px)) < 0.03
    return replace(
        scan, bad_pixels=bad_pixels, patterns=np.where(bad_pixels, 9e4, scan.patterns).astype('f4')
    )


def in_both(
    monkeypatch: pytest.MonkeyPatch,
    modes: int,
    model: dict[str, Any],
    training: dict[str, Any],
    execution: dict[str, Any],
) -> tuple[Course, Course]:
    """Train in each backend for as many epochs as give at least twenty batches."""
    config = ModelConfig(**model)
    scans = [scan_of(config.N, modes)]
    start = first_model(scans, config, share=1.0 if config.architecture == 'cnn' else 0.5)
    settings = TrainingConfig(**({'epochs': 4, 'seed': 1} | training))
    how = ExecutionConfig(**(EXECUTION.model_dump() | execution))
    one, other = (train(monkeypatch, name, scans, start, settings, how) for name in BACKENDS)
    return one, other


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in BETWEEN))
        for name, case in CASES.items()
    ],
)
def test_twenty_steps(monkeypatch, case):
    one, other = in_both(monkeypatch, *case)
    assert one.steps == other.steps
    assert len(one.losses) >= 20
    cnn = one.model.config.architecture == 'cnn'
    rtol = TOLERANCES['training steps'] if cnn else TOLERANCES['training steps after sweeps']
    np.testing.assert_allclose(one.losses, other.losses, rtol=rtol)
    for name in ('loss', 'validation_loss'):
        histories = [[getattr(r, name) for r in course.model.history] for course in (one, other)]
        np.testing.assert_allclose(*histories, rtol=rtol)
    assert_same_batches(one, other)
    assert_same_models(one, other)


def assert_same_batches(one: Course, other: Course) -> None:
    """Bit by bit: the same patterns, offsets and labels in the same order."""
    assert len(one.batches) == len(other.batches) >= 20
    for ours, theirs in zip(one.batches, other.batches, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert len(one.views) == len(other.views)
    for ours, theirs in zip(one.views, other.views, strict=True):
        for name, value in theirs.items():
            assert_close(ours[name], value, TOLERANCES['reconstruction'], dtype=value.dtype)


def assert_same_models(one: Course, other: Course) -> None:
    start, *weights = (
        course.trained.export_weights() for course in (one.start, one.model, other.model)
    )
    assert weights[0].keys() == weights[1].keys()
    for name, array in weights[1].items():
        assert_close(weights[0][name], array, TOLERANCES['trained weights'], dtype=np.float32)
    # Something was learnt that could have been learnt wrongly.
    moved = max(np.abs(array - start[name]).max() for name, array in weights[0].items())
    assert moved > 5 * EXECUTION.learning_rate
    probes = [course.model.probe for course in (one, other)]
    assert_close(*probes, TOLERANCES['trained weights'], dtype=np.complex64)
    moments = [course.model.optimizer for course in (one, other)]
    assert moments[0].keys() == moments[1].keys()
    for slot in SLOTS:
        # A factor on all gradients changes these, but no step of Adam.
        ours, theirs = (
            np.concatenate(
                [array.ravel() for name, array in sorted(each.items()) if of(name, slot)]
            )
            for each in moments
        )
        error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        assert error <= (0 if slot == 'step' else TOLERANCES['moments']), slot


def of(name: str, slot: str) -> bool:
    return name.partition('/')[0] == slot


SCHEDULERS: dict[str, dict[str, Any]] = {
    'one-cycle': {},
    'exponential': {'decay': 0.7},
    'warmup-cosine': {'warmup_epochs': 2},
    # A falling loss gets worse where the highest one is wanted: the rate halves at once.
    'plateau': {'plateau_patience': 0, 'checkpoint_mode': 'max'},
}


def scheduled(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Course, Course]:
    return in_both(monkeypatch, 1, CNN, GROUPS | {'n_groups': 9}, settings)


@pytest.fixture(scope='module')
def constant():
    with pytest.MonkeyPatch.context() as monkeypatch:
        return scheduled(monkeypatch, scheduler='constant')


# In each backend `tests/both` compares the rates themselves.
@pytest.mark.slow
@pytest.mark.parametrize(('scheduler', 'settings'), SCHEDULERS.items(), ids=SCHEDULERS)
def test_every_scheduler(monkeypatch, constant, scheduler, settings):
    one, other = scheduled(monkeypatch, scheduler=scheduler, **settings)
    np.testing.assert_allclose(one.losses, other.losses, rtol=TOLERANCES['training steps'])
    # Another course of the learning rate than none is another course of the loss.
    for course, without in zip((one, other), constant, strict=True):
        difference = np.abs(np.array(course.losses) / without.losses - 1)
        assert difference.max() > 10 * TOLERANCES['training steps']


@pytest.fixture
def eager():
    """Nothing is traced, so that arrays can be looked at."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize('input_scaling', ['training', 'scan'])
def test_the_networks_see_the_same(monkeypatch, eager, input_scaling):
    """Two scans of unequal dose, with bad pixels, in groups of unequal patterns."""
    scans = [lopsided_scan(64, 1, whole=False), scan_of(64, 1)]
    config = ModelConfig(**CNN, gridsize=2, input_scaling=input_scaling)
    start = first_model(scans, config)
    settings = TrainingConfig(**GROUPS | {'epochs': 1, 'n_groups': 8})
    inputs = watch_inputs(monkeypatch)
    seen = []
    for name in BACKENDS:
        train(monkeypatch, name, scans, start, settings, EXECUTION)
        seen.append(inputs.copy())
        inputs.clear()
    assert len(seen[0]) == len(seen[1]) >= 4
    for ours, theirs in zip(*seen, strict=True):
        assert_close(ours, theirs, TOLERANCES['prepared'], dtype=np.float32)
    levels = {round(float(np.sqrt(np.mean(each**2))), 1) for each in seen[0]}
    assert len(levels) == (2 if input_scaling == 'training' else 1)
