"""From a trained reference network to the object of a scan, and through the bundle."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.api import load_bundle, reconstruct, train
from ptychodus_torch_plugin.backends import stages
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.errors import ConfigError, ShapeError
from ptychodus_torch_plugin.grouping import draw_groups
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.stitching import probe_weight, stitch, uniform_weight

from .quick import assert_same_arrays

EXECUTION = ExecutionConfig(accelerator='cpu')
TRAINING = TrainingConfig(
    epochs=2, batch_size=4, probe_trainable=True, intensity_scale_trainable=True
)


@pytest.fixture(scope='module')
def scan() -> ScanData:
    scan = simulate_scan(
        SimulationConfig(N=64, n_positions=30, object_kind='dead-leaves', photons=2e4, seed=5)
    )
    bad_pixels = np.random.default_rng(1).random((64, 64)) < 0.03
    patterns = scan.patterns.copy()
    patterns[:, bad_pixels] = 65535
    return replace(scan, patterns=patterns, bad_pixels=bad_pixels)


@pytest.fixture(
    scope='module',
    params=[(1, True), (2, True), pytest.param((2, False), marks=pytest.mark.slow)],
    ids=str,
)
def model(request, backend, scan):
    gridsize, object_big = request.param
    config = ModelConfig(
        architecture='cnn', gridsize=gridsize, object_big=object_big, n_filters_scale=1
    )
    return train([scan], config, TRAINING, EXECUTION, backend=backend)


def groups_for(model, scan, pool=None):
    return draw_groups(scan.positions_px, model.config.gridsize, seed=0, pool=pool)


def predicted(model, scan, groups):
    patterns = scan.patterns[groups.indices] * scan.valid_pixels
    return model.trained.predict(patterns, groups.offsets_px)


@pytest.mark.parametrize('weighting', ['probe', 'uniform'])
def test_each_patch_is_stitched_at_the_position_of_its_pattern(model, scan, weighting):
    groups = groups_for(model, scan)
    patches = predicted(model, scan, groups).patches
    weight = probe_weight(scan.probe) if weighting == 'probe' else uniform_weight(64)
    expected, _ = stitch(
        patches.reshape(-1, 64, 64),
        scan.positions_px[groups.indices.ravel()],
        scan.frame,
        weight,
    )
    inference = InferenceConfig(held_out_fraction=0, patch_weighting=weighting)

    found = reconstruct(model, scan, inference, EXECUTION)

    assert found.stage == 'network'
    np.testing.assert_allclose(found.object_, expected, atol=1e-5)


def test_every_pattern_is_visited(inside, model, scan, monkeypatch):
    visited = []
    real = inside.reconstruction.predict_patches

    def predict(network, calibration, amplitudes, *others):
        flat = amplitudes.reshape(-1, 64, 64) * np.float32(calibration.input_scale)
        clean = np.sqrt(scan.patterns * scan.valid_pixels)
        visited.extend(int(np.argmin(np.abs(clean - each).sum((1, 2)))) for each in flat)
        return real(network, calibration, amplitudes, *others)

    monkeypatch.setattr(inside.reconstruction, 'predict_patches', predict)
    reconstruct(model, scan, InferenceConfig(held_out_fraction=0), EXECUTION)

    assert set(visited) == set(range(scan.n_patterns))


def test_held_out_patterns_make_no_part_of_what_predicts_them(model, scan):
    spoilt = scan.patterns.copy()
    one = reconstruct(model, scan, InferenceConfig(held_out_fraction=0.2), EXECUTION)
    spoilt[one.held_out] = spoilt[one.held_out][:, ::-1]
    other = reconstruct(
        model, replace(scan, patterns=spoilt), InferenceConfig(held_out_fraction=0.2), EXECUTION
    )

    assert 0 < one.r_held_out['network'] < 1
    # Worse for the patterns alone, which are others now; what predicts them is the same.
    assert other.r_held_out['network'] > one.r_held_out['network']
    assert not np.array_equal(one.object_, other.object_)


def test_a_shorter_precision_is_nearly_as_good_and_lasts_for_one_call(model, scan):
    inference = InferenceConfig(held_out_fraction=0)
    shorter = EXECUTION.model_copy(update={'precision': 'bf16-mixed'})
    before, short, after = (
        reconstruct(model, scan, inference, execution).object_
        for execution in (EXECUTION, shorter, EXECUTION)
    )

    # Bfloat16 has 8 bits of mantissa.
    error = np.sqrt(np.mean(np.abs(short - before) ** 2) / np.mean(np.abs(before) ** 2))
    assert 1e-5 < error < 1e-2
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize('batch_size', [1, 7, 1000])
def test_the_size_of_a_batch_changes_nothing(model, scan, batch_size):
    whole = reconstruct(model, scan, execution=EXECUTION)
    execution = ExecutionConfig(accelerator='cpu', inference_batch_size=batch_size)
    sizes = []
    parts = reconstruct(model, scan, execution=execution, on_event=lambda e: sizes.append(e.done))

    np.testing.assert_allclose(parts.object_, whole.object_, atol=1e-5)
    # Both runs: with all patterns, and without those held out, where that changes the groups.
    runs = [scan.n_patterns, scan.n_patterns - len(whole.held_out)]
    computed = runs[:1] if model.config.gridsize == 1 else runs
    assert sizes == list(range(1, sum(-(-n // batch_size) for n in computed) + 1))


def test_one_pass_without_groups_says_what_two_would(model, scan, monkeypatch):
    once = reconstruct(model, scan, InferenceConfig(held_out_fraction=0.2), EXECUTION)
    monkeypatch.setattr(stages, 'shares_patches', lambda _: False)
    twice = reconstruct(model, scan, InferenceConfig(held_out_fraction=0.2), EXECUTION)

    assert once.r_held_out == pytest.approx(twice.r_held_out, rel=1e-5)
    assert once.r_held_out != pytest.approx(once.r_fitted, rel=1e-3)
    np.testing.assert_allclose(once.object_, twice.object_, atol=1e-6)


def test_sweeps_refine_what_the_network_says(model, scan):
    found = reconstruct(model, scan, InferenceConfig(refine=4), EXECUTION)

    assert list(found.stages) == ['network', 'network + 4 sweeps']
    # Four sweeps over so few patterns need not predict others better, but must explain their own.
    assert found.r_fitted['network + 4 sweeps'] < 0.95 * found.r_fitted['network']


def test_a_scan_without_light_at_its_edge_gets_no_invented_object(model, scan):
    found = reconstruct(model, scan, execution=EXECUTION)
    lit = found.occupancy > 1e-3 * found.occupancy.max()

    assert np.abs(found.object_[lit]).min() > 0
    assert np.isfinite(found.object_).all()


def test_merged_patch_is_the_mean_of_the_patches_around_the_centre(model, scan):
    groups = groups_for(model, scan)
    prediction = predicted(model, scan, groups)

    shape = (len(groups), model.config.patterns_per_group, 64, 64)
    assert prediction.patches.shape == shape
    assert prediction.merged.shape == (len(groups), 64, 64)
    assert prediction.patches.dtype == prediction.merged.dtype == np.complex64
    if model.config.gridsize == 1:
        np.testing.assert_array_equal(prediction.merged, prediction.patches[:, 0])


def test_normalized_amplitudes_give_what_the_network_itself_says(model, scan):
    groups = groups_for(model, scan)
    patterns = scan.patterns[groups.indices] * scan.valid_pixels
    amplitudes = np.sqrt(patterns) / np.float32(model.trained.calibration.input_scale)
    own = model.trained.predict(amplitudes, groups.offsets_px, normalized=True)

    factor = np.exp(model.trained.export_weights()['log_intensity_scale'])
    whole = model.trained.predict(patterns, groups.offsets_px)
    np.testing.assert_allclose(own.patches * factor, whole.patches, atol=1e-5)
    np.testing.assert_allclose(own.merged * factor, whole.merged, atol=1e-5)
    assert abs(factor - 1) > 0.5


def test_groups_of_another_size_are_refused(model, scan):
    count = model.config.patterns_per_group + 1
    patterns, offsets = np.ones((3, count, 64, 64), np.float32), np.zeros((3, count, 2), np.float32)

    with pytest.raises(ShapeError, match=f'{count - 1} pattern.*got {count}'):
        model.trained.predict(patterns, offsets)
    with pytest.raises(ShapeError, match='N'):
        model.trained.predict(patterns[:, 1:, :32, :32], offsets[:, 1:])
    with pytest.raises(ShapeError, match='offsets_px'):
        model.trained.predict(patterns[:, 1:], offsets)


def test_a_family_without_groups_says_so(backend, scan):
    sweeps = train([scan], ModelConfig(architecture='none'), backend=backend)

    with pytest.raises(ConfigError, match='whole scans'):
        sweeps.trained.predict(np.ones((1, 1, 64, 64), np.float32), np.zeros((1, 1, 2), np.float32))


def test_a_scan_of_another_dose_is_warned_about(model, scan, caplog):
    brighter = replace(scan, patterns=scan.patterns * 3)
    with caplog.at_level(logging.WARNING):
        reconstruct(model, scan, InferenceConfig(held_out_fraction=0), EXECUTION)
        assert not caplog.records
        reconstruct(model, brighter, InferenceConfig(held_out_fraction=0), EXECUTION)

    [record] = caplog.records
    assert '6' in record.getMessage()
    assert 'trained on' in record.getMessage()


def test_a_bundle_holds_the_whole_model(backend, model, scan, tmp_path):
    loaded = load_bundle(model.save(tmp_path), backend=backend)

    assert loaded.config == model.config
    assert loaded.training == model.training
    np.testing.assert_array_equal(loaded.probe, model.probe)
    assert_same_arrays(loaded.trained.export_weights(), model.trained.export_weights())
    one, other = (reconstruct(each, scan, execution=EXECUTION) for each in (model, loaded))
    np.testing.assert_array_equal(one.object_, other.object_)
    assert one.r_held_out == other.r_held_out


def test_a_trained_probe_is_the_one_that_other_scans_are_seen_with(model, scan):
    found = reconstruct(model, scan, execution=EXECUTION)
    trained = np.abs(np.vdot(found.probe, model.probe))
    given = np.abs(np.vdot(found.probe, scan.probe)) / np.linalg.norm(scan.probe)

    norm = np.linalg.norm(found.probe)
    assert trained / np.linalg.norm(model.probe) == pytest.approx(norm, rel=1e-5)
    assert given < (1 - 1e-6) * norm
