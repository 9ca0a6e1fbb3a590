"""Intensities and positions that sweeps refine: what they are estimated from, and how far."""

from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin import exposures as module
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.exposures import (
    FIRST_INTENSITY_SWEEP,
    FIRST_POSITION_SWEEP,
    MOMENTS,
    POSITION_RANGE_PX,
    POSITION_STEP_PX,
    Exposures,
    Refinement,
    displacement_figures,
    displacements_px,
    most_moved_px,
    slopes,
)
from ptychodus_torch_plugin.physics import (
    far_field,
    gather_patches,
    near_field,
    predict_counts,
    shift_probe,
)
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.sweeps import SweepState, first_probe, schedule, sweep_oracle

INTENSITY = SweepConfig(refine_probe=False, refine_intensity=True)
POSITIONS = SweepConfig(refine_probe=False, refine_positions=True)
PLAIN = SimulationConfig(
    N=32, n_positions=49, step_px=4.5, object_kind='dead-leaves', photons=1e5, seed=3
)
POOL = np.array([0, 2, 3, 5])
GIVEN = np.array([[20.2, 20.9], [24.5, 31.5], [40.0, 22.2], [39.9, 40.1], [30.0, 30.0], [25, 35]])


@pytest.fixture
def refining():
    """Return a refinement of the pool on a wide canvas, by settings."""

    def make(config, shape=(80, 80), start=None):
        from ptychodus_torch_plugin.frame import ObjectFrame

        return Refinement(ObjectFrame((0, 0), shape), 32, GIVEN, config, POOL, start)

    return make


def swept(scan, config, n_sweeps=12, pool=None):
    probe = first_probe(scan, config).astype(complex)
    state = SweepState(np.ones(scan.frame.shape, dtype=complex), probe)
    sweep_oracle(scan, state, config, schedule(config, n_sweeps), pool=pool, seed=5)
    return state


# Intensities


def test_intensities_follow_the_totals_with_a_mean_of_one(refining):
    found = refining(INTENSITY)
    expected = np.array([100.0, 0, 50.0, 200.0, 0, 80.0])
    ratio = np.array([1.44, 1, 1.0, 0.25, 1, 1.21])
    found.figures[:, 0], found.figures[:, 1] = expected, expected * ratio
    grown = found.correct(FIRST_INTENSITY_SWEEP, 1.0)
    damped = np.sqrt(ratio[POOL])
    np.testing.assert_allclose(found.exposures.intensities[POOL], damped / damped.mean())
    np.testing.assert_array_equal(found.exposures.intensities[[1, 4]], 1)
    assert grown == pytest.approx(np.sqrt(damped.mean()))
    np.testing.assert_array_equal(found.exposures.positions_px, GIVEN)


def test_they_wait_for_the_object_and_settle_with_the_steps(refining):
    for number, step, exponent in ((0, 1.0, 0), (1, 1.0, 0), (5, 0.25, 0.125)):
        found = refining(INTENSITY)
        found.figures[:, :2] = [1.0, 1.0]
        found.figures[3, 1] = 4.0
        found.correct(number, step)
        intensities = found.exposures.intensities
        assert intensities[3] / intensities[0] == pytest.approx(4.0**exponent)


def test_dark_and_blinding_patterns_stay_within_bounds(refining):
    found = refining(INTENSITY)
    found.figures[:, :2] = [100.0, 100.0]
    found.figures[0, 1], found.figures[2, 1], found.figures[3, 0] = -5.0, 1e9, 0.0
    for number in range(2, 30):
        found.correct(number, 1.0)
    intensities = found.exposures.intensities
    assert np.isfinite(intensities).all()
    assert intensities.min() >= 0.1
    assert intensities.max() <= 10


def test_weights_carry_amplitudes_and_no_pull_is_longer():
    weights = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]], np.float32)
    bright = Exposures(np.array([4.0, 1.0, 0.25]), np.zeros((3, 2)))
    seen, pulls = bright.weighed(weights)
    assert seen.dtype == pulls.dtype == np.float32
    np.testing.assert_allclose(seen, weights * [[2.0], [1.0], [0.5]])
    np.testing.assert_allclose(pulls, weights * [[0.5], [1.0], [0.5]])
    # Backends look whether both are one array.
    assert all(each is weights for each in Exposures.of(np.zeros((3, 2))).weighed(weights))


