import numpy as np
import pytest
from scipy import ndimage

from ptychodus_torch_plugin.alignment import align
from ptychodus_torch_plugin.errors import ScanValueError, ShapeError


def speckle(shape, sigma, seed):
    """Return a smooth random object with structure in amplitude and phase."""
    rng = np.random.default_rng(seed)

    def field(width):
        noise = ndimage.gaussian_filter(rng.standard_normal(shape), width, mode='wrap')
        return noise / noise.std()

    amplitude = 1 - 0.1 * np.clip(field(sigma), -2, 2)
    return amplitude * np.exp(0.5j * field(sigma) + 0.5j * field(4 * sigma))


def displaced(object_, shift, ramp, factor):
    """Move an object by `shift` towards larger indices on its own torus, then add a ramp."""
    ky, kx = (np.fft.fftfreq(n) for n in object_.shape)
    turn = np.exp(-2j * np.pi * (ky[:, None] * shift[0] + kx * shift[1]))
    y, x = np.indices(object_.shape)
    moved = np.fft.ifft2(np.fft.fft2(object_) * turn)
    return factor * moved * np.exp(1j * (ramp[0] * y + ramp[1] * x))


@pytest.fixture(scope='module')
def truth():
    return speckle((150, 171), 1.5, seed=1)


@pytest.fixture(scope='module')
def region(truth):
    y, x = np.indices(truth.shape)
    return ((y - 68) / 45) ** 2 + ((x - 93) / 55) ** 2 < 1


@pytest.mark.parametrize(
    ('shift', 'ramp', 'noise'),
    [
        ((0.37, -0.21), (0.013, -0.02), 0.0),
        ((0.37, -0.21), (0.013, -0.02), 0.1),
        ((-3.4, 6.8), (0.3, -0.7), 0.05),
        ((0.5, -0.5), (2.0, -0.1), 0.02),
        ((11.5, 7.3), (0.0, 0.0), 0.02),
        ((0.0, 0.0), (-0.4, 0.05), 0.02),
    ],
)
def test_known_shift_ramp_and_scale_are_found(truth, region, shift, ramp, noise):
    factor = 1.7 * np.exp(2j)
    rng = np.random.default_rng(5)
    grain = rng.standard_normal((2, *truth.shape))
    object_ = displaced(truth, shift, ramp, factor)
    object_ += abs(factor) * noise * (grain[0] + 1j * grain[1]) / np.sqrt(2)
    # Nobody has seen the object far from the scan; the scanned part moves with the object.
    seen = ndimage.shift(region.astype(float), shift, order=1) > 0
    object_[~ndimage.binary_dilation(seen, iterations=8)] = 1

    found = align(object_.astype(np.complex64), truth.astype(np.complex64), region)

    assert found.shift_px == pytest.approx(shift, abs=0.002 + 0.1 * noise)
    assert found.ramp_rad_per_px == pytest.approx(ramp, abs=1e-5 + 1e-3 * noise)
    # Least squares shrinks a noisy object by 1 / (1 + noise^2).
    assert abs(found.scale) * abs(factor) == pytest.approx(1 / (1 + noise**2), abs=2e-3)
    error = np.linalg.norm((found.object_ - truth)[region]) / np.linalg.norm(truth[region])
    assert error < 0.012 + 1.1 * noise


def test_what_matches_already_is_not_resampled(truth, region):
    truth = truth.astype(np.complex64)
    found = align(truth, truth, region)
    assert found.shift_px == (0.0, 0.0)
    np.testing.assert_allclose(found.object_, truth, rtol=0, atol=1e-5)


def test_a_shift_below_the_noise_stays_zero(truth, region):
    rng = np.random.default_rng(8)
    noise = rng.standard_normal((2, *truth.shape))
    noisy = (truth + 0.2 * (noise[0] + 1j * noise[1])).astype(np.complex64)
    assert align(noisy, truth.astype(np.complex64), region).shift_px == (0.0, 0.0)


def test_only_what_is_asked_for_is_removed(truth, region):
    reference = truth.astype(np.complex64)
    moved = displaced(truth, (1.3, -0.4), (0.02, 0.03), 2.0).astype(np.complex64)
    without_shift = align(moved, reference, region, shift=False)
    without_ramp = align(moved, reference, region, ramp=False)
    neither = align(moved, reference, region, shift=False, ramp=False)
    assert without_shift.shift_px == (0.0, 0.0)
    assert without_shift.ramp_rad_per_px == pytest.approx((0.02, 0.03), abs=3e-3)
    assert without_ramp.ramp_rad_per_px == (0.0, 0.0)
    assert neither.shift_px == neither.ramp_rad_per_px == (0.0, 0.0)
    expected = np.vdot(moved[region], reference[region]) / np.vdot(moved[region], moved[region])
    assert neither.scale == pytest.approx(complex(expected), rel=1e-5)


def test_a_flat_reference_can_be_aligned_to(region):
    flat = np.ones(region.shape, dtype=np.complex64)
    found = align(3 * flat, flat, region)
    assert found.shift_px == (0.0, 0.0)
    np.testing.assert_allclose(found.object_, flat, atol=1e-6)


def test_defects_are_named(truth, region):
    truth = truth.astype(np.complex64)
    with pytest.raises(ShapeError, match=r'image has shape \(149, 171\)'):
        align(truth[1:], truth, region)
    with pytest.raises(ScanValueError, match='region is empty'):
        align(truth, truth, np.zeros_like(region))
    with pytest.raises(ScanValueError, match='image is zero in the whole region'):
        align(0 * truth, truth, region)
    broken = truth.copy()
    broken[3, 4] = np.nan
    with pytest.raises(ScanValueError, match=r'first at index \(3, 4\)'):
        align(broken, truth, region)
