"""Which groups of patterns train and validate, and when."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError, TrainingError
from ptychodus_torch_plugin.group_plan import GroupPlan
from ptychodus_torch_plugin.scan import ScanData

N = 64


def positions_of(rows=8, columns=8, seed=0):
    """A jittered raster, sub-pixel, off the centre of anything."""
    raster = 6.0 * np.indices((rows, columns)).reshape(2, -1).T
    jitter = np.random.default_rng([seed, rows, columns]).uniform(-1.5, 1.5, size=raster.shape)
    return raster + jitter + [41.2, 37.9]


def scan_at(positions, seed=0, name='scan'):
    """Patterns that differ, and an object that says where its pixels are: y + ix."""
    rng = np.random.default_rng([seed, len(positions)])
    y, x = np.indices((131, 118))
    return ScanData(
        patterns=rng.poisson(2.0, size=(len(positions), N, N)).astype(np.float32),
        positions_px=np.asarray(positions, dtype=np.float64),
        probe=np.ones((1, N, N), np.complex64),
        bad_pixels=np.zeros((N, N), dtype=bool),
        object_guess=(y + 1j * x).astype(np.complex64),
        name=name,
    )


@pytest.fixture(scope='module')
def scan():
    """64 patterns; every tenth of them makes 6."""
    return scan_at(positions_of())


def plan_of(*scans, gridsize=2, model_type='pinn', **changes):
    model = ModelConfig(architecture='cnn', gridsize=gridsize, model_type=model_type)
    values = {'batch_size': 5, 'held_out_fraction': 0.1, 'seed': 3} | changes
    return GroupPlan(scans, model, TrainingConfig(**values).for_model(model))


def members(batches):
    return {index for batch in batches for index in batch.indices.ravel().tolist()}


def rows(batches):
    """Return the groups of batches as (scan, pattern, pattern, ...)."""
    return [(batch.scan, *group) for batch in batches for group in batch.indices.tolist()]


# Held-out patterns


@pytest.mark.parametrize('gridsize', [1, 2])
def test_held_out_patterns_train_nothing_and_all_others_do(scan, gridsize):
    plan = plan_of(scan, gridsize=gridsize)
    (held,) = plan.held_out
    assert plan.validated
    assert (held.dtype, len(held)) == (np.int64, 6)
    for epoch in range(3):
        assert members(plan.batches(epoch)) == set(range(64)) - set(held.tolist())


def test_they_are_spread_over_the_scan():
    """None is far from any pattern: 400 patterns have 40 squares of 19 pixels."""
    positions = positions_of(20, 20)
    for seed in range(5):
        held = plan_of(scan_at(positions), seed=seed).held_out[0]
        distances = cKDTree(positions[held]).query(positions)[0]
        assert len(held) == 40
        assert distances.max() < 1.8 * 6 / np.sqrt(0.1)


@pytest.mark.parametrize('gridsize', [1, 2])
def test_validation_starts_from_them_and_scores_nothing_else(scan, gridsize):
    plan = plan_of(scan, gridsize=gridsize)
    held, batches = set(plan.held_out[0].tolist()), plan.validation_batches()
    assert sum(len(batch.indices) for batch in batches) == 6
    for batch in batches:
        np.testing.assert_array_equal(batch.scored, np.isin(batch.indices, list(held)))
        assert batch.scored.any(axis=1).all()
    scored = [batch.indices[batch.scored] for batch in batches]
    assert set(np.concatenate(scored).tolist()) == held
    assert (members(batches) == held) == (gridsize == 1)


def test_training_scores_every_pattern_of_a_group(scan):
    batches = plan_of(scan).batches(0)
    assert {batch.scored.shape[1] for batch in batches} == {4}
    assert all(batch.scored.all() and batch.scored.dtype == bool for batch in batches)


def test_nothing_needs_to_be_held_out(scan):
    plan = plan_of(scan, held_out_fraction=0.0)
    assert not plan.validated
    assert plan.validation_batches() == []
    assert members(plan.batches(0)) == set(range(64))


# How many groups


@pytest.mark.parametrize(
    ('changes', 'training', 'validation'),
    [
        ({}, 58, 6),
        ({'n_groups': 64}, 58, 6),
        ({'n_groups': 32}, 29, 3),
        ({'n_groups': 1}, 1, 0),
        ({'n_groups': 2}, 1, 1),
        ({'n_groups': 10, 'held_out_fraction': 0.0}, 10, 0),
        ({'n_groups': 640, 'enable_oversampling': True}, 634, 6),
    ],
)
def test_groups_that_validate_count_as_well(scan, changes, training, validation):
    plan = plan_of(scan, **changes)
    assert len(rows(plan.batches(0))) == training
    assert len(rows(plan.validation_batches())) == validation


def test_more_groups_than_patterns_are_refused_unless_asked_for(scan):
    with pytest.raises(ScanValueError) as caught:
        plan_of(replace(scan, name='star'), n_groups=65)
    for words in ('star: n_groups = 65', 'at most 64', 'enable_oversampling = True'):
        assert words in str(caught.value)
    with pytest.raises(ScanValueError, match='n_groups = 41, but there are 40 patterns'):
        plan_of(scan, n_groups=41, n_subsample=40)
    with pytest.raises(ConfigError, match='one possible group alone: raise neighbor_count'):
        plan_of(scan, n_groups=65, gridsize=1, enable_oversampling=True)


def test_a_subsample_is_all_that_training_and_validation_see(scan):
    plan = plan_of(scan, n_subsample=40)
    held, trained = set(plan.held_out[0].tolist()), members(plan.batches(0))
    validated = members(plan.validation_batches())
    assert held
    assert not trained & held
    assert len(trained | validated) == 40
    assert members(plan.batches(1)) == trained
    other = plan_of(scan, n_subsample=40, seed=4)
    assert members(other.batches(0)) != trained
    with pytest.raises(ConfigError, match='n_subsample = 65 of 64 patterns'):
        plan_of(scan, n_subsample=65)


def test_groups_may_start_from_the_first_patterns(scan):
    free = np.setdiff1d(np.arange(64), plan_of(scan).held_out[0])

    def seeds(sequential):
        plan = plan_of(scan, gridsize=1, n_groups=20, sequential_sampling=sequential)
        return sorted(members(plan.batches(0)))

    assert seeds(sequential=True) == free[:18].tolist()
    assert seeds(sequential=False) != free[:18].tolist()


def test_neighbours_come_from_the_wanted_number_of_nearest_ones(scan):
    """With K = 3 a group of four is a pattern and its three nearest that train."""
    plan = plan_of(scan, neighbor_count=3)
    pool = np.setdiff1d(np.arange(64), plan.held_out[0])
    places = scan.positions_px[pool]
    nearest = pool[cKDTree(places).query(places, k=4)[1]]
    expected = sorted(sorted(group) for group in nearest.tolist())
    assert sorted(sorted(group) for _, *group in rows(plan.batches(0))) == expected


# Batches


def test_every_group_comes_once_an_epoch_in_another_order(scan):
    plan = plan_of(scan)
    epochs = [rows(plan.batches(epoch)) for epoch in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(sorted(epochs[0]))}
    assert epochs[0] != sorted(epochs[0])
    assert sorted(len(batch.indices) for batch in plan.batches(0)) == [3] + [5] * 11


def test_a_batch_is_of_one_scan_and_all_scans_are_visited(scan):
    other = scan_at(positions_of(5, 7, seed=1), seed=1)
    plan = plan_of(scan, other)
    assert [len(held) for held in plan.held_out] == [6, 4]
    order = [batch.scan for batch in plan.batches(0)]
    assert (order.count(0), order.count(1)) == (12, 7)
    assert order != sorted(order)
    assert [batch.scan for batch in plan.validation_batches()] == [0, 0, 1]
    for batch in (*plan.batches(2), *plan.validation_batches()):
        one = (scan, other)[batch.scan]
        places = one.positions_px[batch.indices]
        assert batch.offsets_px.dtype == np.float32
        np.testing.assert_allclose(
            batch.offsets_px, places - places.mean(axis=1, keepdims=True), atol=1e-5
        )
        np.testing.assert_array_equal(plan.counts(batch), one.patterns[batch.indices])


def digest(plan, epochs):
    """Return a sha256 of the batches of some epochs, sorted by epoch, and of validation."""
    drawn = {epoch: plan.batches(epoch) for epoch in epochs}
    text = hashlib.sha256()
    for batches in (*(drawn[epoch] for epoch in sorted(drawn)), plan.validation_batches()):
        for batch in batches:
            text.update(repr((batch.scan, batch.indices.tolist())).encode())
            text.update(batch.offsets_px.tobytes() + batch.scored.tobytes())
    return text.hexdigest()


def some_plan(seed=3):
    scans = scan_at(positions_of()), scan_at(positions_of(5, 7))
    return plan_of(*scans, n_subsample=33, n_groups=20, neighbor_count=7, seed=seed)


def test_batches_depend_on_the_seed_alone():
    """Not on the process, nor on the order in which epochs are asked for."""
    here = digest(some_plan(), (0, 1, 2))
    elsewhere = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=True
    )
    assert elsewhere.stdout == here
    assert digest(some_plan(seed=4), (0, 1, 2)) != here


# The known object


def whole(positions):
    """Move positions so that patches start at whole pixels: N is even."""
    return np.floor(positions) + 0.5


def test_the_truth_is_the_object_around_every_pattern(scan):
    at_pixels = replace(scan, positions_px=whole(scan.positions_px))
    plan = plan_of(at_pixels, realspace_mae_weight=0.5)
    for batch in (*plan.batches(0), *plan.validation_batches()):
        truth = plan.truth(batch)
        assert (truth.dtype, truth.shape) == (np.complex64, (*batch.indices.shape, N, N))
        for patches, group in zip(truth, batch.indices, strict=True):
            for patch, index in zip(patches, group, strict=True):
                y, x = (at_pixels.positions_px[index] - (N - 1) / 2).astype(int)
                expected = scan.object_guess[y : y + N, x : x + N]
                np.testing.assert_array_equal(patch, expected)


def test_the_truth_lies_at_the_true_position(scan):
    """The object is y + ix, so the mean of a patch is its position."""
    plan = plan_of(scan, model_type='supervised')
    batch = plan.batches(0)[0]
    mean = plan.truth(batch).mean(axis=(2, 3), dtype=complex)
    np.testing.assert_allclose(mean, scan.positions_px[batch.indices] @ [1, 1j], atol=1e-4)


@pytest.mark.parametrize('changes', [{'model_type': 'supervised'}, {'realspace_mae_weight': 0.1}])
def test_labels_need_an_object_that_covers_the_scan(scan, changes):
    unknown = replace(scan, object_guess=None, name='blind')
    with pytest.raises(TrainingError, match=r"blind has no known object, .* model_type = 'pinn'"):
        plan_of(scan, unknown, **changes)
    small = replace(scan, object_guess=scan.object_guess[:, :-9], name='small')
    with pytest.raises(TrainingError) as caught:
        plan_of(small, **changes)
    for words in ('small: the known object of 131 x 109 px', f'{small.frame.shape} px from pixel'):
        assert words in str(caught.value)


def test_physics_needs_no_object(scan):
    plan = plan_of(replace(scan, object_guess=None))
    assert len(plan.batches(0)) == 12


# Reach


def test_patterns_of_a_group_must_have_to_do_with_each_other(scan):
    positions = scan.positions_px.copy()
    positions[9, 1] += 400
    stray = replace(scan, positions_px=positions, object_guess=None, name='stray')
    with pytest.raises(ScanValueError) as caught:
        plan_of(stray)
    for words in ('stray: ', 'sees only 64 px', 'within 128 px', 'gridsize = 1'):
        assert words in str(caught.value)
    assert len(rows(plan_of(stray, gridsize=1).batches(0))) == 58
    positions[9, 1] -= 300
    plan_of(replace(stray, positions_px=positions))


if __name__ == '__main__':
    sys.stdout.write(digest(some_plan(), (2, 0, 1)))
