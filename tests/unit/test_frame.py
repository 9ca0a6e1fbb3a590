import numpy as np
import pytest

from ptychodus_torch_plugin.errors import ScanValueError, ShapeError
from ptychodus_torch_plugin.frame import ObjectFrame, patch_corners


def centres(corners, n_px):
    return np.asarray(corners, dtype=np.float64) + (n_px - 1) / 2


@pytest.mark.parametrize('n_px', [16, 17])
def test_corner_and_remainder_give_the_position_back(n_px):
    rng = np.random.default_rng(4)
    positions = np.concatenate(
        [rng.uniform(-40, 90, size=(300, 2)), centres([[-3, 5], [0, 0]], n_px)]
    )
    positions[:50] = np.round(positions[:50] * 2) / 2  # halves, where rounding is decided
    corners, remainders = patch_corners(positions, n_px)
    assert corners.dtype == np.int64
    assert remainders.dtype == np.float64
    np.testing.assert_allclose(centres(corners, n_px) + remainders, positions, atol=1e-12)
    assert remainders.min() == -0.5
    assert -0.5 < remainders.max() < 0.5
    assert corners[-2:].tolist() == [[-3, 5], [0, 0]]
    assert not remainders[-2:].any()


@pytest.mark.parametrize(
    ('first', 'last'),
    [((0, 0), (14, 25)), ((0, 3), (9, 25)), ((14, 25), (14, 25)), ((7, 0), (7, 11))],
)
def test_the_objects_own_grid_is_kept_where_it_holds_every_patch(first, last):
    """Patches of 16 px on 30 x 41: corners up to [14, 25] fit, to the last pixel."""
    frame = ObjectFrame.around(centres([first, last], 16), 16, (30, 41))
    assert frame == ObjectFrame((0, 0), (30, 41))


@pytest.mark.parametrize(
    ('first', 'last'),
    [((-1, 0), (14, 25)), ((0, -1), (14, 25)), ((0, 0), (15, 25)), ((2, 3), (9, 26))],
)
def test_one_pixel_too_far_gives_the_smallest_canvas(first, last):
    frame = ObjectFrame.around(centres([first, last], 16), 16, (30, 41))
    assert frame.origin_px == first
    assert frame.shape == (last[0] - first[0] + 16, last[1] - first[1] + 16)


def test_the_canvas_of_negative_sub_pixel_positions():
    positions = np.array([[-20.7, 5.5], [-3.2, 11.1], [-11.0, -2.49]])
    frame = ObjectFrame.around(positions, 16)
    # First pixels are floor(position - 7.5 + 0.5): rows -28, -11, -18; columns -2, 4, -10.
    assert frame == ObjectFrame((-28, -10), (33, 30))
    corners, remainders = frame.corners(positions, 16)
    assert corners.tolist() == [[0, 8], [17, 14], [10, 0]]
    expected = [[-0.2, 0.0], [0.3, -0.4], [-0.5, 0.01]]
    np.testing.assert_allclose(remainders, expected, atol=1e-12)


def test_every_patch_is_on_its_canvas_and_touches_all_four_sides():
    rng = np.random.default_rng(11)
    for n_px in (16, 17):
        positions = rng.uniform(-50, 20, size=(40, 2)) * [1, 2]
        frame = ObjectFrame.around(positions, n_px)
        corners, _ = frame.corners(positions, n_px)
        assert corners.min(axis=0).tolist() == [0, 0]
        assert (corners.max(axis=0) + n_px).tolist() == list(frame.shape)


@pytest.mark.parametrize('corner', [(-1, 4), (4, -1), (15, 4), (4, 26)])
def test_patches_outside_the_canvas_are_refused(corner):
    frame = ObjectFrame((-6, 100), (30, 41))
    positions = centres([(0, 0), (14, 25), corner, corner], 16) + np.array([-6, 100])
    with pytest.raises(ScanValueError) as caught:
        frame.corners(positions, 16)
    message = str(caught.value)
    assert message.startswith('2 of 4 patches leave the (30, 41) px canvas, the first at index 2')
    assert f'(first pixel {list(corner)}, side 16)' in message


def test_the_centre_is_in_object_grid_pixels():
    assert ObjectFrame((-6, 100), (30, 41)).center_px() == (8.5, 120.0)


def test_no_positions_or_positions_of_another_kind():
    with pytest.raises(ScanValueError, match='positions_px is empty'):
        ObjectFrame.around(np.empty((0, 2)), 16)
    with pytest.raises(ShapeError, match=r'positions_px has shape \(5, 3\); expected \(n, 2\)'):
        ObjectFrame.around(np.zeros((5, 3)), 16)
