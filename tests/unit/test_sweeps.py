"""Schedule, order and effect of the plain sweeps that every backend is compared with."""

from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.alignment import align
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.metrics import complex_error, scanned_region
from ptychodus_torch_plugin.physics import poisson_loss, predict_counts, shift_probe
from ptychodus_torch_plugin.probes import (
    center_px,
    far_field_counts,
    ramp,
    scale_probe,
    tilt_px,
    with_modes,
)
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.sweeps import (
    Sweep,
    SweepState,
    _keep_gauge,
    batches,
    drift_px,
    first_probe,
    probe_interval,
    schedule,
    settling_schedule,
    sweep_oracle,
)
from ptychodus_torch_plugin.visiting import (
    crowding,
)

N = 32
SETTINGS = SweepConfig(
    damping_start=0.1,
    damping_end=1.0,
    momentum=0.8,
    settling_sweeps=3,
    batch_size=9,
    refine_probe=False,
    probe_damping=0.5,
    probe_step=0.5,
    probe_momentum=0.5,
)
REFINING = SETTINGS.model_copy(update={'refine_probe': True})


@pytest.fixture(scope='module', params=[1, 3], ids=['one mode', 'three modes'])
def scan(request):
    return simulate_scan(
        SimulationConfig(
            N=N,
            object_kind='dead-leaves',
            n_positions=36,
            step_px=4.5,
            offset_px=(1.3, -0.7),
            photons=1e5,
            probe_modes=request.param,
            seed=3,
        )
    )


def run(scan, config, probe, n_sweeps=20, pool=None):
    state = SweepState(np.ones(scan.frame.shape, dtype=complex), probe.astype(complex))
    sweep_oracle(scan, state, config, schedule(config, n_sweeps), pool=pool, seed=5)
    return state


def loss_of(scan, state):
    where = scan.frame.corners(scan.positions_px, N)
    predicted = predict_counts(state.object_, state.probe, *where)
    mean_count = scan.mean_counts() / scan.valid_pixels.sum()
    return poisson_loss(predicted, scan.patterns, scan.valid_pixels, mean_count)


def error_of(scan, state):
    corners, _ = scan.frame.corners(scan.positions_px, N)
    light = np.sum(np.abs(scan.probe) ** 2, axis=0)
    region = scanned_region(scan.frame.shape, corners, N, light, level=0.2)
    aligned = align(state.object_.astype(np.complex64), scan.object_guess, region)
    return complex_error(aligned.object_, scan.object_guess, region)


# Schedule and order


@pytest.mark.parametrize('n_sweeps', [1, 2, 4, 5, 13])
@pytest.mark.parametrize('settling', [0, 3, 40])
def test_a_schedule_has_the_wanted_length_and_settles_at_its_end(n_sweeps, settling):
    config = SETTINGS.model_copy(update={'settling_sweeps': settling})
    sweeps = schedule(config, n_sweeps)
    assert len(sweeps) == n_sweeps
    last = min(settling, n_sweeps - 1)
    accelerated, settled = sweeps[: n_sweeps - last], sweeps[n_sweeps - last :]
    assert settled == settling_schedule(last)
    assert {(s.step, s.momentum) for s in accelerated} == {(1.0, 0.8)}
    dampings = np.array([s.damping for s in accelerated])
    assert dampings[0] == pytest.approx(0.1)
    if len(dampings) > 1:
        assert dampings[-1] == pytest.approx(1.0)
        ratios = dampings[1:] / dampings[:-1]
        np.testing.assert_allclose(ratios, ratios[0])
        assert ratios[0] > 1


def test_settling_sweeps_halve_their_step_to_an_eighth():
    steps = [1, 0.5, 0.25, 0.125, 0.125, 0.125]
    assert settling_schedule(6) == [Sweep(1.0, step, 0.0) for step in steps]
    assert settling_schedule(0) == []


