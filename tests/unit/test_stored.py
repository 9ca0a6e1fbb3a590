"""The oracle still says what it said when `tests/parity/stored.npz` was written."""

import numpy as np
import pytest

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.stitching import merge_group, read_group
from tests.parity import make_stored, oracle
from tests.parity.comparison import TOLERANCES, assert_close, waves_of
from tests.parity.stored import FILE, GroupScene, scene, slope, stored

GROUPS = GroupScene()


def test_the_file_is_small():
    assert FILE.stat().st_size < 300_000


@pytest.mark.parametrize('part', ['whole scan', 'groups'])
def test_the_oracle_says_the_same(part):
    found = oracle.of_whole_scan(scene()) if part == 'whole scan' else oracle.of_groups(GROUPS)
    for name, array in found.items():
        expected, allowed = stored()[name], 1e-7 if array.size > 100 else 1e-6
        assert_close(make_stored.shorter(array), expected, allowed, dtype=expected.dtype)


@pytest.mark.parametrize('name', ['object', 'probe'])
def test_the_gradients_are_slopes(name):
    """By finite differences along a direction that rises to one side."""
    known, scan = scene(), scene().scan
    at = {'object': known.object_.astype(complex), 'probe': known.probe.astype(complex)}
    # Compared with the object, the probe is bright.
    direction = waves_of((3, 64, 64))[: len(at[name]) if name == 'probe' else 1]
    direction = np.squeeze(direction[..., : at[name].shape[-2], : at[name].shape[-1]])
    direction = direction.astype(complex) * np.abs(at[name]).max()

    def loss(step):
        moved = at | {name: at[name] + step * direction}
        predicted = physics.predict_counts(moved['object'], moved['probe'], *known.where)
        return physics.poisson_loss(predicted, scan.patterns, scan.valid_pixels, known.mean_count)

    found = (loss(1e-6) - loss(-1e-6)) / 2e-6
    expected = slope(stored()[f'gradient_{name}'], direction)
    assert found == pytest.approx(expected, rel=TOLERANCES['finite differences'])


def test_the_wide_merge_is_the_one_of_the_package():
    seen, centers = oracle.merged(GROUPS, GROUPS.patches.astype(complex))
    margin = (GROUPS.side_px - 64) // 2
    for number, (group, offsets) in enumerate(zip(GROUPS.patches, GROUPS.offsets_px, strict=True)):
        canvas, _ = merge_group(group, offsets, GROUPS.weight, GROUPS.side_px)
        read = read_group(canvas, offsets, 64)
        assert_close(read, seen[number], TOLERANCES['transform'], dtype=np.complex64)
        center = canvas[margin : margin + 64, margin : margin + 64]
        assert_close(center, centers[number], TOLERANCES['transform'], dtype=np.complex64)
