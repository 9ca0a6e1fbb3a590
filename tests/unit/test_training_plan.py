"""What training sees, and when."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ptychodus_torch_plugin.config import TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError, TrainingError
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.training_plan import (
    LOOKS,
    PHASE_RAD,
    TURNS,
    Step,
    TrainingPlan,
    View,
    check_integer_counts,
    held_out_indices,
    thin,
)

N = 16


def raster(rows, columns, step=5.0):
    return step * np.indices((rows, columns)).reshape(2, -1).T + 40.0


def spiral(n, step=5.0):
    k = np.arange(n)
    radius, angle = step * np.sqrt(k / np.pi), np.pi * (3 - np.sqrt(5)) * k
    return 100 + np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def scan_at(positions, seed=0, name='scan'):
    rng = np.random.default_rng([seed, len(positions)])
    expected = rng.gamma(1.5, 4.0, size=(len(positions), N, N))
    return ScanData(
        patterns=rng.poisson(expected).astype(np.float32),
        positions_px=np.asarray(positions, dtype=np.float64),
        probe=np.ones((1, N, N), np.complex64),
        bad_pixels=np.zeros((N, N), dtype=bool),
        name=name,
    )


def settings(**changes):
    values = {
        'objective': 'thinned',
        'patterns_per_step': 10,
        'window_px': 40,
        'thinnings': 2,
        'thinning_fraction': 0.5,
        'held_out_fraction': 0.1,
        'seed': 3,
    }
    return TrainingConfig(**(values | changes))


@pytest.fixture
def scan():
    return scan_at(raster(8, 12))


# held_out_indices


@pytest.mark.parametrize(
    ('n', 'fraction', 'count'),
    [(400, 0.1, 40), (401, 0.1, 40), (396, 0.05, 20), (10, 0.1, 1), (9, 0.5, 4), (4, 0.1, 0)],
)
def test_the_wanted_number_of_patterns_is_held_out(n, fraction, count):
    held = held_out_indices(scan_at(spiral(n)), fraction, seed=1)
    assert held.dtype == np.int64
    assert held.shape == (count,)
    assert (np.diff(held) > 0).all()
    if count:
        assert 0 <= held[0] <= held[-1] < n


@pytest.mark.parametrize('n', [1, 2, 3, 5])
def test_tiny_scans_keep_a_pattern_to_train_on(n):
    for fraction in (0.0, 0.1, 0.5):
        for seed in range(5):
            held = held_out_indices(scan_at(spiral(n)), fraction, seed)
            assert len(held) == round(n * fraction) < n


def test_nothing_is_held_out_on_request(scan):
    held = held_out_indices(scan, 0.0, seed=1)
    assert (held.shape, held.dtype) == ((0,), np.int64)


def test_the_choice_depends_on_seed_and_positions_alone(scan):
    first = held_out_indices(scan, 0.1, seed=1)
    other_counts = replace(scan, patterns=scan.patterns + 1)
    np.testing.assert_array_equal(held_out_indices(other_counts, 0.1, seed=1), first)
    assert len({tuple(held_out_indices(scan, 0.1, seed)) for seed in range(6)}) == 6


def test_all_patterns_at_one_place_can_be_divided():
    held = held_out_indices(scan_at(np.full((20, 2), 30.0)), 0.1, seed=0)
    assert len(held) == 2


@pytest.mark.parametrize('positions', [raster(20, 20), spiral(400)], ids=['raster', 'spiral'])
@pytest.mark.parametrize('order', ['as scanned', 'shuffled'])
def test_held_out_patterns_are_spread_over_the_scan(positions, order):
    """No pattern is far from one that is held out, and no corner has more than its share."""
    rng = np.random.default_rng(8)
    if order == 'shuffled':
        positions = rng.permutation(positions)
    scan = scan_at(positions)
    spacing = 5.0 / np.sqrt(0.1)

    def largest_gap(held):
        return cKDTree(positions[held]).query(positions)[0].max() / spacing

    chosen = [held_out_indices(scan, 0.1, seed) for seed in range(12)]
    gaps = [largest_gap(held) for held in chosen]
    by_chance = [largest_gap(rng.choice(400, 40, replace=False)) for _ in range(100)]
    assert max(gaps) < 1.8
    assert np.mean(gaps) < 0.92 * np.mean(by_chance)
    quadrant = 2 * (positions[:, 0] > np.median(positions[:, 0])) + (
        positions[:, 1] > np.median(positions[:, 1])
    )
    for held in chosen:
        shares = np.bincount(quadrant[held], minlength=4) / np.bincount(quadrant)
        assert 0.05 <= shares.min() <= shares.max() <= 0.16


# check_integer_counts


def test_whole_counts_may_be_thinned(scan):
    check_integer_counts(scan)
    check_integer_counts(replace(scan, patterns=scan.patterns + np.float32(0.005)))


def test_anything_else_may_not(scan):
    patterns = scan.patterns.copy()
    patterns[5, 3, 2] += 0.25
    with pytest.raises(TrainingError) as caught:
        check_integer_counts(replace(scan, patterns=patterns, name='star'))
    message = str(caught.value)
    assert message.startswith('star: patterns are not whole counts (deviation up to 0.25)')
    assert "objective='poisson'" in message


def test_bad_pixels_may_hold_anything(scan):
    patterns, bad_pixels = scan.patterns.copy(), scan.bad_pixels.copy()
    bad_pixels[3, 2] = True
    patterns[:, 3, 2] = 0.5
    check_integer_counts(replace(scan, patterns=patterns, bad_pixels=bad_pixels))


# thin


@pytest.mark.parametrize('fraction', [0.5, 0.2])
def test_a_part_is_poisson_with_its_share(fraction):
    rng = np.random.default_rng(2)
    expected = np.full((400, N, N), 6.0)
    patterns = rng.poisson(expected).astype(np.float32)
    kept = thin(patterns, fraction, (7, 1))
    assert kept.dtype == np.float32
    assert (kept == np.rint(kept)).all()
    assert kept.min() >= 0
    assert (kept <= patterns).all()
    n = kept.size
    mean = 6 * fraction
    # Five standard errors of mean and of variance of Poisson counts.
    assert kept.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / n))
    assert kept.var() == pytest.approx(mean, abs=5 * np.sqrt((mean + 2 * mean**2) / n))
    rest = patterns - kept
    assert rest.var() == pytest.approx(6 - mean, abs=5 * np.sqrt((6 - mean) * (13 - 2 * mean) / n))


def test_the_parts_are_independent_and_those_of_a_naive_split_are_not():
    """Residuals from the expected counts: what the network could learn of the scored noise."""
    rng = np.random.default_rng(5)
    expected = rng.gamma(2.0, 4.0, size=(300, N, N))
    counts = rng.poisson(expected).astype(np.float32)

    def correlation(part):
        residuals = part - 0.5 * expected, counts - part - 0.5 * expected
        return np.corrcoef(*(residual.ravel() for residual in residuals))[0, 1]

    assert abs(correlation(thin(counts, 0.5, (1, 2)))) < 5 / np.sqrt(counts.size)
    assert correlation(np.floor(counts / 2)) > 0.9


def test_any_subset_is_thinned_alike(scan):
    whole = thin(scan.patterns, 0.5, (4, 5))
    np.testing.assert_array_equal(thin(scan.patterns[30:37], 0.5, (4, 5), first=30), whole[30:37])
    assert (thin(scan.patterns, 0.5, (4, 6)) != whole).any()
    assert (thin(scan.patterns[30:37], 0.5, (4, 5)) != whole[30:37]).any()


def test_equal_patterns_are_thinned_independently():
    twins = thin(np.full((2, N, N), 50, np.float32), 0.5, (1,))
    assert abs(np.corrcoef(twins[0].ravel(), twins[1].ravel())[0, 1]) < 0.3


def test_many_photons_and_none():
    patterns = np.zeros((1, N, N), np.float32)
    patterns[0, 4] = 3e9
    kept = thin(patterns, 0.5, (1,))
    assert not kept[0, np.arange(N) != 4].any()
    np.testing.assert_allclose(kept[0, 4], 1.5e9, rtol=1e-3)


# Views


def test_all_counts_make_one_view_per_scan(scan):
    plan = TrainingPlan([scan, scan_at(spiral(30))], settings(objective='poisson'))
    assert plan.views == [View(0), View(1)]
    assert [view.share for view in plan.views] == [1.0, 1.0]
    chosen = np.array([7, 3])
    for get in (plan.seen_counts, plan.scored_counts):
        np.testing.assert_array_equal(get(View(0)), scan.patterns)
        np.testing.assert_array_equal(get(View(0), chosen), scan.patterns[chosen])


def test_equal_parts_change_roles(scan):
    plan = TrainingPlan([scan, scan_at(spiral(30))], settings(thinnings=2))
    assert plan.views == [
        View(number, thinning, part) for number in (0, 1) for thinning in (0, 1) for part in (0, 1)
    ]
    one, other = View(0, 1, 0), View(0, 1, 1)
    np.testing.assert_array_equal(plan.seen_counts(one), plan.scored_counts(other))
    np.testing.assert_array_equal(plan.scored_counts(one), plan.seen_counts(other))
    assert one.share == other.share == 0.5


def test_unequal_parts_do_not(scan):
    plan = TrainingPlan([scan], settings(thinning_fraction=0.7))
    assert plan.views == [View(0, 0, 0, fraction=0.7), View(0, 1, 0, fraction=0.7)]
    view = plan.views[0]
    assert view.share == 0.7
    assert View(0, 0, 1, fraction=0.7).share == pytest.approx(0.3)
    share = plan.seen_counts(view).sum() / scan.patterns.sum()
    assert share == pytest.approx(0.7, abs=0.01)


def test_seen_and_scored_counts_add_up(scan):
    plan = TrainingPlan([scan], settings(thinning_fraction=0.3))
    view = plan.views[1]
    seen, scored = plan.seen_counts(view), plan.scored_counts(view)
    assert seen.dtype == scored.dtype == np.float32
    assert scored.min() >= 0
    np.testing.assert_array_equal(seen + scored, scan.patterns)
    chosen = np.array([90, 2, 41])
    np.testing.assert_array_equal(plan.seen_counts(view, chosen), seen[chosen])
    np.testing.assert_array_equal(plan.scored_counts(view, chosen), scored[chosen])


def test_every_thinning_of_every_scan_is_another_draw(scan):
    plan = TrainingPlan([scan, scan], settings(thinnings=2))
    draws = [plan.seen_counts(view) for view in plan.views]
    again = TrainingPlan([scan, scan], settings(thinnings=2))
    for view, draw in zip(again.views, draws, strict=True):
        np.testing.assert_array_equal(again.seen_counts(view), draw)
    residuals = [(draw - scan.patterns / 2).ravel() for draw in draws]
    for i in range(len(draws)):
        for j in range(i):
            partners = plan.views[i].part == 1 and i == j + 1
            correlation = np.corrcoef(residuals[i], residuals[j])[0, 1]
            assert correlation == pytest.approx(-1 if partners else 0, abs=0.05)
    other_seed = TrainingPlan([scan], settings(seed=4))
    assert (other_seed.seen_counts(View(0, 0, 0)) != draws[0]).any()


def fractions(*scans, **changes):
    views = TrainingPlan(scans, settings(**changes)).views
    return [view.fraction for view in views]


def test_a_share_may_be_drawn_for_each_thinning(scan):
    """All orders of magnitude alike: the logarithm is uniform."""
    least, most = 2e-3, 0.8
    found = fractions(scan, thinning_fraction=most, least_fraction=least, thinnings=400)
    assert len(set(found)) == 400
    assert least <= min(found) < 1.1 * least
    assert 0.9 * most < max(found) <= most
    place = np.log(np.array(found) / least) / np.log(most / least)
    # Within five standard errors of the share of each fifth.
    shares = np.histogram(place, 5, (0, 1))[0] / 400
    np.testing.assert_allclose(shares, 0.2, atol=5 * np.sqrt(0.2 * 0.8 / 400))


def test_drawn_shares_depend_on_seed_scan_and_thinning_alone(scan):
    ranged = {'thinning_fraction': 0.8, 'least_fraction': 0.01}
    found = fractions(scan, **ranged, thinnings=3)
    assert fractions(scan_at(spiral(30)), **ranged, thinnings=5)[:3] == found
    assert fractions(scan, scan, **ranged, thinnings=3)[:3] == found
    others = fractions(scan, scan, **ranged, thinnings=3)[3:]
    assert len({*found, *others, *fractions(scan, **ranged, thinnings=3, seed=4)}) == 9


@pytest.mark.parametrize('share', [0.5, 0.25])
def test_a_range_without_width_is_a_share(scan, share):
    ranged = TrainingPlan([scan], settings(thinning_fraction=share, least_fraction=share))
    assert ranged.views == TrainingPlan([scan], settings(thinning_fraction=share)).views


def test_counts_are_split_by_the_share_of_their_view(scan):
    plan = TrainingPlan([scan], settings(thinning_fraction=0.9, least_fraction=0.1, thinnings=5))
    assert len(plan.views) == 5
    for view in plan.views:
        assert view.share == view.fraction != 0.9
        seen, scored = plan.seen_counts(view), plan.scored_counts(view)
        np.testing.assert_array_equal(seen + scored, scan.patterns)
        assert seen.sum() / scan.patterns.sum() == pytest.approx(view.fraction, abs=0.01)


def test_the_other_view_has_the_other_part(scan):
    plan = TrainingPlan([scan], settings(thinning_fraction=0.3))
    view = plan.views[1]
    assert view.other == View(0, 1, 1, fraction=0.3)
    assert view.other.other == view
    assert (view.share, view.other.share) == (0.3, pytest.approx(0.7))
    np.testing.assert_array_equal(plan.seen_counts(view.other), plan.scored_counts(view))
    np.testing.assert_array_equal(plan.scored_counts(view.other), plan.seen_counts(view))


def test_objects_are_made_of_both_parts_if_they_are_compared(scan):
    def views(objective, share):
        plan = TrainingPlan([scan], settings(objective=objective, thinning_fraction=share))
        return plan.views, plan.swept_views

    for objective in ('poisson', 'thinned'):
        corrected, swept = views(objective, 0.3)
        assert swept == corrected
    corrected, swept = views('thinned-objects', 0.5)
    assert swept == corrected == [View(0, t, part) for t in (0, 1) for part in (0, 1)]
    corrected, swept = views('thinned-objects', 0.3)
    assert corrected == [View(0, t, 0, 0.3) for t in (0, 1)]
    assert swept == [View(0, t, part, 0.3) for t in (0, 1) for part in (0, 1)]


def test_one_scan_is_thinned_more_often_than_each_of_many(scan):
    def thinnings(n_scans):
        views = TrainingPlan([scan] * n_scans, settings(thinnings=None)).views
        assert {view.scan for view in views} == set(range(n_scans))
        return 1 + max(view.thinning for view in views)

    assert thinnings(1) > thinnings(20) == 1


def test_thinning_needs_whole_counts(scan):
    amplitudes = replace(scan, patterns=np.sqrt(scan.patterns), name='amplitudes')
    with pytest.raises(TrainingError, match='amplitudes: patterns are not whole counts'):
        TrainingPlan([scan, amplitudes], settings())
    TrainingPlan([scan, amplitudes], settings(objective='poisson'))


# Steps


def plan_of(*scans, **changes):
    return TrainingPlan(scans, settings(**changes))


@pytest.fixture
def two_scans():
    """Canvases of 51 x 71 and about 112 x 112 pixels."""
    return scan_at(raster(8, 12)), scan_at(spiral(290))


def test_windows_lie_on_the_canvas_and_patterns_in_the_window(two_scans):
    plan = plan_of(*two_scans, window_px=40)
    for scan_number in (0, 1):
        assert plan.window_shape(scan_number) == (40, 40)
    for epoch in range(3):
        for step in plan.steps(epoch):
            scan = two_scans[plan.views[step.view].scan]
            corners, _ = scan.frame.corners(scan.positions_px, N)
            first, inside = np.array(step.window), corners[step.patterns]
            assert (first >= 0).all()
            assert (first + 40 <= scan.frame.shape).all()
            assert (inside >= first).all()
            assert (inside + N <= first + 40).all()
            assert 1 <= len(step.patterns) <= 10
            assert (np.diff(step.patterns) > 0).all()


def test_patterns_that_may_move_stay_in_their_window(two_scans):
    """Only the canvas, which they never leave, may be nearer than they move."""
    plan = TrainingPlan(two_scans, settings(window_px=N), moving_px=3)
    assert plan.window_px == N + 6
    for step in plan.steps(0):
        scan = two_scans[plan.views[step.view].scan]
        corners, _ = scan.frame.corners(scan.positions_px, scan.n_px)
        first, span = np.array(step.window), plan.window_shape(plan.views[step.view].scan)
        lowest, highest = first + 3, first + span - scan.n_px - 3
        inside = corners[step.patterns]
        assert len(inside)
        assert ((inside >= lowest) | (first == 0)).all()
        assert ((inside <= highest) | (first + span == scan.frame.shape)).all()


def test_a_window_never_exceeds_the_canvas(two_scans):
    plan = plan_of(*two_scans, window_px=60, patterns_per_step=96)
    height, width = two_scans[0].frame.shape
    assert height < 60 < width
    assert plan.window_shape(0) == (height, 60)
    assert plan.window_shape(1) == (60, 60)
    windows = {step.window for step in plan.steps(0) if plan.views[step.view].scan == 0}
    assert {y for y, _ in windows} == {0}
    whole = plan_of(two_scans[0], window_px=500, patterns_per_step=96)
    assert whole.window_shape(0) == (height, width)
    assert {step.window for step in whole.steps(0)} == {(0, 0)}


def test_the_smallest_window_holds_one_pattern(scan):
    for epoch in range(3):
        for step in plan_of(scan, window_px=N).steps(epoch):
            corners, _ = scan.frame.corners(scan.positions_px, N)
            assert corners[step.patterns].tolist() == [list(step.window)] * len(step.patterns)
            assert len(step.patterns) == 1


def test_a_window_smaller_than_a_pattern_is_refused(scan):
    with pytest.raises(ConfigError, match='window_px = 15 has no room for a pattern of 16 px'):
        plan_of(scan, window_px=15)


def test_the_usual_window_holds_two_patterns_side_by_side(scan):
    assert plan_of(scan, window_px=None).window_px >= 2 * N
    large = ScanData(
        patterns=np.ones((1, 256, 256), np.float32),
        positions_px=np.zeros((1, 2)),
        probe=np.ones((1, 256, 256), np.complex64),
        bad_pixels=np.zeros((256, 256), dtype=bool),
    )
    assert plan_of(large, window_px=None).window_px == 512


def test_held_out_patterns_are_never_scored_and_all_others_are(two_scans):
    plan = plan_of(*two_scans, held_out_fraction=0.2, patterns_per_step=20, thinnings=1)
    scored = [set(), set()]
    for epoch in range(25):
        for step in plan.steps(epoch):
            scored[plan.views[step.view].scan].update(step.patterns.tolist())
    for number, scan in enumerate(two_scans):
        held = held_out_indices(scan, 0.2, seed=3)
        np.testing.assert_array_equal(plan.held_out[number], held)
        assert len(held) == round(0.2 * scan.n_patterns)
        assert scored[number] == set(range(scan.n_patterns)) - set(held.tolist())
        assert scored[number] == set(plan.pools[number].tolist())


@pytest.mark.parametrize('per_step', [1, 10, 37, 1000])
def test_an_epoch_visits_each_view_about_once_per_pattern(two_scans, per_step):
    plan = plan_of(*two_scans, patterns_per_step=per_step)
    visits = np.bincount([step.view for step in plan.steps(4)], minlength=len(plan.views))
    for view, count in zip(plan.views, visits, strict=True):
        assert count == max(1, round(len(plan.pools[view.scan]) / per_step))


@pytest.mark.parametrize('window_px', [16, 40, 60, 500])
def test_an_epoch_looks_at_each_pixel_of_compared_objects_so_often(two_scans, window_px):
    changes = {'objective': 'thinned-objects', 'window_px': window_px}
    plan = plan_of(*two_scans, **changes)
    visits = np.bincount([step.view for step in plan.steps(4)], minlength=len(plan.views))
    for view, count in zip(plan.views, visits, strict=True):
        canvas = np.prod(two_scans[view.scan].frame.shape)
        window = np.prod(plan.window_shape(view.scan))
        assert count * window == pytest.approx(LOOKS * canvas, abs=0.5 * window)
        assert count == LOOKS or window < canvas
    # How many patterns lie there changes nothing.
    assert len(plan_of(*two_scans, **changes, patterns_per_step=1).steps(4)) == visits.sum()


def test_compared_objects_are_turned_and_drift_in_phase(scan):
    plan = plan_of(scan, objective='thinned-objects', window_px=N)
    steps = [step for epoch in range(4) for step in plan.steps(epoch)]
    turns = np.bincount([step.turn for step in steps])
    assert len(turns) == TURNS == 8
    n = len(steps)
    np.testing.assert_allclose(turns / n, 1 / 8, atol=5 * np.sqrt(1 / 8 * 7 / 8 / n))
    phases = np.array([step.phase_rad for step in steps])
    assert phases.mean() == pytest.approx(0, abs=5 * PHASE_RAD / np.sqrt(n))
    assert phases.std() == pytest.approx(PHASE_RAD, rel=5 / np.sqrt(2 * n))


@pytest.mark.parametrize('objective', ['thinned', 'poisson'])
def test_windows_with_patterns_are_not(scan, objective):
    """A detector would have to be turned with them."""
    steps = plan_of(scan, objective=objective).steps(0)
    assert {(step.turn, step.phase_rad) for step in steps} == {(0, 0.0)}


def test_views_take_turns_in_random_order(scan):
    order = [step.view for step in plan_of(scan).steps(0)]
    assert order != sorted(order)


def same(one: list[Step], other: list[Step]) -> bool:
    def values(step: Step) -> list[object]:
        return [np.asarray(value).tolist() for value in vars(step).values()]

    return [values(step) for step in one] == [values(step) for step in other]


@pytest.mark.parametrize('objective', ['thinned', 'thinned-objects'])
def test_the_steps_of_an_epoch_depend_on_seed_and_epoch_alone(two_scans, objective):
    plan, again = (plan_of(*two_scans, objective=objective) for _ in range(2))
    later = again.steps(7)
    again.steps(2)
    assert same(plan.steps(7), later)
    assert same(plan.steps(7), plan.steps(7))
    assert not same(plan.steps(6), later)
    assert not same(plan_of(*two_scans, objective=objective, seed=4).steps(7), later)
