"""The front door with a backend behind it: train, save, load, reconstruct, train on."""

import numpy as np
import pytest

import ptychodus_torch_plugin as plugin
from ptychodus_torch_plugin.errors import BundleError, ConfigError, ShapeError

from .quick import EXECUTION, MODEL, TRAINING, assert_same_arrays

INFERENCE = plugin.InferenceConfig(held_out_fraction=0.2, seed=2)


@pytest.fixture(scope='module')
def trained(backend, noisy):
    return plugin.train([noisy], MODEL, TRAINING, EXECUTION, backend=backend)


@pytest.fixture(scope='module')
def path(trained, tmp_path_factory):
    return trained.save(tmp_path_factory.mktemp('bundle'))


@pytest.fixture(scope='module')
def loaded(backend, path):
    return plugin.load_bundle(path, backend=backend)


def test_training_through_the_front_door_is_that_of_the_backend(trained, whole):
    assert tuple(trained.history) == tuple(whole.result.history)
    assert trained.best_epoch == whole.result.best_epoch
    weights = whole.result.model.export_weights()
    assert_same_arrays(trained.trained.export_weights(), weights)


def test_a_loaded_model_reconstructs_bit_by_bit(noisy, trained, loaded):
    one, other = (
        plugin.reconstruct(model, noisy, INFERENCE, EXECUTION) for model in (trained, loaded)
    )
    assert one.stage == other.stage == '4 sweeps + network + 2 sweeps'
    assert np.abs(one.stages['4 sweeps + network'] - one.stages['4 sweeps']).max() > 1e-4
    for name, object_ in one.stages.items():
        np.testing.assert_array_equal(other.stages[name], object_)
    np.testing.assert_array_equal(other.object_, one.object_)
    np.testing.assert_array_equal(other.probe, one.probe)
    np.testing.assert_array_equal(other.occupancy, one.occupancy)
    assert (other.r_fitted, other.r_held_out) == (one.r_fitted, one.r_held_out)


def test_everything_else_comes_back_too(backend, trained, loaded):
    assert loaded.backend.name == backend
    assert (loaded.config, loaded.training) == (MODEL, TRAINING)
    assert tuple(loaded.history) == tuple(trained.history)
    assert loaded.best_epoch == trained.best_epoch
    np.testing.assert_array_equal(loaded.probe, trained.probe)
    assert loaded.provenance == trained.provenance


def test_moments_of_the_optimiser_are_in_the_bundle(trained, loaded):
    names = trained.trained.export_weights().keys()
    assert loaded.optimizer.keys() == {
        f'{slot}/{name}' for slot in ('step', 'exp_avg', 'exp_avg_sq') for name in names
    }
    assert 'exp_avg_sq/unet.decoder.0.conv2.weight' in loaded.optimizer
    assert_same_arrays(loaded.optimizer, trained.optimizer)


def test_one_model_serves_other_scans(loaded, simulated):
    other = simulated(n_positions=25, probe_modes=2, seed=12)
    result = plugin.reconstruct(loaded, other, INFERENCE, EXECUTION)
    assert result.object_.shape == other.frame.shape
    assert len(result.probe) == 2
    assert np.isfinite(result.object_).all()


def test_a_network_on_the_canvas_reconstructs_scans_of_any_size(backend, loaded, simulated):
    wide = simulated(N=64, n_positions=4, step_px=7.0)
    result = plugin.reconstruct(loaded, wide, INFERENCE, EXECUTION)
    assert result.object_.shape == wide.frame.shape
    assert result.probe.shape[1:] == (64, 64)
    assert np.isfinite(result.object_).all()
    with pytest.raises(ShapeError, match=r'patterns are 64 x 64 px, but the model is for N = 32'):
        plugin.train([wide], MODEL, TRAINING, backend=backend)


def test_the_same_network_between_other_sweeps(loaded, noisy):
    changed = plugin.with_sweeps(loaded, sweeps_before=3, sweeps_after=2, probe_modes=2)
    assert (changed.config.sweeps_before, changed.config.sweeps_after) == (3, 2)
    assert changed.config.sweeps == loaded.config.sweeps.model_copy(update={'probe_modes': 2})
    as_many = plugin.with_sweeps(changed, sweeps_before='automatic').config
    assert (as_many.sweeps_before, as_many.sweeps_after) == (None, 2)
    weights = changed.trained.export_weights()
    for name, values in loaded.trained.export_weights().items():
        np.testing.assert_array_equal(weights[name], values)
    result = plugin.reconstruct(changed, noisy, INFERENCE, EXECUTION)
    assert len(result.probe) == 2
    with pytest.raises(ConfigError, match='momentums is not a known setting'):
        plugin.with_sweeps(loaded, momentums=0.5)


def test_sweeps_alone_are_a_model_too(backend, noisy, tmp_path):
    config = MODEL.model_copy(update={'architecture': 'none'})
    model = plugin.train([noisy], config, TRAINING, EXECUTION, backend=backend)
    again = plugin.load_bundle(model.save(tmp_path / 'none.zip'), backend=backend)
    assert again.config == config
    one, other = (plugin.reconstruct(m, noisy, INFERENCE, EXECUTION) for m in (model, again))
    np.testing.assert_array_equal(other.object_, one.object_)


def test_importing_weights_lists_every_fault_and_changes_nothing(quick, trained):
    model = quick.build(seed=5)
    before = model.export_weights()
    weights = trained.trained.export_weights()
    del weights['unet.head.bias']
    weights['unet.encoder.0.conv1.weight'] = np.zeros((4, 3, 5, 5), np.float32)
    weights['unet.encoder.1.conv1.bias'] = weights['unet.encoder.1.conv1.bias'].astype(float)
    weights['unet.tail'] = np.zeros(1, np.float32)
    weights['unet.decoder.0.conv1.bias'][1] = np.nan
    with pytest.raises(BundleError) as caught:
        model.import_weights(weights)
    message = str(caught.value)
    assert 'has 5 faults' in message
    for name, fault in (
        ('unet.head.bias', 'is missing; expected shape (2,)'),
        ('unet.encoder.0.conv1.weight', 'has shape (4, 3, 5, 5); expected (4, 3, 3, 3)'),
        ('unet.encoder.1.conv1.bias', 'has dtype float64; expected float32'),
        ('unet.tail', 'is not expected'),
        ('unet.decoder.0.conv1.bias', 'has 1 of 4 values NaN or infinite'),
    ):
        assert any(name in line and fault in line for line in message.splitlines()), name
    assert_same_arrays(model.export_weights(), before)


def test_sweeps_alone_take_no_weights(quick, trained):
    model = quick.build(architecture='none')
    model.import_weights({})
    with pytest.raises(BundleError, match='14 tensors found, 0 expected'):
        model.import_weights(trained.trained.export_weights())


def test_exported_and_imported_weights_are_copies(quick):
    model = quick.build(seed=5)
    weights = model.export_weights()
    original = weights['unet.encoder.0.conv1.bias'].copy()
    weights['unet.encoder.0.conv1.bias'][:] = 7
    np.testing.assert_array_equal(model.export_weights()['unet.encoder.0.conv1.bias'], original)
    model.import_weights(weights)
    weights['unet.encoder.0.conv1.bias'][:] = 8
    assert (model.export_weights()['unet.encoder.0.conv1.bias'] == 7).all()


def test_weights_may_be_read_only(quick):
    model = quick.build(seed=5)
    weights = model.export_weights()
    for array in weights.values():
        array.flags.writeable = False
    model.import_weights(weights)