def test_batches_visit_every_pattern_of_the_pool_once():
    pool = np.array([3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377])
    parts = batches(pool, 4, seed=1, sweep=2)
    assert [len(part) for part in parts] == [4, 4, 3]
    assert np.concatenate(parts).dtype == np.int64
    assert sorted(np.concatenate(parts)) == pool.tolist()
    assert [len(part) for part in batches(pool, 100, seed=1, sweep=2)] == [11]


def test_the_order_depends_on_seed_and_sweep_alone():
    pool = np.arange(40)
    np.random.default_rng(0).random()

    def order(seed, sweep):
        return np.concatenate(batches(pool, 7, seed, sweep)).tolist()

    assert order(1, 2) == order(1, 2)
    orders = [order(1, 2), order(1, 3), order(2, 2), order(2, 1), pool.tolist()]
    assert len({tuple(o) for o in orders}) == 5


@pytest.mark.parametrize(
    ('n_batches', 'interval'), [(1, 1), (7, 1), (31, 1), (32, 2), (64, 4), (6250, 8)]
)
def test_the_probe_is_updated_a_few_times_in_every_sweep(n_batches, interval):
    assert probe_interval(n_batches) == interval


def test_a_crowded_scan_converges(monkeypatch):
    """All patterns of a batch lie on top of each other, and pull in the same direction."""
    crowded = simulate_scan(
        SimulationConfig(N=N, object_kind='dead-leaves', n_positions=36, step_px=1.0, seed=3)
    )
    settings = SETTINGS.model_copy(update={'batch_size': 36})
    probe = first_probe(crowded, settings)
    start = SweepState(np.ones(crowded.frame.shape, dtype=complex), probe)
    corners, _ = crowded.frame.corners(crowded.positions_px, N)
    assert crowding(corners, probe, settings.batch_size, settings.damping_end) > 5
    assert loss_of(crowded, run(crowded, settings, probe)) < 0.2 * loss_of(crowded, start)
    monkeypatch.setattr('ptychodus_torch_plugin.visiting.crowding', lambda *_: 1.0)
    assert not loss_of(crowded, run(crowded, settings, probe)) < loss_of(crowded, start)


# The first probe


def test_the_first_probe_has_the_wanted_modes_and_the_measured_energy(scan):
    for wanted in (None, 1, 4):
        config = SETTINGS.model_copy(update={'probe_modes': wanted})
        probe = first_probe(replace(scan, probe=7 * scan.probe), config)
        assert len(probe) == (wanted or len(scan.probe))
        assert np.sum(np.abs(probe) ** 2) == pytest.approx(scan.mean_counts(), rel=1e-5)
        unscaled = with_modes(scan.probe, wanted)
        np.testing.assert_allclose(
            probe / np.linalg.norm(probe), unscaled / np.linalg.norm(unscaled), atol=1e-6
        )


def test_a_probe_that_will_be_refined_is_tilted_to_the_mean_pattern(scan):
    tilted = replace(scan, probe=(scan.probe * ramp((N, N), (1.4, -2.3), N)).astype(np.complex64))
    assert tilt_of(first_probe(tilted, SETTINGS), scan) == pytest.approx((1.4, -2.3), abs=0.3)
    assert tilt_of(first_probe(tilted, REFINING), scan) == pytest.approx((0, 0), abs=0.02)


def tilt_of(probe, scan):
    return tilt_px(far_field_counts(probe), scan.mean_pattern())


def test_photons_in_bad_pixels_change_no_first_probe(scan):
    bad_pixels = np.zeros((N, N), dtype=bool)
    bad_pixels[3, 20:29] = True
    patterns = scan.patterns.copy()
    patterns[:, bad_pixels] = 1e6
    masked = replace(scan, bad_pixels=bad_pixels)
    expected = first_probe(masked, REFINING)
    np.testing.assert_array_equal(
        first_probe(replace(masked, patterns=patterns), REFINING), expected
    )


