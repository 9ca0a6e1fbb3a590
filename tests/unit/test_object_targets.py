"""What a corrected object is compared with."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ptychodus_torch_plugin.object_targets import NOISE_FLOOR, object_target, target_region
from ptychodus_torch_plugin.regions import scanned_region
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

SHAPE = (91, 118)


def smooth(seed, width):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), width, mode='wrap')
    return field / field.std()


def noise(seed, level):
    rng = np.random.default_rng(seed)
    return level * (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)) / np.sqrt(2)


@pytest.fixture(scope='module')
def truth():
    """Return an object without any symmetry."""
    return (1 - 0.1 * np.clip(smooth(1, 2), -2, 2)) * np.exp(0.5j * smooth(2, 2))


@pytest.fixture(scope='module')
def region():
    y, x = np.indices(SHAPE)
    return ((y - 40) / 32) ** 2 + ((x - 67) / 41) ** 2 < 1


@pytest.fixture(scope='module')
def photons(region):
    """Return ever more light to the right, a little outside of the region, and a dark corner."""
    x = np.indices(SHAPE)[1]
    photons = (0.2 * x * ndimage.binary_dilation(region, iterations=5)).astype(np.float32)
    photons[:40, :45] = 0
    return photons


def displaced(object_, shift, ramp, factor):
    """Move an object towards larger indices on its own torus, then add a ramp and a factor."""
    ky, kx = (np.fft.fftfreq(n) for n in object_.shape)
    turn = np.exp(-2j * np.pi * (ky[:, None] * shift[0] + kx * shift[1]))
    y, x = np.indices(object_.shape)
    moved = np.fft.ifft2(np.fft.fft2(object_) * turn)
    return factor * moved * np.exp(1j * (ramp[0] * y + ramp[1] * x))


@pytest.mark.parametrize(
    ('shift', 'ramp', 'factor'),
    [
        ((0.0, 0.0), (0.0, 0.0), 1.0),
        ((0.0, 0.0), (0.07, -0.03), 0.6 * np.exp(2.5j)),
        ((1.4, -2.7), (0.0, 0.0), 1.0),
        ((-0.6, 3.3), (-0.02, 0.11), 1.7 * np.exp(-1j)),
    ],
)
def test_the_other_object_is_laid_over_the_one_that_is_corrected(
    truth, photons, region, shift, ramp, factor
):
    """Sweeps on other photons are free to move it, to tilt its phase, and to scale it."""
    object_ = (truth + noise(3, 0.05)).astype(np.complex64)
    other = displaced(truth + noise(4, 0.05), shift, ramp, factor).astype(np.complex64)
    target = object_target(object_, photons, other, region, 0.5)
    assert target.object_.shape == target.weight.shape == SHAPE
    assert (target.object_.dtype, target.weight.dtype) == (np.complex64, np.float32)
    # Its own noise is left, and not that of the one that is corrected.
    residual = (target.object_ - truth)[region]
    assert np.sqrt(np.mean(np.abs(residual) ** 2)) == pytest.approx(0.05, rel=0.15)
    alien = np.vdot(noise(3, 0.05)[region], residual) / np.linalg.norm(noise(3, 0.05)[region])
    assert abs(alien) < 0.1 * np.linalg.norm(residual)


def test_nothing_counts_outside_the_region_or_in_the_dark(truth, photons, region):
    object_ = truth.astype(np.complex64)
    other = (truth + noise(4, 0.1)).astype(np.complex64)
    weight = object_target(object_, photons, other, region, 0.5).weight
    assert (photons[~region] > 0).any()
    assert (photons[region] == 0).any()
    counted = region & (photons > 0)
    assert not weight[~counted].any()
    assert (weight[counted] > 0).all()
    # As a pixel's photons to those and what counts as half a look.
    expected = photons / (photons + NOISE_FLOOR)
    ratio = weight[counted] / expected[counted]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


@pytest.mark.parametrize('level', [0.01, 0.3])
def test_an_object_that_is_left_as_it_is_costs_one(truth, photons, region, level):
    """Whatever the noise: over the region, weighted by what is known of its pixels."""
    object_ = (truth + noise(3, level)).astype(np.complex64)
    other = (truth + noise(4, 2 * level)).astype(np.complex64)
    target = object_target(object_, photons, other, region, 0.8)
    square = np.abs(object_ - target.object_) ** 2
    known = region * photons / (photons + NOISE_FLOOR)
    assert (target.weight * square).sum() / known.sum() == pytest.approx(1, rel=1e-4)
    # About the mean over the region, where most pixels saw many photons.
    assert np.mean((target.weight * square)[region]) == pytest.approx(0.85, abs=0.1)
    # Of four parts in five the noise is half as large.
    # The truth costs less, by the noise that the object has and it has not.
    truth_costs = (target.weight * np.abs(truth - target.object_) ** 2).sum() / known.sum()
    assert truth_costs == pytest.approx(4 / 5, abs=0.08)


@pytest.mark.parametrize('share', [0.5, 0.8, 0.2, 0.01, 0.99])
@pytest.mark.parametrize('level', [0.02, 0.4])
def test_a_noisy_target_is_as_bright_as_a_clean_one(truth, photons, region, share, level):
    """Least squares alone would leave less than a fifth of it, where most of it is noise."""
    own = (0.9 * truth + noise(3, level / np.sqrt(2 * share))).astype(np.complex64)
    other = (truth + noise(4, level / np.sqrt(2 - 2 * share))).astype(np.complex64)
    target = object_target(own, photons, other, region, share)
    mean = np.vdot(truth[region], target.object_[region]) / np.vdot(truth[region], truth[region])
    assert mean == pytest.approx(0.9, abs=0.02)


def test_an_object_may_be_its_own_target(truth, photons, region):
    """Where sweeps make nothing of photons, both are empty: no division by their distance."""
    empty = np.ones(SHAPE, np.complex64)
    for object_ in (truth.astype(np.complex64), empty):
        target = object_target(object_, photons, object_, region, 0.5)
        np.testing.assert_allclose(target.object_, object_, atol=1e-5)
        assert np.isfinite(target.weight).all()


def test_an_object_is_not_its_mirror_image(truth, photons, region):
    """Axes are not mixed up: turned inputs give a turned target."""
    object_ = (truth + noise(3, 0.1)).astype(np.complex64)
    other = displaced(truth, (0.8, -2.3), (0.05, 0.02), 1.1).astype(np.complex64)
    target = object_target(object_, photons, other, region, 0.4)
    turned = object_target(*(np.rot90(x) for x in (object_, photons, other, region)), 0.4)
    back = np.rot90(turned.object_, -1)
    np.testing.assert_allclose(back[region], target.object_[region], atol=2e-3)
    np.testing.assert_allclose(np.rot90(turned.weight, -1), target.weight, rtol=1e-2)


def test_objects_are_compared_where_the_beam_was():
    scan = simulate_scan(
        SimulationConfig(N=32, n_positions=25, step_px=9.0, probe_modes=2, photons=1e3, seed=4)
    )
    # An L of five rows, and two patterns more in the last one.
    kept = np.array([0, 5, 10, 15, 20, 21, 22])
    scan = replace(scan, patterns=scan.patterns[kept], positions_px=scan.positions_px[kept])
    region = target_region(scan)
    corners, _ = scan.frame.corners(scan.positions_px, 32)
    beam = (np.abs(scan.probe) ** 2).sum(axis=0)
    np.testing.assert_array_equal(region, scanned_region(scan.frame.shape, corners, 32, beam))
    assert (region.dtype, region.shape) == (np.bool_, scan.frame.shape)
    middle = tuple((corners + 16).T)
    assert region[middle].all()
    # No pattern lies in the upper right part of the canvas.
    height, width = region.shape
    assert not region[: height // 2, width // 2 :].any()
