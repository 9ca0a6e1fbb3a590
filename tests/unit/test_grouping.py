"""Groups: who is in them, in which order, and that the same arguments give the same groups."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychodus_torch_plugin import grouping
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError, ShapeError
from ptychodus_torch_plugin.grouping import draw_groups, subsample


def scattered(n=60, seed=3):
    """Positions (n, 2) in no order, wider than high, far from zero."""
    return np.random.default_rng(seed).uniform((100, -40), (140, 50), size=(n, 2))


def nearest(positions, seed, count, pool=None):
    """The `count` nearest neighbours of a pattern, by sorting all distances."""
    pool = np.arange(len(positions)) if pool is None else pool
    others = pool[pool != seed]
    distance = np.linalg.norm(positions[others] - positions[seed], axis=1)
    return set(others[np.argsort(distance)[:count]].tolist())


def sets(groups):
    return [frozenset(members) for members in groups.indices.tolist()]


@pytest.mark.parametrize(
    ('gridsize', 'neighbor_count', 'expected'),
    [(1, None, 0), (1, 5, 0), (2, None, 4), (2, 3, 3), (2, 7, 7), (3, None, 9), (3, 20, 20)],
)
def test_a_group_is_a_seed_and_some_of_its_nearest_neighbours(gridsize, neighbor_count, expected):
    positions = scattered()
    groups = draw_groups(positions, gridsize, neighbor_count=neighbor_count)
    assert groups.indices.shape == (60, gridsize**2)
    assert groups.indices.dtype == np.int64
    assert groups.gridsize == gridsize
    seen = set()
    for seed, members in enumerate(sets(groups)):
        assert seed in members
        assert len(members) == gridsize**2
        assert members - {seed} <= nearest(positions, seed, expected)
        seen |= members - {seed} - nearest(positions, seed, expected - 1)
    # The farthest allowed neighbours are drawn as well.
    assert bool(seen) == (gridsize > 1)


def test_every_combination_of_neighbours_is_as_likely():
    positions = scattered(2000)
    left_out = np.zeros(4)
    for seed, members in enumerate(sets(draw_groups(positions, 2, seed=11))):
        order = [nearest(positions, seed, k) - nearest(positions, seed, k - 1) for k in range(1, 5)]
        left_out += [not neighbour <= members for neighbour in order]
    assert left_out.sum() == 2000
    assert np.abs(left_out - 500).max() < 5 * np.sqrt(2000 * 1 / 4 * 3 / 4)


def test_the_ranks_number_all_combinations():
    for n, k in ((5, 3), (4, 0), (6, 6), (7, 1)):
        masks = grouping._combinations(np.arange(comb(n, k)), n, k)
        found = [tuple(np.flatnonzero(mask)) for mask in masks]
        assert found == list(combinations(range(n), k))


def test_channels_lie_in_rows_and_columns():
    """Positions of a 3 x 3 group, rows further apart than columns, listed in another order."""
    y, x = np.divmod(np.arange(9), 3)
    channels = np.array([4, 8, 0, 3, 7, 1, 6, 2, 5])
    jitter = np.random.default_rng(0).uniform(-0.4, 0.4, size=(9, 2))
    for spread in (np.zeros((9, 2)), jitter):
        positions = (np.column_stack([5.0 * y, 2.0 * x]) + spread)[channels]
        groups = draw_groups(positions, 3)
        for members in groups.indices:
            assert channels[members].tolist() == list(range(9))


def test_rows_are_cut_before_columns():
    positions = np.array([[0.0, 9.0], [1.0, 0.0], [2.0, 7.0], [3.0, 1.0]])
    assert draw_groups(positions, 2).indices.tolist() == [[1, 0, 3, 2]] * 4


def test_equal_rows_are_ordered_by_column_and_equal_places_by_index():
    line = np.array([[4.0, 3.0], [4.0, 1.0], [4.0, 2.0], [4.0, 1.0]])
    assert draw_groups(line, 2).indices.tolist() == [[1, 3, 2, 0]] * 4


@pytest.mark.parametrize('gridsize', [1, 2, 3])
def test_offsets_point_from_the_centre_to_the_patterns(gridsize):
    positions = scattered()
    groups = draw_groups(positions, gridsize, neighbor_count=12)
    places = positions[groups.indices]
    assert (groups.centers_px.dtype, groups.offsets_px.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(groups.centers_px, places.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        groups.offsets_px, places - places.mean(axis=1, keepdims=True), atol=1e-5
    )
    assert groups.reach_px == np.abs(groups.offsets_px).max()
    assert (groups.reach_px > 0) == (gridsize > 1)


def test_the_same_arguments_give_the_same_groups():
    positions = scattered()
    first, again, other = (draw_groups(positions, 2, seed=seed).indices for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first[[0, 7, 31]].tolist() == [[38, 37, 0, 11], [16, 35, 21, 7], [47, 31, 12, 20]]


def test_a_seeds_group_depends_on_no_other_and_on_no_chunk(monkeypatch):
    positions = scattered()
    all_ = sets(draw_groups(positions, 2, seed=5))
    monkeypatch.setattr(grouping, 'CHUNK_GROUPS', 7)
    assert sets(draw_groups(positions, 2, seed=5)) == all_
    assert sets(draw_groups(positions, 2, seed=5, n_groups=20, sequential=True)) == all_[:20]
    assert set(sets(draw_groups(positions, 2, seed=5, n_groups=20))) < set(all_)


def test_without_a_number_every_pattern_starts_one_group():
    assert draw_groups(scattered(), 1).indices.ravel().tolist() == list(range(60))


def test_fewer_groups_start_from_different_patterns():
    seeds, others, first = (
        draw_groups(scattered(), 1, n_groups=25, seed=seed, sequential=sequential).indices.ravel()
        for seed, sequential in ((0, False), (1, False), (1, True))
    )
    for drawn in (seeds, others):
        assert (np.diff(drawn) > 0).all()
        assert drawn[-1] > 30
    assert seeds.tolist() != others.tolist()
    assert first.tolist() == list(range(25))


@pytest.mark.parametrize(('gridsize', 'neighbor_count'), [(2, 4), (2, 7), (3, 9), (3, 11)])
def test_oversampled_groups_of_a_seed_differ_until_all_are_used(gridsize, neighbor_count):
    n, most = 30, comb(neighbor_count, gridsize**2 - 1)
    n_groups = min(most, 12) * n + 7
    groups = sets(
        draw_groups(
            scattered(n),
            gridsize,
            n_groups=n_groups,
            neighbor_count=neighbor_count,
            oversample=True,
        )
    )
    rounds = [groups[i : i + n] for i in range(0, n_groups - 7, n)]
    for seed in range(n):
        of_seed = [round_[seed] for round_ in rounds]
        assert all(seed in members for members in of_seed)
        assert len(set(of_seed)) == min(most, 12)
    assert len(groups) == n_groups


def test_after_whole_rounds_the_rest_starts_from_different_patterns():
    positions = scattered(30)
    for sequential in (True, False):
        extra = draw_groups(positions, 2, n_groups=70, oversample=True, sequential=sequential)
        # The third round gives each of its seeds what a full third round would have given it.
        full = draw_groups(positions, 2, n_groups=90, oversample=True)
        rest, third = sets(extra)[60:], sets(full)[60:]
        where = [third.index(members) for members in rest]
        assert (where == list(range(10))) == sequential
        assert (np.diff(where) > 0).all()


def test_held_out_seeds_are_joined_by_the_pool():
    positions = scattered()
    pool = np.setdiff1d(np.arange(60), [3, 8, 9, 41])
    for seeds in (np.array([41, 3, 9]), np.array([41, 3, 10])):
        groups = draw_groups(positions, 2, pool=pool, seeds=seeds)
        for seed, members in zip(np.sort(seeds), sets(groups), strict=True):
            assert seed in members
            assert members - {seed} <= nearest(positions, seed, 4, pool)
    members = draw_groups(positions, 3, pool=pool).indices
    assert np.unique(members).tolist() == pool.tolist()
    assert len(members) == 56


def test_a_seed_from_outside_may_take_the_whole_pool():
    groups = draw_groups(scattered(), 2, pool=np.array([7, 2, 30]), seeds=np.array([11]))
    assert sets(groups) == [{11, 2, 7, 30}]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=4, max_size=30),
    st.integers(3, 8),
    st.integers(0, 99),
)
def test_patterns_at_one_place_are_still_different_patterns(places, neighbor_count, seed):
    positions = np.array(places, dtype=np.float64)
    groups = draw_groups(positions, 2, neighbor_count=neighbor_count, seed=seed)
    for start, members in enumerate(groups.indices):
        assert start in members
        assert len(set(members.tolist())) == 4
        (upper, lower), x = positions[members, 0].reshape(2, 2), positions[members, 1]
        assert upper.max() <= lower.min()
        assert x[0] <= x[1]
        assert x[2] <= x[3]


@pytest.mark.parametrize(
    ('gridsize', 'settings', 'error', 'words'),
    [
        (0, {}, ConfigError, ['gridsize = 0', 'at least 1']),
        (2, {'neighbor_count': 2}, ConfigError, ['neighbor_count = 2', 'at least 3', 'None for 4']),
        (8, {}, ScanValueError, ['64 patterns', 'only 59 others', 'gridsize of at most 7']),
        (2, {'pool': np.arange(3)}, ScanValueError, ['only 2 others', 'gridsize of at most 1']),
        (2, {'n_groups': 0}, ConfigError, ['n_groups = 0', 'at least 1']),
        (2, {'n_groups': 61}, ConfigError, ['n_groups = 61', 'at most 60', 'enable_oversampling']),
        (1, {'n_groups': 61, 'oversample': True}, ConfigError, ['at most 60', 'gridsize 2']),
        (
            2,
            {'n_groups': 61, 'oversample': True, 'neighbor_count': 3},
            ConfigError,
            ['one possible group', 'raise neighbor_count'],
        ),
        (2, {'pool': np.array([], dtype=np.int64)}, ScanValueError, ['pool is empty']),
        (2, {'seeds': np.array([4, 60])}, ScanValueError, ['seeds', 'from 4 to 60', '0 to 59']),
        (2, {'pool': np.arange(-1, 20)}, ScanValueError, ['pool', 'from -1 to 19']),
        (2, {'pool': np.arange(9.0)}, ShapeError, ['pool has dtype float64; expected int64']),
    ],
)
def test_impossible_groups_are_refused_with_what_would_work(gridsize, settings, error, words):
    with pytest.raises(error) as caught:
        draw_groups(scattered(), gridsize, **settings)
    for word in words:
        assert word in str(caught.value)


def test_too_many_combinations_to_count_are_refused():
    positions = scattered(200)
    with pytest.raises(ConfigError, match=r'neighbor_count = 150 .* at most 65'):
        draw_groups(positions, 6, neighbor_count=150)
    assert comb(65, 35) <= 2**62 < comb(66, 35)
    groups = draw_groups(positions, 6, neighbor_count=65, n_groups=200 * 3, oversample=True)
    for seed, members in enumerate(sets(groups)):
        assert members - {seed % 200} <= nearest(positions, seed % 200, 65)
        assert len(members) == 36


def test_positions_must_be_finite_pairs():
    broken = scattered()
    broken[7, 1] = np.nan
    with pytest.raises(ScanValueError, match=r'positions_px has 1 values that are NaN'):
        draw_groups(broken, 2)
    with pytest.raises(ShapeError, match=r'positions_px has shape \(60, 3\)'):
        draw_groups(np.zeros((60, 3)), 2)


def test_a_subsample_is_seeded_sorted_and_without_repetition():
    first, again, other = (subsample(50, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()
    for chosen in (first, other):
        assert chosen.dtype == np.int64
        assert len(chosen) == 20
        assert (np.diff(chosen) > 0).all()
        assert chosen[0] >= 0
        assert 20 < chosen[-1] < 50
    assert subsample(5, None, 3).tolist() == subsample(5, 5, 3).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('n_subsample', [0, -3, 51])
def test_an_impossible_subsample_is_refused(n_subsample):
    with pytest.raises(ConfigError, match=rf'n_subsample = {n_subsample} .* expected 1 to 50'):
        subsample(50, n_subsample, 0)
