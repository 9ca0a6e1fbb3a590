"""Patches of a group on its canvas and back, against the NumPy oracle."""

import numpy as np
import pytest
import tensorflow as tf

from ptychodus_torch_plugin.backends.tensorflow.merging import (
    merge_patches,
    merged_patch,
    read_patches,
    single_patch_canvas,
    translations,
)
from ptychodus_torch_plugin.errors import ShapeError
from tests.parity.comparison import TOLERANCES, assert_close, waves_of
from tests.parity.groups import GROUPS, SPOILED_OFFSETS, PlainGroups

from .parity import gradient_of


class Groups(PlainGroups):
    """The same, as tensors."""

    @property
    def matrices(self):
        return translations(tf.constant(self.offsets), self.n_px, self.side_px)

    def merged(self):
        return merge_patches(tf.constant(self.patches), tf.constant(self.weight), *self.matrices)


@pytest.mark.parametrize(('n_px', 'count', 'whole'), GROUPS)
def test_merged_patches(n_px, count, whole):
    groups = Groups(n_px, count, whole=whole)
    canvas, coverage = groups.expected(groups.offsets)
    assert (coverage == 0).any()
    actual = groups.merged()
    assert_close(actual[0], canvas, TOLERANCES['transform'], dtype=np.complex64)
    assert_close(actual[1], coverage, TOLERANCES['transform'], dtype=np.float32)
    np.testing.assert_array_equal(actual[1] == 0, coverage == 0)


@pytest.mark.parametrize(('n_px', 'count', 'whole'), GROUPS)
def test_read_patches(n_px, count, whole):
    groups = Groups(n_px, count, whole=whole)
    canvas = waves_of((3, groups.side_px, groups.side_px))
    actual = read_patches(tf.constant(canvas), *groups.matrices)
    expected = groups.expected_reading(canvas)
    assert_close(actual, expected, TOLERANCES['transform'], dtype=np.complex64)


@pytest.mark.parametrize('spoil', SPOILED_OFFSETS.values(), ids=SPOILED_OFFSETS)
def test_the_comparison_notices(spoil):
    groups = Groups(16, 4)
    groups.offsets *= np.float32(0.8)  # room for a pixel more
    actual, _ = groups.merged()
    expected, _ = groups.expected(spoil(groups.offsets))
    with pytest.raises(AssertionError, match='off by'):
        assert_close(actual, expected, 1e-2, dtype=np.complex64)


def test_a_constant_stays_what_it_is_wherever_a_patch_lies():
    groups = Groups(13, 4)
    groups.patches[:] = 0.75 - 1.5j
    canvas, coverage = groups.merged()
    expected = np.where(coverage > 0, 0.75 - 1.5j, 0)
    assert 0 < np.count_nonzero(expected) < expected.size
    assert_close(canvas, expected, TOLERANCES['transform'], dtype=np.complex64)


def test_reading_is_the_adjoint_of_writing():
    groups = Groups(13, 4, dtype=np.float64)
    canvas, coverage = (tensor.numpy() for tensor in groups.merged())
    other = waves_of(canvas.shape, seed=5, flat=True)
    read = read_patches(tf.constant(other), *groups.matrices).numpy()
    # Where coverage is negligible, less than 1e-7 of all is not written.
    written = np.vdot(canvas * coverage, other)
    np.testing.assert_allclose(written, np.vdot(groups.patches * groups.weight, read), rtol=1e-7)


@pytest.mark.parametrize('direction', ['written', 'read'])
def test_gradients(direction):
    """By finite differences of TensorFlow's own values, along directions without symmetry."""
    groups = Groups(3, 2, dtype=np.float64)
    matrices = groups.matrices
    if direction == 'written':
        start = groups.patches

        def result_of(patches):
            return merge_patches(patches, tf.constant(groups.weight), *matrices)[0]

    else:
        start = waves_of((3, groups.side_px, groups.side_px), flat=True)

        def result_of(canvas):
            return read_patches(canvas, *matrices)

    other = waves_of(result_of(tf.constant(start)).shape, seed=3, flat=True)

    def loss(x):
        return tf.reduce_sum(tf.math.real(result_of(x) ** 2 * other))

    _, gradient = gradient_of(loss, start)
    for seed in range(4):
        step = 1e-6 * waves_of(start.shape, seed, flat=True)
        slope = (loss(tf.constant(start + step)) - loss(tf.constant(start - step))) / 2
        np.testing.assert_allclose(slope, np.vdot(step, gradient).real, rtol=1e-6)


def test_the_size_of_the_batch_is_free():
    """Traced once, without a number of groups."""
    groups = Groups(16, 4)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4, 16, 16], tf.complex64),
            tf.TensorSpec([None, 4, 2], tf.float32),
        ]
    )
    def there_and_back(patches, offsets):
        rows, columns = translations(offsets, groups.n_px, groups.side_px)
        canvas, _ = merge_patches(patches, tf.constant(groups.weight), rows, columns)
        return read_patches(canvas, rows, columns), merged_patch(canvas, groups.n_px)

    whole = there_and_back(groups.patches, groups.offsets)
    for one, all_three in zip(
        there_and_back(groups.patches[1:2], groups.offsets[1:2]), whole, strict=True
    ):
        assert_close(one, all_three[1:2], TOLERANCES['transform'], dtype=np.complex64)


def test_a_single_patch_lies_at_the_centre():
    groups = Groups(13, 1)
    groups.offsets[:] = 0
    groups.weight[:] = 1
    canvas = single_patch_canvas(tf.constant(groups.patches), groups.side_px)
    np.testing.assert_array_equal(canvas, groups.merged()[0])
    np.testing.assert_array_equal(merged_patch(canvas, 13), groups.patches[:, 0])


@pytest.mark.parametrize('side_px', [12, 16])
def test_a_canvas_without_a_centre_for_patches(side_px):
    patches = tf.ones((2, 1, 13, 13), tf.complex64)
    canvas = tf.ones((2, side_px, side_px), tf.complex64)
    calls = [
        lambda: translations(tf.zeros((2, 1, 2)), 13, side_px),
        lambda: single_patch_canvas(patches, side_px),
        lambda: merged_patch(canvas, 13),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match=rf'canvas of {side_px} px .* patches of 13 px'):
            call()
