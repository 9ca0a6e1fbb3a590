"""Every rank takes as many steps, and together they see each sample once."""

from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig
from ptychodus_torch_plugin.group_plan import GroupPlan
from ptychodus_torch_plugin.sharding import ALONE, Shard
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.training_plan import TrainingPlan


@pytest.fixture(scope='module')
def scan():
    return simulate_scan(SimulationConfig(N=64, n_positions=25, photons=1e4, seed=2))


def shards(count):
    return [Shard(index, count) for index in range(count)]


@pytest.mark.parametrize('count', [1, 2, 3, 7])
@pytest.mark.parametrize('n', [1, 2, 6, 7, 20])
def test_rows_are_dealt_out_in_order_and_evenly(n, count):
    rows = [np.arange(n)[shard.rows(n)] for shard in shards(count)]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(n))
    sizes = [len(each) for each in rows]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize('count', [1, 2, 3, 7])
@pytest.mark.parametrize('n', [1, 2, 6, 7, 20])
def test_weighted_means_of_all_ranks_are_the_mean(n, count):
    values = np.random.default_rng(0).normal(size=n)
    means = [
        shard.weight(n) * values[shard.rows(n)].mean() if shard.weight(n) else 0.0
        for shard in shards(count)
    ]
    assert np.mean(means) == pytest.approx(values.mean())


@pytest.mark.parametrize(('n', 'count'), [(6, 2), (7, 2), (1, 3), (5, 3)])
def test_steps_are_dealt_out_one_by_one(n, count):
    dealt = [shard.dealt(range(n)) for shard in shards(count)]
    assert {len(each) for each in dealt} == {-(-n // count)}
    counted = sorted(item for each in dealt for item, weight in each if weight)
    assert counted == list(range(n))
    assert {weight for each in dealt for _, weight in each} <= {0.0, 1.0}


def plans(scan, count, **changes):
    model = ModelConfig(architecture='cnn', N=64, gridsize=2)
    config = TrainingConfig(held_out_fraction=0.2, seed=3, **changes).for_model(model)
    return [GroupPlan([scan, scan], model, config, shard) for shard in shards(count)]


@pytest.mark.parametrize(('count', 'size'), [(2, 4), (2, 3), (3, 4), (4, 1), (3, 19)])
def test_joined_batches_are_those_of_one_process(scan, count, size):
    """With 20 groups in each of two scans; all three kinds of remainders."""
    [whole] = plans(scan, 1, batch_size=size * count)
    shared = plans(scan, count, batch_size=size)
    for kind in (lambda plan: plan.batches(1), lambda plan: plan.validation_batches()):
        expected = kind(whole)
        parts = [kind(plan) for plan in shared]
        assert {len(each) for each in parts} == {len(expected)}
        for joint, *own in zip(expected, *parts, strict=True):
            real = [part for part in own if part.weight]
            for name in ('indices', 'offsets_px', 'scored'):
                joined = np.concatenate([getattr(part, name) for part in real])
                np.testing.assert_array_equal(joined, getattr(joint, name))
            assert {part.scan for part in own} == {joint.scan}
            assert all(len(part.indices) for part in own)
            assert sum(part.n_scored for part in own) == joint.n_scored
            for part in real:
                assert part.weight == pytest.approx(count * len(part.indices) / len(joint.indices))


@pytest.mark.parametrize(
    'changes',
    [{'objective': 'poisson'}, {'objective': 'thinned-objects', 'thinnings': 1}],
    ids=['poisson', 'objects'],
)
def test_steps_of_all_ranks_are_those_of_one_process(scan, changes):
    config = TrainingConfig(
        held_out_fraction=0.0, patterns_per_step=5, window_px=107, least_fraction=0.4, **changes
    )
    expected = TrainingPlan([scan], config, ALONE).steps(2)
    assert len(expected) == 5
    shared = [TrainingPlan([scan], config, shard).steps(2) for shard in shards(2)]
    assert [len(each) for each in shared] == [3, 3]
    dealt = [step for pair in zip(*shared, strict=True) for step in pair]
    assert dealt[-1].weight == 0
    for step, other in zip(expected, dealt, strict=False):
        np.testing.assert_array_equal(step.patterns, other.patterns)
        assert replace(step, patterns=None) == replace(other, patterns=None)
