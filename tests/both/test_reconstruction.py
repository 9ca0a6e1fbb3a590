"""From a scan to an object: stages, figures, patterns used, and how close to the truth."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    SweepConfig,
)
from ptychodus_torch_plugin.metrics import compare_objects, r_factor, scanned_region
from ptychodus_torch_plugin.training_plan import held_out_indices
from tests.parity.comparison import TOLERANCES, assert_close

from .quick import MODEL, TRAINING, Runs, assert_same_arrays

SWEEPS_ALONE = MODEL.model_copy(update={'architecture': 'none'})
ONCE = InferenceConfig(held_out_fraction=0.0, seed=2)
CPU = ExecutionConfig(accelerator='cpu')


def model_of(quick, config=MODEL):
    """Return a model whose network, if it has one, changes what it sees."""
    model = Runs(quick.backend, config, TRAINING, CPU).build(seed=4)
    weights = model.export_weights()
    rng = np.random.default_rng(3)
    for name in weights:
        if 'head' in name:
            weights[name] = rng.normal(size=weights[name].shape).astype(np.float32)
    model.import_weights(weights)
    return model


def reconstruct(quick, scan, config=MODEL, inference=ONCE, **options):
    return model_of(quick, config).reconstruct(scan, inference, CPU, **options)


@pytest.fixture(scope='module')
def odd(lopsided):
    """Sub-pixel positions, three modes, bad pixels, a canvas of unequal odd sides."""
    return lopsided(32, 3, whole=False)


@pytest.fixture(scope='module')
def result(quick, odd):
    inference = InferenceConfig(held_out_fraction=0.2, seed=2)
    return reconstruct(quick, odd, inference=inference)


# Stages


NAMES = ['4 sweeps', '4 sweeps + network', '4 sweeps + network + 2 sweeps']


def test_every_stage_is_named_and_kept(odd, result):
    assert list(result.stages) == list(result.r_fitted) == list(result.r_held_out) == NAMES
    assert result.stage == NAMES[-1]
    np.testing.assert_array_equal(result.object_, result.stages[result.stage])
    objects = list(result.stages.values())
    for object_ in objects:
        assert object_.dtype == np.complex64
        assert object_.shape == odd.frame.shape
        assert np.isfinite(object_).all()
    for before, after in pairwise(objects):
        assert np.abs(after - before).max() > 1e-3
    assert result.frame == odd.frame


@pytest.mark.parametrize(
    ('config', 'refine', 'names'),
    [
        (MODEL, 0, NAMES[:2]),
        (MODEL, 1, [*NAMES[:2], '4 sweeps + network + 1 sweep']),
        (MODEL, 2, NAMES),
        (SWEEPS_ALONE, None, ['4 sweeps']),
        (SWEEPS_ALONE, 0, ['4 sweeps']),
        (SWEEPS_ALONE, 3, ['4 sweeps', '4 sweeps + 3 sweeps']),
        (SWEEPS_ALONE.model_copy(update={'sweeps_before': 1}), 0, ['1 sweep']),
    ],
)
def test_the_number_of_last_sweeps_can_be_chosen(quick, odd, config, refine, names):
    inference = ONCE.model_copy(update={'refine': refine})
    result = reconstruct(quick, odd, config, inference)
    assert list(result.stages) == list(result.r_fitted) == names
    assert result.stage == names[-1]
    np.testing.assert_array_equal(result.object_, result.stages[names[-1]])


def test_the_network_sees_object_photons_and_gauge(inside, quick, odd, result):
    photons = oracle.illumination(*probe_after_sweeps(quick, odd), odd.frame.shape)
    assert result.noise_excess > 1
    before = result.stages[NAMES[0]]
    light = (photons / result.noise_excess).astype(np.float32)
    weight = photons / photons.sum()
    mean = np.sum(before * weight)
    gauge = np.sqrt(np.sum(np.abs(before) ** 2 * weight)) * mean / abs(mean)
    expected = inside.corrected(model_of(quick), before, light, np.complex64(gauge)) - before
    assert_close(result.stages[NAMES[1]] - before, expected, 1e-4, dtype=np.complex64)


def probe_after_sweeps(quick, scan):
    """Return the probe after the first sweeps, and where it lies."""
    inference = InferenceConfig(held_out_fraction=0.2, seed=2)
    once = reconstruct(quick, scan, SWEEPS_ALONE, inference=inference)
    return once.probe, *scan.frame.corners(scan.positions_px, scan.n_px)


# What is used


def test_every_pattern_is_used(odd, result):
    corners, remainders = odd.frame.corners(odd.positions_px, odd.n_px)
    expected = oracle.illumination(result.probe, corners, remainders, odd.frame.shape)
    assert_close(result.occupancy, expected, TOLERANCES['intensity'], dtype=np.float32)
    # Of thirty patterns, one less would be seen.
    fewer = oracle.illumination(result.probe, corners[1:], remainders[1:], odd.frame.shape)
    assert np.abs(fewer - expected).max() > 0.1 * expected.max()


def test_the_run_that_measures_r_never_sees_held_out_patterns(inside, quick, odd, monkeypatch):
    pools = []
    real = inside.reconstruction.Sweeper

    def sweeper(scan, config, pool):
        pools.append(pool.tolist())
        return real(scan, config, pool)

    monkeypatch.setattr(inside.reconstruction, 'Sweeper', sweeper)
    result = reconstruct(quick, odd, inference=InferenceConfig(held_out_fraction=0.2, seed=2))
    expected = held_out_indices(odd, 0.2, seed=2)
    np.testing.assert_array_equal(result.held_out, expected)
    assert len(expected) == 6
    everything = list(range(odd.n_patterns))
    seen = [i for i in everything if i not in expected]
    # Each run sweeps before and after the network.
    assert pools == [seen, seen, everything, everything]


def test_what_sweeps_make_is_as_good_with_held_out_patterns(quick, odd, result):
    """Those over all patterns go on from those without some."""
    plain_run = reconstruct(quick, odd)
    assert list(plain_run.stages) == list(result.stages)
    assert not np.array_equal(plain_run.stages[NAMES[0]], result.stages[NAMES[0]])
    assert result.r_fitted[NAMES[0]] < 1.02 * plain_run.r_fitted[NAMES[0]]
    assert (plain_run.r_held_out, plain_run.noise_excess) == ({}, 1.0)
    assert plain_run.held_out.shape == (0,)


def test_garbage_in_bad_pixels_changes_no_bit(quick, odd, result):
    patterns = odd.patterns.copy()
    patterns[:, odd.bad_pixels] = np.random.default_rng(0).uniform(
        0, 2**32, size=(30, odd.bad_pixels.sum())
    )
    inference = InferenceConfig(held_out_fraction=0.2, seed=2)
    other = reconstruct(quick, replace(odd, patterns=patterns), inference=inference)
    np.testing.assert_array_equal(other.object_, result.object_)
    np.testing.assert_array_equal(other.probe, result.probe)
    np.testing.assert_array_equal(other.occupancy, result.occupancy)
    assert (other.r_fitted, other.r_held_out) == (result.r_fitted, result.r_held_out)


# Figures


def test_predicted_patterns_are_those_of_the_oracle(quick, simulated):
    scan = simulated(n_positions=81, probe_modes=2)  # more than are predicted at once
    result = reconstruct(quick, scan)
    predicted = model_of(quick).predict_patterns(scan, result)
    wide = result.object_.astype(complex), result.probe.astype(complex)
    expected = oracle.predict_counts(*wide, *scan.frame.corners(scan.positions_px, 32))
    assert_close(predicted, expected, TOLERANCES['intensity'], dtype=np.float32)


def test_r_of_fitted_patterns_is_that_of_the_metrics(quick, odd, result):
    predicted = model_of(quick).predict_patterns(odd, result)
    expected = r_factor(predicted, odd.patterns, odd.valid_pixels)
    assert result.r_fitted[result.stage] == pytest.approx(expected, rel=1e-4)
    for name, object_ in result.stages.items():
        assert 0 < result.r_fitted[name] < 1
        if name != result.stage:  # their probe was another one, but not by much
            other = model_of(quick).predict_patterns(odd, replace(result, object_=object_))
            r = r_factor(other, odd.patterns, odd.valid_pixels)
            assert result.r_fitted[name] == pytest.approx(r, rel=0.2)


def test_misfits_are_those_of_the_oracle(quick, odd):
    chosen = np.array([3, 17, 4])
    with model_of(quick).engine(odd, CPU) as engine:
        state = engine.swept(
            engine.start(odd.probe), np.arange(20), plain.settling_schedule(2), 0, lambda: None
        )
        object_, probe = (each.astype(complex) for each in engine.export(state))
        misfits = engine.misfits(state, chosen)
    corners, remainders = odd.frame.corners(odd.positions_px[chosen], odd.n_px)
    expected = oracle.predict_counts(object_, probe, corners, remainders)[:, odd.valid_pixels]
    measured = odd.patterns[chosen][:, odd.valid_pixels]
    by_hand = np.sum((expected - measured) ** 2, axis=1) / np.sum(expected, axis=1)
    assert_close(misfits, by_hand, 1e-4, dtype=np.float32)


def test_refined_exposures_are_told_and_used(quick, simulated):
    beam = {'intensity_variation': 0.3, 'position_error_px': 0.6, 'background': 2.0}
    scan = simulated(photons=1e4, n_positions=81, **beam)
    refined = {'refine_intensity': True, 'refine_positions': True}
    sweeps = MODEL.sweeps.model_copy(update=refined)
    config = MODEL.model_copy(update={'sweeps': sweeps, 'sweeps_before': 6})
    model = model_of(quick, config)
    result = model.reconstruct(scan, ONCE, CPU)
    found = result.exposures
    assert 0.1 < np.abs(found.positions_px - scan.positions_px).max() <= 3
    assert found.intensities.mean() == pytest.approx(1, abs=0.01)
    assert found.intensities.std() > 0.1
    wide = result.object_.astype(complex), result.probe.astype(complex)
    corners, remainders = scan.frame.corners(found.positions_px, 32)
    bright = found.intensities[:, None, None]
    expected = bright * oracle.predict_counts(*wide, corners, remainders) + 2
    predicted = model.predict_patterns(scan, result)
    assert_close(predicted, expected, TOLERANCES['intensity'], dtype=np.float32)
    r = r_factor(predicted, scan.patterns, scan.valid_pixels)
    assert result.r_fitted[result.stage] == pytest.approx(r, rel=1e-4)
    light = found.intensities.sum() * np.sum(np.abs(wide[1]) ** 2)
    assert result.occupancy.sum() == pytest.approx(light, rel=1e-4)
    assert reconstruct(quick, scan).exposures is None


def test_r_of_held_out_patterns_is_that_of_the_oracle(quick, simulated):
    """Sweeps in NumPy over all other patterns, and R on those that were left out."""
    scan = simulated(photons=1e4)
    inference = InferenceConfig(held_out_fraction=0.2, seed=2)
    result = reconstruct(quick, scan, SWEEPS_ALONE, inference)
    held = held_out_indices(scan, 0.2, seed=2)
    config = SWEEPS_ALONE.sweeps
    probe = plain.first_probe(scan, config).astype(complex)
    state = plain.SweepState(np.ones(scan.frame.shape, dtype=complex), probe)
    pool = np.setdiff1d(np.arange(49), held)
    plain.sweep_oracle(scan, state, config, plain.schedule(config, 4), pool=pool, seed=2)
    where = scan.frame.corners(scan.positions_px[held], 32)
    predicted = oracle.predict_counts(state.object_, state.probe, *where).astype(np.float32)
    expected = r_factor(predicted, scan.patterns[held], scan.valid_pixels)
    assert result.r_held_out == {'4 sweeps': pytest.approx(expected, rel=2e-3)}
    assert result.r_held_out['4 sweeps'] > 1.05 * result.r_fitted['4 sweeps']


def test_the_probe_is_orthogonal_and_has_the_photons(odd, result):
    flat = result.probe.reshape(3, -1).astype(complex)
    overlap = flat.conj() @ flat.T
    energies = np.diag(overlap).real
    assert result.probe.dtype == np.complex64
    assert np.abs(overlap - np.diag(energies)).max() < 1e-5 * energies[0]
    assert (np.diff(energies) < 0).all()
    first = plain.first_probe(odd, MODEL.sweeps)
    assert energies.sum() == pytest.approx(np.sum(np.abs(first) ** 2), rel=1e-4)


# How good


GOOD = ModelConfig(
    N=32,
    architecture='none',
    sweeps_before=24,
    sweeps=SweepConfig(
        damping_start=0.1,
        damping_end=1.0,
        momentum=0.8,
        settling_sweeps=4,
        batch_size=9,
        refine_probe=True,
    ),
)


@pytest.mark.parametrize('modes', [1, 3])
@pytest.mark.parametrize('offset', [(0.0, 0.0), (2.2, -3.9), (-1.5, 0.5)])
def test_the_object_is_found(quick, simulated, modes, offset):
    """Wherever the scan lies against the pixels, with one mode or three."""
    scan = simulated(photons=1e5, probe_modes=modes, offset_px=offset)
    result = reconstruct(quick, scan, GOOD)
    corners, _ = scan.frame.corners(scan.positions_px, 32)
    light = np.sum(np.abs(scan.probe) ** 2, axis=0)
    region = scanned_region(scan.frame.shape, corners, 32, light, level=0.2)
    figures = compare_objects(result.object_, scan.object_guess, region)
    assert figures.complex_error < 0.1
    assert figures.phase_psnr_dB > 26
    # The mean transmission is 1: what the true object absorbs is missing in the probe.
    absorbed = np.sqrt(scan.mean_counts() / np.sum(np.abs(scan.probe) ** 2))
    assert figures.scale_amplitude == pytest.approx(absorbed, rel=0.05)
    assert np.abs(figures.shift_px).max() < 0.5
    assert result.r_fitted[result.stage] < 0.2


# Course


def test_events_count_the_sweeps_of_both_runs(quick, odd):
    events = []
    inference = InferenceConfig(refine=3, held_out_fraction=0.2)
    reconstruct(quick, odd, inference=inference, on_event=events.append)
    assert {event.phase for event in events} == {'reconstruct'}
    assert [event.done for event in events] == list(range(1, 13))
    assert {event.total for event in events} == {12}
    assert all(math.isfinite(event.patterns_per_s) for event in events)
    assert all(event.patterns_per_s > 0 for event in events)
    assert all(event.remaining_s >= 0 for event in events)
    assert events[-1].remaining_s == 0


def test_a_stop_interrupts(quick, odd):
    events = []
    with pytest.raises(InterruptedError, match='stopped on request'):
        reconstruct(quick, odd, on_event=events.append, should_stop=lambda: len(events) >= 3)
    assert len(events) == 3


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(quick, odd, result):
    inference = InferenceConfig(held_out_fraction=0.2, seed=2)
    again = reconstruct(quick, odd, inference=inference)
    np.testing.assert_array_equal(again.object_, result.object_)
    assert again.r_held_out == result.r_held_out
    other = reconstruct(quick, odd, inference=inference.model_copy(update={'seed': 3}))
    assert np.abs(other.object_ - result.object_).max() > 1e-4
    assert other.held_out.tolist() != result.held_out.tolist()


def test_a_reconstruction_leaves_model_and_scan_alone(quick, odd):
    model, fingerprint = model_of(quick), odd.fingerprint()
    weights, probe = model.export_weights(), odd.probe.copy()
    model.reconstruct(odd, ONCE, CPU)
    assert odd.fingerprint() == fingerprint
    np.testing.assert_array_equal(odd.probe, probe)
    assert_same_arrays(model.export_weights(), weights)


def test_one_pattern_is_a_scan(quick, odd):
    single = odd.subset(np.array([7]))
    result = reconstruct(quick, single, inference=InferenceConfig(held_out_fraction=0.5))
    assert result.object_.shape == (32, 32)
    assert np.isfinite(result.object_).all()
    assert result.r_held_out == {}
