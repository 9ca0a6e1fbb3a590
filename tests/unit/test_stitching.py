"""Patches on a canvas and back, against dense matrices of bilinear weights."""

import tracemalloc

import numpy as np
import pytest

from ptychodus_torch_plugin import stitching
from ptychodus_torch_plugin.errors import ScanValueError, ShapeError
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.stitching import (
    Canvas,
    canvas_px,
    merge_group,
    probe_weight,
    read_group,
    read_patches,
    stitch,
    uniform_weight,
)

N = 6
FRAME = ObjectFrame((-4, 30), (19, 26))


def noise(*shape, seed=1):
    parts = np.random.default_rng(seed).normal(size=(*shape, 2)).astype(np.float32)
    return parts.view(np.complex64)[..., 0]


def weight_of(n_px=N):
    return np.random.default_rng(8).uniform(0.2, 3, size=(n_px, n_px)).astype(np.float32)


def places(n_px=N, frame=FRAME, n=12, beyond=0.0):
    """Random centres of patches inside the frame, or up to `beyond` a pixel outside."""
    margin = (n_px - 1) / 2 - beyond
    low = np.add(frame.origin_px, margin)
    high = np.add(frame.origin_px, frame.shape) - 1 - margin
    inside = np.random.default_rng(2).uniform(low, high, size=(n, 2))
    inside[:2] = low, high
    return inside


def hats(centre, first, length, n_px):
    """Bilinear weights (length, N) of patch pixels on canvas pixels, along one axis."""
    canvas = first + np.arange(length)
    patch = centre + np.arange(n_px) - (n_px - 1) / 2
    return np.maximum(0, 1 - np.abs(canvas[:, None] - patch))


def matrices(position, frame, n_px):
    return [hats(*axis, n_px) for axis in zip(position, frame.origin_px, frame.shape, strict=True)]


def dense(patches, positions, frame, weight):
    """Return the sum of weighted patches, and of weights, by matrix products."""
    total, coverage = np.zeros(frame.shape, dtype=complex), np.zeros(frame.shape)
    for patch, position in zip(patches, positions, strict=True):
        rows, columns = matrices(position, frame, len(weight))
        total += rows @ (weight * patch) @ columns.T
        coverage += rows @ weight @ columns.T
    return total, coverage


# Placing


@pytest.mark.parametrize('n_px', [6, 7])
@pytest.mark.parametrize('beyond', [0.0, 0.499])
def test_stitching_is_the_weighted_mean_of_bilinear_patches(n_px, beyond):
    positions, weight = places(n_px, beyond=beyond), weight_of(n_px)
    patches = noise(12, n_px, n_px)
    object_, coverage = stitch(patches, positions, FRAME, weight)
    total, expected = dense(patches, positions, FRAME, weight)
    assert (object_.dtype, coverage.dtype) == (np.complex64, np.float32)
    np.testing.assert_allclose(coverage, expected, atol=1e-5)
    assert (coverage == 0).any()
    covered = expected > 0
    wanted = np.divide(total, expected, out=np.zeros_like(total), where=covered)
    np.testing.assert_allclose(object_, wanted, atol=2e-4)
    assert not object_[~covered].any()


def test_a_spot_lands_where_the_position_says():
    spot = np.zeros((1, N, N), dtype=np.complex64)
    spot[0, 1, 4] = 2 - 1j
    # Pixel [1, 4] is (-1.5, 1.5) from the patch's centre: at [3.25, 40.5], canvas [7.25, 10.5].
    object_, coverage = stitch(spot, np.array([[4.75, 39.0]]), FRAME, uniform_weight(N))
    landed = object_ * coverage
    shares = {(7, 10): 0.375, (7, 11): 0.375, (8, 10): 0.125, (8, 11): 0.125}
    for pixel, share in shares.items():
        assert landed[pixel] == pytest.approx(share * (2 - 1j), rel=1e-6)
        landed[pixel] = 0
    assert not landed.any()


@pytest.mark.parametrize('n_px', [6, 7])
def test_whole_pixels_give_the_object_back(n_px):
    object_ = noise(*FRAME.shape)
    positions = np.floor(places(n_px)) + (n_px - 1) / 2 % 1
    patches = read_patches(object_, positions, n_px, FRAME)
    stitched, coverage = stitch(patches, positions, FRAME, weight_of(n_px))
    seen = coverage > 0
    assert 0.3 < seen.mean() < 1
    np.testing.assert_allclose(stitched[seen], object_[seen], rtol=1e-6)
    for patch, position in zip(patches, positions, strict=True):
        y, x = (position - FRAME.origin_px - (n_px - 1) / 2).astype(int)
        np.testing.assert_array_equal(patch, object_[y : y + n_px, x : x + n_px])


def test_a_constant_stays_what_it_is():
    patches = np.full((12, N, N), 0.7 - 0.4j, dtype=np.complex64)
    object_, coverage = stitch(patches, places(), FRAME, weight_of())
    np.testing.assert_allclose(object_[coverage > 0], 0.7 - 0.4j, rtol=3e-7)