def test_drift_is_counted_in_whole_pixels(scan):
    home = center_px(scan.probe)
    moved = np.roll(scan.probe, (2, -3), axis=(-2, -1))
    assert drift_px(moved, home) == (2, -3)
    assert drift_px(scan.probe, home) == (0, 0)
    assert drift_px(scan.probe, (home[0] + 0.4, home[1] - 0.6)) == (0, 1)


# The oracle


@pytest.fixture(scope='module')
def found(scan):
    """What twenty sweeps make of the scan, with its true probe kept."""
    return run(scan, SETTINGS, first_probe(scan, SETTINGS))


def test_sweeps_find_the_object(scan, found):
    probe = first_probe(scan, SETTINGS)
    start = SweepState(np.ones(scan.frame.shape, dtype=complex), probe)
    losses = [loss_of(scan, state) for state in (start, run(scan, SETTINGS, probe, 4), found)]
    assert losses[1] < 0.2 * losses[0]
    assert losses[2] < 0.3 * losses[1]
    assert error_of(scan, start) > 0.4
    assert error_of(scan, found) < 0.07


def test_the_objects_scale_does_not_depend_on_the_dose(scan, found):
    """The probe carries the photons: what is lost in the object is in the probe's energy."""
    inside = (slice(25, 45), slice(25, 45))
    ratio = np.abs(found.object_[inside]).mean() / np.abs(scan.object_guess[inside]).mean()
    photons = np.sum(np.abs(scan.probe) ** 2) / scan.mean_counts()
    assert ratio == pytest.approx(np.sqrt(photons), rel=0.02)


def test_a_probe_that_is_not_refined_stays_bit_equal(scan):
    probe = first_probe(scan, SETTINGS).astype(complex)
    state = run(scan, SETTINGS, probe.copy(), n_sweeps=5)
    np.testing.assert_array_equal(state.probe, probe)


def defocused_probe(scan):
    """The true probe, as it would be a little further down the beam."""
    f = np.fft.fftfreq(N)
    turn = np.exp(-20j * np.pi * (f[:, None] ** 2 + f**2))
    probe = np.fft.ifft2(np.fft.fft2(scan.probe) * turn).astype(np.complex64)
    return first_probe(replace(scan, probe=probe), REFINING)


def distance(probe, truth):
    """Distance of the intensities, which no phase and no mixture of modes changes."""
    one, other = (np.sum(np.abs(p) ** 2, axis=0) for p in (probe, truth))
    one, other = one / one.sum(), other / other.sum()
    move = -np.array(tilt_px(one, other))
    one = shift_probe(one[None], move[None])[0, 0].real
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def test_a_wrong_probe_is_improved_on_request(scan):
    probe = defocused_probe(scan)
    kept, refined = (run(scan, config, probe, 16) for config in (SETTINGS, REFINING))
    assert distance(probe, scan.probe) > 0.6
    assert distance(refined.probe, scan.probe) < 0.4
    assert loss_of(scan, refined) < 0.5 * loss_of(scan, kept)
    assert error_of(scan, refined) < 0.75 * error_of(scan, kept)


def test_a_refined_probe_keeps_its_energy(scan):
    probe = defocused_probe(scan)
    for n_sweeps in (2, 9):
        refined = run(scan, REFINING, probe, n_sweeps).probe
        assert np.abs(refined - probe).max() > 0.01 * np.abs(probe).max()
        assert np.sum(np.abs(refined) ** 2) == pytest.approx(np.sum(np.abs(probe) ** 2))


def test_the_first_sweep_leaves_the_probe_alone(scan):
    probe = defocused_probe(scan)
    np.testing.assert_allclose(run(scan, REFINING, probe, 1).probe, probe, atol=1e-9)


