"""Events, devices, and the process in which training runs."""

import logging
import math
import random
import signal
import warnings

import numpy as np
import pytest

from ptychodus_torch_plugin.config import InferenceConfig

from .quick import (
    EXECUTION,
    MODEL,
    STEPS,
    PowerCutError,
    assert_same_arrays,
    assert_same_run,
    cut_at,
)

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
    assert [event.epoch for event in train] == [1] * STEPS + [2] * STEPS + [3] * STEPS
    assert all(math.isfinite(event.loss) for event in train)
    for event in train:
        known = event.epoch - 2
        if known < 0:
            assert math.isnan(event.validation_loss)
        else:
            assert event.validation_loss == whole.result.history[known].validation_loss


def test_who_watches_may_look_at_the_weights(quick, noisy, whole):
    """They change from step to step, are copies, and taking them changes nothing."""
    taken = []

    def on_event(event):
        assert (event.weights is None) == (event.phase != 'train')
        if event.weights is not None:
            taken.append(event.weights())
            taken[-1]['unet.head.weight'][:] += 1

    result = quick.fit(noisy, options={'on_event': on_event})
    assert_same_arrays(result.model.export_weights(), whole.result.model.export_weights())
    assert taken[0].keys() == result.model.export_weights().keys()
    assert not np.array_equal(taken[0]['unet.head.weight'], taken[-1]['unet.head.weight'])


def test_whatever_a_listener_raises_arrives(quick, noisy):
    def on_event(event):
        if event.phase == 'prepare':
            raise PowerCutError

    with pytest.raises(PowerCutError):
        quick.fit(noisy, options={'on_event': on_event})


# The process


def global_state(inside):
    loggers = ('', 'absl', *inside.PACKAGES, *inside.LOGGERS)
    return inside.global_state() | {
        'numpy rng': str(np.random.get_state()),  # noqa: NPY002 - the one of other programs
        'python rng': random.getstate(),
        'levels': [logging.getLogger(name).level for name in loggers],
        'handlers': [len(logging.getLogger(name).handlers) for name in loggers],
        'warnings': list(warnings.filters),
        'signals': [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    }


def test_training_leaves_the_process_as_it_was(inside, quick, noisy, tmp_path):
    changes = {'deterministic': False, 'precision': 'bf16-mixed'}
    quick.fit(noisy, epochs=1)  # what a framework sets up once is there
    before = global_state(inside)
    options = {'log_dir': tmp_path}
    quick.fit(noisy, epochs=1, options=options, **changes)
    after = global_state(inside)
    with pytest.raises(PowerCutError):
        quick.fit(noisy, options=options | {'on_event': cut_at(1, 1)}, **changes)
    after_error = global_state(inside)
    for name, value in before.items():
        assert after[name] == value, name
        assert after_error[name] == value, name


@pytest.fixture(
    params=[
        pytest.param(True, id='TF32 allowed'),
        pytest.param(False, id='TF32 not allowed', marks=pytest.mark.slow),
    ]
)
def tf32(inside, request):
    """What somebody else's program wants."""
    before = inside.tf32()
    inside.set_tf32(request.param, request.param)
    yield
    left = inside.tf32()
    inside.set_tf32(*before)
    assert left == (request.param, request.param)


@pytest.mark.usefixtures('tf32')
def test_float32_is_not_shortened_on_a_gpu(inside, quick, quick_cnn, noisy, simulated, monkeypatch):
    """Neither in training nor afterwards; the switch is there without a GPU, too."""
    seen = []

    def on_event(event):
        seen.append((event.phase, inside.tf32()))

    model = quick.fit(noisy, epochs=1, options={'on_event': on_event}).model
    found = model.reconstruct(noisy, InferenceConfig(), EXECUTION, on_event=on_event)
    assert set(seen) == {(p, (False, False)) for p in ('prepare', 'train', 'reconstruct')}

    def stop(*_, **__):
        assert inside.tf32() == (False, False)
        raise PowerCutError

    monkeypatch.setattr(inside.reconstruction, '_predict', stop)
    with pytest.raises(PowerCutError):
        model.predict_patterns(noisy, found)
    monkeypatch.setattr(inside.prediction, 'predict_patches', stop)
    group = simulated(N=64, n_positions=20).patterns[None, :4]
    with pytest.raises(PowerCutError):
        quick_cnn.build().predict(group, np.zeros((1, 4, 2), np.float32))


def test_training_does_not_depend_on_the_state_of_the_process(inside, quick, noisy, whole):
    inside.disturb()
    np.random.seed(77)  # noqa: NPY002 - somebody else's program may do so
    random.seed(77)
    assert_same_run(quick.fit(noisy), whole.result)


def test_a_failed_training_leaves_a_model_that_works(quick, noisy):
    """Not in the precision of the training, for example."""
    model = quick.build([noisy])
    with pytest.raises(PowerCutError):
        options = {'on_event': cut_at(1, 1)}
        quick.fit(noisy, built=model, options=options, precision='bf16-mixed')
    fresh = quick.build([noisy])
    fresh.import_weights(model.export_weights())
    arguments = InferenceConfig(held_out_fraction=0.0), EXECUTION
    one, other = (each.reconstruct(noisy, *arguments) for each in (model, fresh))
    np.testing.assert_array_equal(one.object_, other.object_)


def test_moments_stand_under_the_names_of_their_weights(whole):
    weights = whole.result.model.export_weights()
    assert whole.result.optimizer.keys() == {
        f'{slot}/{name}' for slot in ('step', 'exp_avg', 'exp_avg_sq') for name in weights
    }
    for name, array in weights.items():
        assert whole.result.optimizer[f'exp_avg/{name}'].shape == array.shape
        assert whole.result.optimizer[f'step/{name}'] == 3 * STEPS
    assert {array.dtype for array in whole.result.optimizer.values()} == {np.dtype(np.float32)}


def test_steps_prepared_by_others_are_the_same(quick, noisy, whole):
    workers = {'num_workers': 1, 'persistent_workers': True, 'prefetch_factor': 3}
    assert_same_run(quick.fit(noisy, **workers), whole.result)