def test_patches_may_come_in_any_batches(monkeypatch):
    patches, positions = noise(12, N, N), places()
    expected = stitch(patches, positions, FRAME, weight_of())
    monkeypatch.setattr(stitching, 'CHUNK_VALUES', 2 * N**2)
    canvas = Canvas(FRAME, weight_of())
    for part in (slice(5, 12), slice(0, 0), slice(0, 5)):
        canvas.add(patches[part], positions[part])
        canvas.finish()
    for found, wanted in zip(canvas.finish(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_array_equal(
        read_patches(expected[0], positions, N, FRAME),
        np.concatenate([read_patches(expected[0], p[None], N, FRAME) for p in positions]),
    )


def test_arrays_may_lie_in_memory_in_any_order():
    patches, weight = noise(12, N, N), np.asfortranarray(weight_of())
    expected = stitch(patches, places(), FRAME, weight_of())
    strided = np.repeat(patches, 2, axis=2)[:, :, ::2]
    for other in (np.asfortranarray(patches), strided):
        for found, wanted in zip(stitch(other, places(), FRAME, weight), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    for beyond in (0.0, 0.499):
        read = read_patches(expected[0], places(beyond=beyond), N, FRAME)
        other = read_patches(np.asfortranarray(expected[0]), places(beyond=beyond), N, FRAME)
        np.testing.assert_array_equal(other, read)


def test_thousands_of_patches_at_one_place_lose_no_digits():
    canvas = Canvas(FRAME, weight_of())
    patches = np.full((500, N, N), 0.3 + 0.1j, dtype=np.complex64)
    for _ in range(20):
        canvas.add(patches, np.repeat(places()[3:4], 500, axis=0))
    object_, coverage = canvas.finish()
    np.testing.assert_allclose(object_[coverage > 0], 0.3 + 0.1j, rtol=3e-7)


def test_nothing_is_invented_where_nobody_looked():
    weight = weight_of()
    weight[:, 4:] = 0
    weight[:2, :] = 1e-9
    positions = np.array([[5.5, 40.5], [8.5, 44.5]])
    object_, coverage = stitch(noise(2, N, N), positions, FRAME, weight)
    expected = np.zeros(FRAME.shape, dtype=bool)
    for y, x in (positions - FRAME.origin_px - (N - 1) / 2).astype(int):
        expected[y + 2 : y + N, x : x + 4] = True
    np.testing.assert_array_equal(coverage > 0, expected)
    np.testing.assert_array_equal(object_ != 0, expected)
    for empty in Canvas(FRAME, weight).finish():
        assert empty.shape == FRAME.shape
        assert not empty.any()


# Reading


@pytest.mark.parametrize('n_px', [6, 7])
def test_reading_is_bilinear_at_the_true_positions(n_px):
    y, x = np.indices(FRAME.shape)
    plane = ((y - 4) + 1j * (x + 30)).astype(np.complex64)
    positions = places(n_px)
    offsets = np.arange(n_px) - (n_px - 1) / 2
    expected = (positions[:, 0, None] + offsets)[:, :, None] + 1j * (
        positions[:, 1, None] + offsets
    )[:, None, :]
    patches = read_patches(plane, positions, n_px, FRAME)
    assert patches.dtype == np.complex64
    np.testing.assert_allclose(patches, expected, atol=2e-5)


def test_the_rim_is_read_for_half_a_pixel_beyond_it():
    positions, object_ = places(beyond=0.499), noise(*FRAME.shape)
    around = ObjectFrame((-6, 28), (23, 30))
    padded = np.pad(object_, 2, mode='edge')
    expected = [
        rows.T @ padded @ columns
        for rows, columns in (matrices(position, around, N) for position in positions)
    ]
    np.testing.assert_allclose(read_patches(object_, positions, N, FRAME), expected, atol=1e-5)


def test_reading_is_the_adjoint_of_placing():
    patches, object_, weight = noise(12, N, N), noise(*FRAME.shape, seed=4), weight_of()
    stitched, coverage = stitch(patches, places(), FRAME, weight)
    there = np.vdot(object_, stitched * coverage)
    back = np.vdot(read_patches(object_, places(), N, FRAME), weight * patches)
    assert there == pytest.approx(back, rel=1e-5)


def test_reading_a_few_patches_copies_no_object():
    object_ = noise(1500, 1500)
    frame, positions = ObjectFrame((0, 0), object_.shape), np.array([[700.3, 2.5], [9.1, 1400.0]])
    tracemalloc.start()
    read_patches(object_, positions, N, frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < object_.nbytes / 50


# Weights


def test_the_probes_weight_is_its_total_intensity():
    probe = np.zeros((2, 3, 3), dtype=np.complex64)
    probe[0, 0, 1], probe[1, 0, 1], probe[1, 2, 0] = 3j, 1 - 1j, 2
    weight = probe_weight(probe)
    assert weight.dtype == np.float32
    expected = np.zeros((3, 3))
    expected[0, 1], expected[2, 0] = 1, 4 / 11
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    # A probe may be on any scale.
    for scale in (1e-24, 1e18):
        np.testing.assert_allclose(probe_weight(probe * np.float32(scale)), expected, rtol=1e-6)
    with pytest.raises(ScanValueError, match='probe is zero everywhere'):
        probe_weight(np.zeros((1, 4, 4), dtype=np.complex64))


# Within a group


def test_a_group_is_merged_around_the_centre_of_its_canvas():
    offsets = np.array([[-3.25, 1.5], [2.75, -4.5], [0.5, 3.0]], dtype=np.float32)
    patches, weight = noise(3, N, N), weight_of()
    for side in (16, 17):
        canvas, coverage = merge_group(patches, offsets, weight, side)
        # The same around zero: pixel i of the canvas is i - (M - 1) / 2 away from the centre.
        frame = ObjectFrame((0, 0), (side, side))
        total, expected = dense(patches, offsets + (side - 1) / 2, frame, weight)
        np.testing.assert_allclose(coverage, expected, atol=1e-5)
        np.testing.assert_allclose(canvas * coverage, total, atol=1e-5)
        assert not canvas[coverage == 0].any()


def test_patterns_of_a_group_read_their_patches_back():
    side = 18
    y, x = np.indices((side, side)) - (side - 1) / 2
    plane = (y + 1j * x).astype(np.complex64)
    offsets = np.array([[-3.25, 1.5], [2.75, -4.5]], dtype=np.float32)
    pixel = np.arange(N) - (N - 1) / 2
    for patch, (dy, dx) in zip(read_group(plane, offsets, N), offsets, strict=True):
        expected = (dy + pixel)[:, None] + 1j * (dx + pixel)
        np.testing.assert_allclose(patch, expected, atol=1e-5)
    np.testing.assert_allclose(
        merge_group(read_group(plane, np.zeros((1, 2)), N), np.zeros((1, 2)), weight_of(), side)[0],
        np.where(np.maximum(abs(y), abs(x)) < N / 2, plane, 0),
        atol=1e-6,
    )


@pytest.mark.parametrize('n_px', [6, 7])
@pytest.mark.parametrize('reach', [0.0, 0.2, 3.0, 3.01])
def test_the_canvas_of_a_group_is_large_enough(n_px, reach):
    side = canvas_px(n_px, reach)
    assert (side - n_px) % 2 == 0
    assert reach + 1 <= (side - n_px) / 2 < reach + 2
    offsets = np.array([[reach, -reach], [-reach, reach]])
    _, coverage = merge_group(np.ones((2, n_px, n_px), 'c8'), offsets, uniform_weight(n_px), side)
    assert coverage.sum() == pytest.approx(2 * n_px**2, rel=1e-6)


# What is refused


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'patches': noise(2, N, N + 1)}, ShapeError, r'patches has shape \(2, 6, 7\)'),
        ({'patches': noise(2, 5, 5)}, ShapeError, r'patches .* with N = 6'),
        ({'patches': np.ones((2, N, N))}, ShapeError, 'dtype float64; expected complex64'),
        ({'positions_px': places()[:3]}, ShapeError, r'positions_px .* with n = 2'),
        ({'positions_px': np.full((2, 2), np.nan)}, ScanValueError, 'positions_px has 4 values'),
        ({'positions_px': np.full((2, 2), 8)}, ShapeError, 'positions_px has dtype int64'),
        ({'positions_px': places(beyond=0.51)[:2]}, ScanValueError, '2 of 2 patches leave'),
        ({'weight': np.ones((N, 5), np.float32)}, ShapeError, 'weight has shape'),
        ({'weight': np.ones((N, N))}, ShapeError, 'weight has dtype float64'),
        ({'weight': weight_of() - 1}, ScanValueError, 'weight has values from -0.*none below 0'),
        ({'weight': np.zeros((N, N), np.float32)}, ScanValueError, 'from 0 to 0'),
        ({'weight': weight_of() * np.inf}, ScanValueError, 'weight has 36 values'),
    ],
)
def test_other_patches_positions_and_weights_are_refused(changes, error, words):
    values = {'patches': noise(2, N, N), 'positions_px': places()[:2], 'weight': weight_of()}
    with pytest.raises(error, match=words):
        stitch(frame=FRAME, **(values | changes))


@pytest.mark.parametrize(
    ('object_', 'positions', 'error', 'words'),
    [
        (noise(19, 25), places(), ShapeError, r'object_ has shape \(19, 25\).* h = 19, w = 26'),
        (np.ones((19, 26)), places(), ShapeError, 'object_ has dtype float64'),
        (noise(19, 26), places(beyond=0.51), ScanValueError, '2 of 12 patches leave'),
    ],
)
def test_objects_that_do_not_fit_are_refused(object_, positions, error, words):
    with pytest.raises(error, match=words):
        read_patches(object_, positions, N, FRAME)
