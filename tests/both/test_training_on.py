"""Training that starts from a model, with its moments or without, on the same data or others."""

import numpy as np
import pytest

import ptychodus_torch_plugin as plugin
from ptychodus_torch_plugin.errors import BundleError, ConfigError

from .quick import (
    CNN,
    CNN_EXECUTION,
    CNN_TRAINING,
    EXECUTION,
    MODEL,
    STEPS,
    TRAINING,
    assert_same_arrays,
)

STEADY = EXECUTION.model_copy(update={'scheduler': 'constant', 'checkpoint_save_top_k': 0})


def train(scan, backend, start=None, *, epochs=1, model=MODEL, training=TRAINING, **options):
    """Train at a constant rate; keep the weights of the last epoch."""
    settings = training.model_copy(update={'epochs': epochs})
    config = model if start is None else None
    return plugin.train([scan], config, settings, STEADY, backend=backend, start=start, **options)


@pytest.fixture(scope='module')
def first(noisy, backend):
    return train(noisy, backend)


def test_moments_go_on_where_they_were_left(noisy, backend, first, tmp_path):
    loaded = plugin.load_bundle(first.save(tmp_path), backend=backend)
    on, on_from_file = (train(noisy, backend, start) for start in (first, loaded))
    loaded.optimizer.clear()
    without = train(noisy, backend, loaded)

    assert_same_arrays(on_from_file.trained.export_weights(), on.trained.export_weights())
    assert_same_arrays(on_from_file.optimizer, on.optimizer)
    assert on.optimizer['step/unet.head.bias'] == 2 * STEPS
    assert without.optimizer['step/unet.head.bias'] == STEPS
    assert without.history[0].loss != on.history[0].loss
    assert on.history[0].loss < first.history[0].loss


def test_the_model_to_start_from_stays_as_it_was(noisy, backend, first):
    before = first.trained.export_weights(), dict(first.optimizer)
    train(noisy, backend, first)
    assert_same_arrays(first.trained.export_weights(), before[0])
    assert_same_arrays(first.optimizer, before[1])


def test_other_scans_leave_its_scales(simulated, backend, first):
    other = simulated(photons=9e3, seed=12)
    on = train(other, backend, first)
    assert on.mean_counts == first.mean_counts != other.mean_counts()
    np.testing.assert_array_equal(on.probe, first.probe)
    assert on.provenance['started_from'] == [first.provenance]


@pytest.mark.slow_in('tensorflow')
def test_a_killed_one_goes_on_to_the_same_result(noisy, backend, first, tmp_path):
    whole = train(noisy, backend, first, epochs=2)

    def cut(event):
        if event.epoch == 2:
            raise KeyError

    with pytest.raises(KeyError):
        train(noisy, backend, first, epochs=2, checkpoint_dir=tmp_path, on_event=cut)
    resumed = train(noisy, backend, first, epochs=2, checkpoint_dir=tmp_path, resume=True)
    assert list(resumed.history) == list(whole.history)
    assert_same_arrays(resumed.trained.export_weights(), whole.trained.export_weights())
    assert_same_arrays(resumed.optimizer, whole.optimizer)


def test_settings_of_another_model_are_refused(noisy, backend, first):
    other = MODEL.model_copy(update={'channels': (4, 9)})
    with pytest.raises(ConfigError, match='Leave the settings of the model out'):
        plugin.train([noisy], other, TRAINING, EXECUTION, backend=backend, start=first)


def test_moments_that_misfit_are_refused_by_name(noisy, backend, first):
    optimizer = dict(first.optimizer)
    optimizer['exp_avg/unet.head.bias'] = np.zeros(3, np.float32)
    del optimizer['exp_avg_sq/unet.encoder.0.conv1.bias']
    spoilt = plugin.Model(
        backend=first.backend, trained=first.trained, training=first.training, optimizer=optimizer
    )
    with pytest.raises(BundleError, match='has 2 faults') as caught:
        train(noisy, backend, spoilt)
    assert 'exp_avg/unet.head.bias' in str(caught.value)
    assert 'exp_avg_sq/unet.encoder.0.conv1.bias' in str(caught.value)


def test_a_trained_probe_and_its_moments_go_on_too(simulated, backend):
    scan = simulated(N=64, n_positions=20, seed=2)
    settings = CNN_TRAINING.model_copy(update={'epochs': 1, 'probe_trainable': True})

    def run(start=None, **changes):
        config = CNN if start is None else None
        training = settings.model_copy(update=changes)
        return plugin.train([scan], config, training, CNN_EXECUTION, backend=backend, start=start)

    one = run()
    on, kept = run(one), run(one, probe_trainable=False)
    steps = one.optimizer['step/probe']
    assert on.optimizer['step/probe'] == 2 * steps
    assert np.abs(on.probe - one.probe).max() > 1e-3 * np.abs(one.probe).max()
    # With another set of variables the moments say nothing.
    assert kept.optimizer['step/phase.center.bias'] == steps
    np.testing.assert_array_equal(kept.probe, one.probe)
    assert kept.trained.calibration.probe_trained