def test_the_tilt_stays_that_of_the_probe_at_the_start(scan):
    """A tilted probe explains the data with a counter-ramp on the object, and keeps its tilt."""
    tilt = (0.8, -0.5)
    probe = scale_probe(
        scan.probe * ramp((N, N), tilt, N), scan.mean_counts(), scan.valid_pixels
    ).astype(complex)
    state = run(scan, REFINING, probe)
    reached = tilt_px(far_field_counts(state.probe), far_field_counts(probe))
    assert reached == pytest.approx((0, 0), abs=0.05)
    region = np.zeros(scan.frame.shape, dtype=bool)
    region[22:48, 22:48] = True
    aligned = align(state.object_.astype(np.complex64), scan.object_guess, region)
    expected = [-2 * np.pi * t / N for t in tilt]
    assert aligned.ramp_rad_per_px == pytest.approx(expected, abs=0.03)
    assert error_of(scan, state) < 0.13


def test_the_gauge_moves_probe_and_object_home_together(scan):
    """A probe that drifted by whole pixels and took energy with it: no prediction changes."""
    y, x = np.indices((N, N)) - N // 2
    compact = scan.probe * np.exp(-(y**2 + x**2) / 20)  # nothing is left where it wraps
    home, energy = center_px(compact), float(np.sum(np.abs(compact) ** 2))
    drifted = 1.7 * np.roll(compact, (3, -2), axis=(-2, -1))
    state = SweepState(np.roll(scan.object_guess, (3, -2), axis=(-2, -1)) / 1.7, drifted)
    velocities = state.object_ * 0.1j, state.probe * 0.2j
    where = scan.frame.corners(scan.positions_px, N)
    before = predict_counts(state.object_, state.probe, *where)
    _keep_gauge(state, *velocities, energy, home)
    np.testing.assert_allclose(state.probe, compact, rtol=1e-5)
    np.testing.assert_allclose(state.object_, scan.object_guess, rtol=1e-5)
    np.testing.assert_allclose(velocities[0], state.object_ * 0.1j, rtol=1e-6)
    np.testing.assert_allclose(velocities[1], state.probe * 0.2j, rtol=1e-6)
    after = predict_counts(state.object_, state.probe, *where)
    np.testing.assert_allclose(after, before, atol=1e-4 * before.max())


def test_sweeps_see_only_their_pool(scan):
    pool = np.setdiff1d(np.arange(36), [7, 20])
    spoilt = scan.patterns.copy()
    spoilt[[7, 20]] = 1e4
    probe = first_probe(scan, REFINING)
    one, other = (run(s, REFINING, probe, 4, pool) for s in (scan, replace(scan, patterns=spoilt)))
    np.testing.assert_array_equal(one.object_, other.object_)
    np.testing.assert_array_equal(one.probe, other.probe)
    whole = run(scan, REFINING, probe, 4)
    assert np.abs(whole.object_ - one.object_).max() > 1e-3


def test_bad_pixels_take_no_part_in_sweeps(scan):
    bad_pixels = np.zeros((N, N), dtype=bool)
    bad_pixels[14:18, 20] = bad_pixels[3, 4] = True
    masked = replace(scan, bad_pixels=bad_pixels)
    patterns = scan.patterns.copy()
    patterns[:, bad_pixels] = 65535
    probe = first_probe(masked, REFINING)
    one, other = (run(s, REFINING, probe, 4) for s in (masked, replace(masked, patterns=patterns)))
    np.testing.assert_array_equal(one.object_, other.object_)
    np.testing.assert_array_equal(one.probe, other.probe)


def test_the_same_seed_gives_the_same_bits_and_another_one_another_object(scan):
    probe, states = first_probe(scan, REFINING).astype(complex), []
    for seed in (5, 5, 6):
        state = SweepState(np.ones(scan.frame.shape, dtype=complex), probe.copy())
        sweep_oracle(scan, state, REFINING, schedule(REFINING, 3), seed=seed)
        states.append(state)
    np.testing.assert_array_equal(states[0].object_, states[1].object_)
    np.testing.assert_array_equal(states[0].probe, states[1].probe)
    assert np.abs(states[0].object_ - states[2].object_).max() > 1e-4
