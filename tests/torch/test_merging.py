"""Patches of a group on its canvas and back, against the NumPy oracle."""

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.backends.torch.merging import (
    merge_patches,
    merged_patch,
    read_patches,
    single_patch_canvas,
    translations,
)
from ptychodus_torch_plugin.errors import ShapeError
from tests.parity.groups import GROUPS, SPOILED_OFFSETS, PlainGroups

from .parity import TOLERANCES, assert_close, waves_of


class Groups(PlainGroups):
    """The same, as tensors."""

    @property
    def matrices(self):
        return translations(torch.from_numpy(self.offsets), self.n_px, self.side_px)

    def merged(self):
        tensors = torch.from_numpy(self.patches), torch.from_numpy(self.weight)
        return merge_patches(*tensors, *self.matrices)


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
    actual = read_patches(torch.from_numpy(canvas), *groups.matrices)
    assert_close(
        actual, groups.expected_reading(canvas), TOLERANCES['transform'], dtype=np.complex64
    )


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
    canvas, coverage = groups.merged()
    other = torch.from_numpy(waves_of(canvas.shape, seed=5, flat=True))
    read = read_patches(other, *groups.matrices)
    written = torch.sum((canvas * coverage).conj() * other)
    weighted = torch.from_numpy(groups.patches * groups.weight)
    # Where coverage is negligible, less than 1e-7 of all is not written.
    torch.testing.assert_close(written, torch.sum(weighted.conj() * read), rtol=1e-7, atol=0)


def test_gradients():
    groups = Groups(3, 2, dtype=np.float64)
    patches = torch.from_numpy(groups.patches).requires_grad_()
    weight, matrices = torch.from_numpy(groups.weight), groups.matrices
    assert torch.autograd.gradcheck(lambda p: merge_patches(p, weight, *matrices)[0], patches)
    shape = (3, groups.side_px, groups.side_px)
    canvas = torch.from_numpy(waves_of(shape, flat=True)).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: read_patches(c, *matrices), canvas)


def test_what_runs_in_bfloat16_around_it_changes_nothing():
    groups = Groups(16, 4)
    canvas, _ = groups.merged()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        again, _ = groups.merged()
        read = read_patches(again, *groups.matrices)
    assert torch.equal(again, canvas)
    assert torch.equal(read, read_patches(canvas, *groups.matrices))


def test_a_single_patch_lies_at_the_centre():
    groups = Groups(13, 1)
    groups.offsets[:] = 0
    groups.weight[:] = 1
    patches = torch.from_numpy(groups.patches)
    canvas = single_patch_canvas(patches, groups.side_px)
    assert torch.equal(canvas, groups.merged()[0])
    assert torch.equal(merged_patch(canvas, 13), patches[:, 0])


@pytest.mark.parametrize('side_px', [12, 16])
def test_a_canvas_without_a_centre_for_patches(side_px):
    patches = torch.ones(2, 1, 13, 13, dtype=torch.complex64)
    canvas = torch.ones(2, side_px, side_px, dtype=torch.complex64)
    calls = [
        lambda: translations(torch.zeros(2, 1, 2), 13, side_px),
        lambda: single_patch_canvas(patches, side_px),
        lambda: merged_patch(canvas, 13),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match=rf'canvas of {side_px} px .* patches of 13 px'):
            call()
