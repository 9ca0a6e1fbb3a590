"""Ptychodus' data as scans, and objects back as products."""

from dataclasses import replace

import numpy as np
import pytest
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.object import Object
from ptychodus.api.probe import ProbeSequence

from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.integration.scans import product_of, scan_of


@pytest.fixture
def scan(handed):
    return scan_of(handed)


def test_the_scan_is_what_was_measured(scan, original):
    good = original.valid_pixels
    np.testing.assert_array_equal(scan.patterns[:, good], original.patterns[:, good])
    assert not scan.patterns[:, ~good].any()
    np.testing.assert_array_equal(scan.bad_pixels, original.bad_pixels)
    np.testing.assert_allclose(scan.probe, original.probe, rtol=1e-6)
    # The product's object is the canvas around the positions, which has its own first pixel.
    origin = np.asarray(original.frame.origin_px)
    np.testing.assert_allclose(scan.positions_px + origin, original.positions_px, atol=1e-6)
    assert np.ptp(scan.positions_px % 1) > 0.1
    assert scan.frame == ObjectFrame((0, 0), original.frame.shape)
    assert scan.optics.photon_energy_eV == 8000
    assert scan.optics.detector_distance_m == 2


def test_the_files_give_the_same_scan(scan, folder):
    read = read_scan(folder)
    np.testing.assert_array_equal(read.patterns, scan.patterns)
    np.testing.assert_array_equal(read.bad_pixels, scan.bad_pixels)
    np.testing.assert_allclose(read.positions_px, scan.positions_px, atol=1e-6)
    np.testing.assert_array_equal(read.probe, scan.probe)


def test_modes_are_sorted_and_only_the_first_state_counts(handed, scan):
    probes = handed.product.probes.get_array()
    states = np.concatenate([probes[:, ::-1], 9 * probes])
    weights = np.ones((len(scan.positions_px), 2))
    pixel = handed.product.probes.get_pixel_geometry()
    product = replace(handed.product, probes=ProbeSequence(states, weights, pixel))
    np.testing.assert_array_equal(scan_of(replace(handed, product=product)).probe, scan.probe)


def test_layers_are_multiplied(handed):
    layer = handed.product.object_.get_array()[0]
    layers = np.stack([layer * 0.5j, layer * 0.5])
    geometry = handed.product.object_
    stack = Object(layers, geometry.get_pixel_geometry(), geometry.get_center(), [1e-6])
    product = replace(handed.product, object_=stack)
    guess = scan_of(replace(handed, product=product)).object_guess
    np.testing.assert_allclose(guess, layer * 0.25j, rtol=1e-6)


def test_another_pixel_of_the_probe_is_refused(handed):
    probes = handed.product.probes
    pixel = probes.get_pixel_geometry()
    wide = PixelGeometry(width_m=1.5 * pixel.width_m, height_m=pixel.height_m)
    product = replace(handed.product, probes=ProbeSequence(probes.get_array(), None, wide))
    with pytest.raises(ScanValueError, match=r'object are .* and those of the probe .* the same'):
        scan_of(replace(handed, product=product))


def test_a_product_without_probe_or_object_is_refused(handed):
    for missing in (
        {'probes': ProbeSequence(None, None, None)},
        {'object_': Object(None, None, None)},
    ):
        product = replace(handed.product, **missing)
        with pytest.raises(ScanValueError, match='build or load them'):
            scan_of(replace(handed, product=product))


def test_a_detector_in_the_near_field_is_refused(handed):
    metadata = replace(handed.product.metadata, far_field=False)
    product = replace(handed.product, metadata=metadata)
    with pytest.raises(ScanValueError, match='near field; expected the far field'):
        scan_of(replace(handed, product=product))


@pytest.mark.parametrize('frame', [ObjectFrame((0, 0), (90, 84)), ObjectFrame((-3, 7), (95, 81))])
def test_an_object_lies_where_its_frame_says(handed, frame):
    """A pixel of the new object and the same one of the old grid are one point of the sample."""
    probe = np.full((2, 32, 32), 3 + 4j, np.complex64)
    before = handed.product
    after = product_of(before, np.ones(frame.shape, np.complex64), frame, probe, [(1, 0.5)])
    old, new = before.object_.get_geometry(), after.object_.get_geometry()
    positions = before.probe_positions
    for axis, first in zip('yx', frame.origin_px, strict=True):
        name = f'map_probe_positions_to_object_{axis}_px'
        there, here = (np.asarray(getattr(each, name)(positions)) for each in (old, new))
        np.testing.assert_allclose(here + first, there, atol=1e-6)
    assert after.object_.get_array().shape == (1, *frame.shape)
    assert after.probes.get_array().shape == (1, 2, 32, 32)
    assert after.metadata.probe_photon_count == pytest.approx(2 * 32 * 32 * 25)
    assert after.metadata.name == before.metadata.name
    assert [(loss.epoch, loss.value) for loss in after.losses] == [(1, 0.5)]
    assert after.probe_positions is before.probe_positions


def test_refined_positions_come_back_in_metres(handed, scan):
    """As a scan of the product with them, they are what they were."""
    rng = np.random.default_rng(2)
    moved = scan.positions_px + rng.normal(0, 0.3, scan.positions_px.shape)
    ones = np.ones(scan.frame.shape, np.complex64)
    after = product_of(handed.product, ones, scan.frame, scan.probe, [], moved)
    back = scan_of(
        replace(handed, product=replace(handed.product, probe_positions=after.probe_positions))
    )
    np.testing.assert_allclose(back.positions_px, moved, atol=1e-6)
    before = handed.product.probe_positions
    assert [p.index for p in after.probe_positions] == [p.index for p in before]
