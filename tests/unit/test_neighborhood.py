"""A walk through a scan, and what is asked along it."""

import numpy as np
import pytest

from ptychodus_torch_plugin.neighborhood import Neighborhood, walk


def shuffled_raster(side=60, pitch_px=7.0):
    """Positions (n, 2) of a jittered raster in random order."""
    rng = np.random.default_rng(4)
    places = np.stack(np.divmod(np.arange(side**2), side), axis=1) * pitch_px
    return rng.permutation(places + rng.uniform(-1, 1, places.shape))


def step_px(positions):
    return np.linalg.norm(np.diff(positions, axis=0), axis=1)


def test_a_walk_visits_all_patterns_once_and_mostly_steps_to_a_neighbour():
    positions = shuffled_raster()
    order = walk(positions)
    assert sorted(order.tolist()) == list(range(len(positions)))
    assert np.median(step_px(positions)) > 100
    assert np.median(step_px(positions[order])) < 20


@pytest.mark.parametrize(
    'positions',
    [
        np.zeros((5, 2)),
        np.full((1, 2), -3.5),
        np.array([[0.0, 0.0], [5e-324, 0.0]]),
        np.array([[0.0, 1e300], [3.0, -1e300], [4.0, 0.0]]),
    ],
    ids=['one place', 'one pattern', 'least extent', 'strays'],
)
def test_any_positions_can_be_walked(positions):
    assert sorted(walk(positions).tolist()) == list(range(len(positions)))


@pytest.mark.parametrize('digits', [0, 9], ids=['equal coordinates', 'all different'])
def test_spatial_order_is_by_y_then_x_then_index(digits):
    rng = np.random.default_rng(7)
    positions = np.round(rng.uniform(0, 3, size=(40, 2)), digits)
    members = np.array([rng.choice(40, 9, replace=False) for _ in range(50)])
    found = Neighborhood(positions, np.arange(40)).in_spatial_order(members, 3)
    for group, ordered in zip(members.tolist(), found.tolist(), strict=True):
        down = sorted(group, key=lambda i: (*positions[i], i))
        rows = [sorted(down[k : k + 3], key=lambda i: (*positions[i, ::-1], i)) for k in (0, 3, 6)]
        assert ordered == np.concatenate(rows).tolist()