@pytest.mark.parametrize('dark', [0.0, 20.0])
def test_sweeps_find_the_intensities_of_a_simulation(dark):
    scan = simulate_scan(PLAIN.model_copy(update={'intensity_variation': 0.4, 'background': dark}))
    totals = scan.patterns.sum(axis=(1, 2)) - 32**2 * dark
    steady = simulate_scan(PLAIN).patterns.sum(axis=(1, 2))
    truth = (totals / steady) / (totals / steady).mean()
    state = swept(scan, INTENSITY)
    found = state.exposures.intensities
    assert found.mean() == pytest.approx(1, abs=1e-3)
    # Where few patterns overlap the object takes part of a variation over the whole scan.
    assert np.std(found / truth) < 0.55 * np.std(truth)
    lost = swept(scan, INTENSITY.model_copy(update={'refine_intensity': False}))
    assert lost.exposures is None


def test_patterns_outside_the_pool_are_as_bright_as_their_totals_say():
    scan = simulate_scan(PLAIN.model_copy(update={'intensity_variation': 0.4, 'background': 3.0}))
    pool = np.setdiff1d(np.arange(49), [8, 24, 30])
    state = swept(scan, INTENSITY, pool=pool)
    corners, remainders = scan.frame.corners(scan.positions_px, 32)
    predicted = predict_counts(state.object_, state.probe, corners, remainders)
    ratio = (scan.patterns - 3.0).sum(axis=(1, 2)) / predicted.sum(axis=(1, 2))
    np.testing.assert_allclose(state.exposures.intensities[[8, 24, 30]], ratio[[8, 24, 30]])
    assert state.exposures.intensities[pool].mean() == pytest.approx(1, abs=1e-3)


# Positions


def test_slopes_are_central_differences():
    y, x = np.indices((8, 9))
    patches = (0.5 * y**2 + 3j * x)[None]
    down, right = slopes(patches)
    np.testing.assert_allclose(down[0, 1:-1], np.broadcast_to(y[1:-1], (6, 9)))
    np.testing.assert_allclose(right[0, :, 1:-1], 3j)
    assert not down[0, [0, -1]].any()
    assert not right[0, :, [0, -1]].any()


@pytest.mark.parametrize('displacement', [(0.2, 0.0), (0.0, -0.15), (-0.1, 0.2)])
def test_a_displaced_pattern_is_pulled_to_its_place(displacement):
    """Along the right direction, and not too far, from the true object and probe."""
    scan = simulate_scan(PLAIN.model_copy(update={'poisson': False}))
    object_, probe = scan.object_guess.astype(complex), scan.probe.astype(complex)
    inner = np.abs(scan.positions_px - scan.positions_px.mean(axis=0)).max(axis=1) < 10
    wrong = scan.positions_px[inner] - displacement
    corners, remainders = scan.frame.corners(wrong, 32)
    probes = shift_probe(probe, remainders)
    patches = gather_patches(object_, corners, 32)
    waves = far_field(probes * patches[:, None])
    counts = scan.patterns[inner][:, None]
    change = near_field(waves * (np.sqrt(counts / np.maximum(np.abs(waves) ** 2, 1e-9)) - 1))
    found = displacements_px(displacement_figures(patches, probes, change))
    along = found @ displacement / np.dot(displacement, displacement)
    assert 0.2 < np.median(along) < 1.1
    assert (along > 0).mean() > 0.9


def test_a_pattern_without_structure_stays():
    figures = np.array([[5.0, -3.0, 10.0, 20.0, 1.0], [1e-3, 0.0, 1e-6, 1e-6, 0.0]])
    moved = displacements_px(figures)
    h = np.array([[10.0, 1.0], [1.0, 20.0]]) + 0.01 * 7.5 * np.eye(2)
    np.testing.assert_allclose(moved[0], np.linalg.solve(h, [5.0, -3.0]), rtol=1e-5)
    assert np.abs(moved[1]).max() < 0.02


def pulled_by(refinement, displacements):
    """Let the figures ask for these displacements (n, 2)."""
    refinement.figures[:, MOMENTS : MOMENTS + 2] = displacements
    refinement.figures[:, MOMENTS + 2 : MOMENTS + 4] = 1 / (1 + module.STIFFNESS)


def test_positions_move_in_short_steps_and_not_together(refining):
    found = refining(POSITIONS)
    pulled_by(found, [[9.0, 0.1], [9, 9], [0.1, 0.1], [-0.1, -9.0], [9, 9], [0.1, 0.2]])
    assert found.correct(FIRST_POSITION_SWEEP - 1, 1.0) == 1
    np.testing.assert_array_equal(found.exposures.positions_px, GIVEN)
    assert found.correct(FIRST_POSITION_SWEEP, 0.5) == 1
    moved = found.exposures.positions_px - GIVEN
    np.testing.assert_allclose(moved[POOL].mean(axis=0), 0, atol=1e-12)
    assert not moved[[1, 4]].any()
    far = POSITION_STEP_PX
    wanted = 0.5 * np.array([[far, 0.1], [0.1, 0.1], [-0.1, -far], [0.1, 0.2]])
    np.testing.assert_allclose(moved[POOL], wanted - wanted.mean(axis=0), atol=1e-12)
    np.testing.assert_array_equal(found.exposures.intensities, 1)


def test_positions_stay_within_reach_and_on_the_canvas(refining):
    found = refining(POSITIONS, shape=(57, 58))
    pulled_by(found, [[9, 9], [0, 0], [9, 9], [9, 9], [0, 0], [-9, -9]])
    for number in range(2, 60):
        found.correct(number, 1.0)
    positions = found.exposures.positions_px
    assert np.abs(positions - GIVEN).max() <= POSITION_RANGE_PX
    assert np.abs(positions - GIVEN)[POOL].max() > 0.8 * POSITION_RANGE_PX
    low, high = 15.5, np.array([57, 58]) - 16.5
    assert (positions >= low).all()
    assert (positions <= high).all()
    assert (most_moved_px(POSITIONS), most_moved_px(INTENSITY)) == (3, 0)


def test_sweeps_find_the_positions_of_a_simulation():
    true, scan = (
        simulate_scan(PLAIN.model_copy(update={'position_error_px': error})) for error in (0, 0.8)
    )
    found = swept(scan, POSITIONS, n_sweeps=16).exposures.positions_px
    errors = [each - true.positions_px for each in (scan.positions_px, found)]
    before, after = (np.std(each - each.mean(axis=0)) for each in errors)
    assert after < 0.5 * before


def test_patterns_outside_the_pool_go_with_those_around_them(refining):
    scan = simulate_scan(PLAIN)
    pool = np.setdiff1d(np.arange(49), [8, 24, 40])
    found = Refinement(scan.frame, 32, scan.positions_px, POSITIONS, pool, None)
    middle = scan.positions_px.mean(axis=0)
    stretched = middle + (scan.positions_px - middle) * [0.97, 1.02]
    bent = np.array(stretched)
    bent[24:] += 0.5
    for places in (stretched, bent):
        known = scan.positions_px.copy()
        known[pool] = places[pool]
        found.exposures = Exposures(np.ones(49), known)
        outcome = found.outcome().positions_px
        np.testing.assert_array_equal(outcome[pool], places[pool])
        np.testing.assert_allclose(outcome[[8, 40]], places[[8, 40]], atol=0.1)
    kept = Refinement(scan.frame, 32, scan.positions_px, INTENSITY, pool, found.exposures)
    assert kept.outcome() is found.exposures


def test_what_was_found_is_where_further_sweeps_begin():
    scan = simulate_scan(PLAIN)
    config = SweepConfig(refine_probe=False)
    moved = np.clip(scan.positions_px + 0.4, None, scan.positions_px.max(axis=0))
    known = Exposures(np.linspace(0.5, 1.5, 49), moved)
    state = SweepState(scan.object_guess.astype(complex), scan.probe.astype(complex), known)
    other = replace(state, object_=state.object_.copy(), probe=state.probe.copy(), exposures=None)
    for each in (state, other):
        sweep_oracle(scan, each, config, schedule(config, 1), seed=5)
    assert state.exposures is known
    assert np.abs(state.object_ - other.object_).max() > 0.1
