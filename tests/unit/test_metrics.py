import json
import math

import numpy as np
import pytest
from scipy import ndimage

from ptychodus_torch_plugin.errors import ScanValueError, ShapeError
from ptychodus_torch_plugin.metrics import (
    ObjectMetrics,
    compare_objects,
    complex_error,
    fourier_ring_correlation,
    psnr_dB,
    r_factor,
    scanned_region,
    ssim,
)
from ptychodus_torch_plugin.ring_correlation import (
    HALF_BIT_SNR,
    half_bit_of_halves,
    half_bit_of_one,
)


@pytest.fixture
def images():
    rng = np.random.default_rng(3)
    truth = ndimage.gaussian_filter(rng.standard_normal((61, 74)), 2)
    image = truth + 0.05 * rng.standard_normal(truth.shape)
    y, x = np.indices(truth.shape)
    region = ((y - 25) / 22) ** 2 + ((x - 44) / 26) ** 2 < 1
    return image, truth, region


def transmission(shape, seed):
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) for _ in range(2)]
    amplitude, phase = (field / field.std() for field in fields)
    return ((1 - 0.1 * amplitude.clip(-2, 2)) * np.exp(0.6j * phase)).astype(np.complex64)


def test_r_factor_by_hand():
    predicted = np.array([[[4, 9], [16, 1e6]], [[1, 0], [25, 1e6]]], dtype=np.float32)
    counts = np.array([[[9, 9], [1, 0]], [[4, 16], [25, 0]]], dtype=np.float32)
    valid = np.array([[True, True], [True, False]])
    # |2-3| + |3-3| + |4-1| + |1-2| + |0-4| + |5-5| over 3 + 3 + 1 + 2 + 4 + 5
    assert r_factor(predicted, counts, valid) == pytest.approx(9 / 18)


def test_r_factor_names_defects():
    counts = np.ones((2, 4, 4), dtype=np.float32)
    valid = np.ones((4, 4), dtype=bool)
    with pytest.raises(ScanValueError, match='predicted has a value of -1'):
        r_factor(-counts, counts, valid)
    with pytest.raises(ScanValueError, match='zero in all 32 valid pixels'):
        r_factor(counts, 0 * counts, valid)
    with pytest.raises(ShapeError, match='counts has shape'):
        r_factor(counts, counts[:1], valid)
    with pytest.raises(ShapeError, match='float64'):
        r_factor(counts.astype(float), counts, valid)


def test_scanned_region_agrees_with_plain_sums():
    rng = np.random.default_rng(0)
    probe = rng.random((16, 16)).astype(np.float32) ** 4
    corners = rng.integers((5, 0), (45, 21), (60, 2))
    light = np.zeros((70, 50))
    for y, x in corners:
        light[y : y + 16, x : x + 16] += probe
    values = np.sort(light.ravel())
    typical = values[np.flatnonzero(values.cumsum() >= values.sum() / 2)[0]]
    region = scanned_region((70, 50), corners, 16, probe, level=0.3)
    np.testing.assert_array_equal(region, light > 0.3 * typical)
    assert not region[:5].any()
    assert not region[:, 36:].any()


def test_scanned_region_does_not_depend_on_repeats_scale_or_frame():
    y, x = np.indices((16, 16)) - 7.5
    probe = np.exp(-(x**2 + y**2) / 20).astype(np.float32)
    corners = np.stack(np.meshgrid(np.arange(0, 60, 4), np.arange(0, 48, 4)), -1).reshape(-1, 2)
    region = scanned_region((76, 64), corners, 16, probe)
    repeated = np.concatenate([corners, np.tile(corners[50], (60, 1))])
    wide = scanned_region((300, 90), corners, 16, probe)
    assert 0.5 < region.mean() < 0.95
    np.testing.assert_array_equal(scanned_region((76, 64), corners, 16, 1e6 * probe), region)
    np.testing.assert_array_equal(wide[:76, :64], region)
    assert wide.sum() == region.sum()
    lost = region & ~scanned_region((76, 64), repeated, 16, probe)
    assert lost.sum() < 0.05 * region.sum()


def test_scanned_region_names_defects():
    probe = np.ones((8, 8), dtype=np.float32)
    corners = np.array([[0, 5]])
    with pytest.raises(ScanValueError, match='do not lie inside'):
        scanned_region((20, 12), corners, 8, probe)
    with pytest.raises(ScanValueError, match='dark'):
        scanned_region((20, 20), corners, 8, 0 * probe)
    with pytest.raises(ScanValueError, match='level is 1'):
        scanned_region((20, 20), corners, 8, probe, level=1)


def test_psnr_by_hand_and_by_region():
    reference = np.array([[0.0, 1.0], [2.0, 100.0]])
    image = reference + np.array([[0.1, -0.1], [0.1, 50.0]])
    region = np.array([[True, True], [True, False]])
    assert psnr_dB(image, reference, region) == pytest.approx(20 * math.log10(2 / 0.1))
    assert psnr_dB(reference, reference, region) == math.inf
    assert math.isnan(psnr_dB(image, np.ones((2, 2)), region))
    with pytest.raises(ScanValueError, match='region is empty'):
        psnr_dB(image, reference, np.zeros((2, 2), dtype=bool))


def test_ssim_agrees_with_its_definition(images):
    image, truth, region = images

    def local(values):
        return ndimage.gaussian_filter(values, 1.5, truncate=3.5)

    seen = np.where(region, image, truth)
    span = np.ptp(truth[region])
    mean_a, mean_b = local(seen), local(truth)
    variance_a, variance_b = local(seen**2) - mean_a**2, local(truth**2) - mean_b**2
    covariance = local(seen * truth) - mean_a * mean_b
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    assert ssim(image, truth, region) == pytest.approx(expected[region].mean(), abs=1e-9)
    assert 0.2 < ssim(image, truth, region) < 0.98


def test_ssim_sees_nothing_outside_the_region(images):
    image, truth, region = images
    assert ssim(np.where(region, image, 1e6), truth, region) == ssim(image, truth, region)
    assert ssim(truth, truth, region) == pytest.approx(1)
    assert math.isnan(ssim(image, np.ones_like(truth), region))
    with pytest.raises(ScanValueError, match='at least 11 px'):
        ssim(image[:9], truth[:9], region[:9])


def test_complex_error_by_hand():
    reference = np.array([[3, 4j], [9, 9]], dtype=np.complex64)
    aligned = np.array([[3, 4j + 1], [0, 0]], dtype=np.complex64)
    region = np.array([[True, True], [False, False]])
    assert complex_error(aligned, reference, region) == pytest.approx(1 / 5)


@pytest.mark.parametrize('shape', [(48, 61), (57, 40)])
def test_ring_correlation_agrees_with_plain_sums(shape):
    a, b = transmission(shape, 1), transmission(shape, 2)
    b = a + 0.5 * b
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    quarter = (side - 1) / 4
    t = np.arange(side)
    depth = np.minimum(t, side - 1 - t)
    line = np.where(depth < quarter, 0.5 - 0.5 * np.cos(np.pi * depth / quarter), 1.0)
    window = line[:, None] * line

    def spectrum(image):
        square = image[top : top + side, left : left + side]
        return np.fft.fft2((square - np.average(square, weights=window)) * window)

    one, two = spectrum(a), spectrum(b)
    frc = fourier_ring_correlation(a, b)
    assert len(frc.frequencies) == side // 2
    k = np.fft.fftfreq(side) * side
    for ring in (1, 2, 7, side // 2):
        members = np.rint(np.hypot(k[:, None], k)) == ring
        cross = (one * two.conj())[members].sum().real
        norm = np.linalg.norm(one[members]) * np.linalg.norm(two[members])
        assert frc.frequencies[ring - 1] == pytest.approx(ring / side)
        assert frc.correlation[ring - 1] == pytest.approx(cross / norm, abs=1e-9)


def independent_values(threshold):
    """Solve the half-bit formula for the number of independent values."""
    return ((1.9102 - 0.9102 * threshold) / (1.2071 * threshold - 0.2071)) ** 2


def test_half_bit_threshold_counts_what_is_independent():
    """The correlation of pure noise scatters by 1 / sqrt(2 n) over n complex values."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((80, 2, 2, 32, 32))
    curves = [fourier_ring_correlation(*(a + 1j * b for a, b in pair)) for pair in noise]
    scatter = np.std([frc.correlation[5:] for frc in curves], axis=0)
    n = independent_values(curves[0].threshold[5:])
    assert np.mean(2 * n * scatter**2) == pytest.approx(1, abs=0.15)


def test_real_images_have_half_as_many_values():
    a, b = np.random.default_rng(0).standard_normal((2, 64, 64))
    real, complex_ = fourier_ring_correlation(a, b), fourier_ring_correlation(a + 0j, b + 0j)
    np.testing.assert_allclose(real.correlation, complex_.correlation, atol=1e-12)
    ratio = independent_values(complex_.threshold) / independent_values(real.threshold)
    np.testing.assert_allclose(ratio, 2, rtol=1e-4)


def test_resolution_is_where_the_images_part():
    rng = np.random.default_rng(2)
    common, one, two = (np.fft.fft2(rng.standard_normal((128, 128))) for _ in range(3))
    k = np.fft.fftfreq(128)
    alike = np.hypot(k[:, None], k) < 0.2
    a, b = (np.fft.ifft2(np.where(alike, common, own)).real for own in (one, two))
    frc = fourier_ring_correlation(a, b)
    assert frc.nyquist_fraction() == pytest.approx(0.4, abs=0.03)
    assert frc.resolution_px() == pytest.approx(1 / frc.nyquist_fraction())


def test_resolution_in_metres_is_that_of_the_longer_side():
    frc = fourier_ring_correlation(*np.random.default_rng(3).standard_normal((2, 32, 32)))
    assert frc.resolution_m((8e-9, 5e-9)) == pytest.approx(8e-9 * frc.resolution_px())
    assert frc.resolution_m(None) is None


def test_both_thresholds_start_at_one_and_tend_to_what_the_literature_says():
    few, many = np.array([1.0, 1e12])
    half_bit = (2**0.5 - 1) / 2
    assert half_bit_of_halves(few) == pytest.approx(1)
    assert half_bit_of_one(few) == pytest.approx(1)
    assert half_bit_of_halves(many) == pytest.approx(half_bit / (1 + half_bit), abs=1e-5)
    assert half_bit_of_halves(100.0) == pytest.approx(
        (0.2071 + 1.9102 / 10) / (1.2071 + 0.9102 / 10), abs=1e-4
    )
    # C_ref = sqrt(2 FSC / (1 + FSC)) of two halves.
    of_halves = half_bit / (1 + half_bit)
    expected = (2 * of_halves / (1 + of_halves)) ** 0.5
    assert half_bit_of_one(many) == pytest.approx(expected, abs=1e-5)


def test_halves_and_truth_lead_to_one_resolution():
    """Noise grows with frequency; the mean of both halves is as good as the halves say."""
    rng = np.random.default_rng(8)
    side = 384
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    loudness = np.exp(9 * frequency) / 9

    def noise():
        real, imaginary = rng.standard_normal((2, side, side))
        return np.fft.fft2(real + 1j * imaginary)

    truth = np.fft.ifft2(noise())
    one, two = (truth + np.fft.ifft2(loudness * noise()) for _ in range(2))
    of_halves = fourier_ring_correlation(one, two, 'halves')
    with_truth = fourier_ring_correlation((one + two) / 2, truth, 'noise-free')
    # The power of the noise of the mean is half of that of each.
    crossing = np.log(9 * (2 / HALF_BIT_SNR) ** 0.5) / 9
    assert with_truth.nyquist_fraction() == pytest.approx(2 * crossing, rel=0.06)
    assert of_halves.nyquist_fraction() == pytest.approx(with_truth.nyquist_fraction(), rel=0.08)
    assert (of_halves.criterion, with_truth.criterion) == ('halves', 'noise-free')
    # With the threshold of halves it would seem better than it is.
    wrong = fourier_ring_correlation((one + two) / 2, truth, 'halves')
    assert wrong.nyquist_fraction() > 1.15 * with_truth.nyquist_fraction()


def test_images_alike_up_to_nyquist_have_no_crossing():
    image = np.random.default_rng(4).standard_normal((33, 40))
    frc = fourier_ring_correlation(image, 3 * image + 7)
    np.testing.assert_allclose(frc.correlation, 1)
    assert frc.resolution_px() is None
    assert frc.nyquist_fraction() == 1
    with pytest.raises(ScanValueError, match='15 px wide'):
        fourier_ring_correlation(image[:15], image[:15])


def whole(image):
    return np.ones(image.shape, dtype=bool)


def test_compare_objects_knows_nothing_of_scale_and_ramp():
    truth = transmission((64, 75), 5)
    rng = np.random.default_rng(6)
    noise = rng.standard_normal((2, *truth.shape)) * 0.02
    noisy = (truth + noise[0] + 1j * noise[1]).astype(np.complex64)
    y, x = np.indices(truth.shape)
    turned = (0.3 * np.exp(1j * (2.9 + 0.21 * y - 0.4 * x)) * noisy).astype(np.complex64)
    plain = compare_objects(noisy, truth, whole(truth))
    found = compare_objects(turned, truth, whole(truth))
    expected = 20 * math.log10(np.ptp(np.abs(truth)) / 0.02)
    assert found.amplitude_psnr_dB == pytest.approx(expected, abs=0.2)
    assert found.phase_psnr_dB == pytest.approx(plain.phase_psnr_dB, abs=0.01)
    assert found.amplitude_ssim == pytest.approx(plain.amplitude_ssim, abs=1e-3)
    assert found.complex_error == pytest.approx(plain.complex_error, abs=1e-4)
    assert found.ramp_rad_per_px == pytest.approx((0.21, -0.4), abs=1e-4)
    assert found.scale_amplitude == pytest.approx(1 / 0.3, rel=2e-3)
    assert found.region_px == truth.size


def test_phase_wraps_are_no_errors():
    y, x = np.indices((70, 81))
    hill = 9 * np.exp(-((y - 30) ** 2 + (x - 45) ** 2) / 400)
    rng = np.random.default_rng(7)
    truth = np.exp(1j * hill).astype(np.complex64)
    wobble = 0.03 * rng.standard_normal(truth.shape)
    found = compare_objects((truth * np.exp(1j * wobble)).astype(np.complex64), truth, whole(truth))
    # The range is that of the unwrapped hill.
    assert found.phase_psnr_dB == pytest.approx(20 * math.log10(np.ptp(hill) / 0.03), abs=0.3)
    assert math.isnan(found.amplitude_psnr_dB)


def test_figures_fit_into_json():
    truth = transmission((64, 64), 9)
    perfect = compare_objects(truth, truth, whole(truth)).as_dict()
    assert perfect['complex_error'] < 1e-6
    assert perfect['frc_resolution_px'] is None
    assert perfect['shift_px'] == [0.0, 0.0]
    real = np.abs(truth).astype(np.complex64)
    flat = compare_objects(real, real, whole(truth)).as_dict()
    assert flat['phase_psnr_dB'] is None
    assert flat['phase_ssim'] is None
    assert json.loads(json.dumps(flat, allow_nan=False)) == flat
    assert set(flat) == set(ObjectMetrics.__dataclass_fields__) - {'frc'}


def test_what_lies_outside_the_region_does_not_count():
    truth = transmission((80, 90), 10)
    region = np.zeros(truth.shape, dtype=bool)
    region[9:61, 20:85] = True
    noisy = (truth * np.exp(0.05j * np.random.default_rng(0).standard_normal(truth.shape))).astype(
        np.complex64
    )
    spoilt = np.where(region, noisy, 40).astype(np.complex64)
    one, two = (compare_objects(o, truth, region) for o in (noisy, spoilt))
    assert one.shift_px == two.shift_px == (0.0, 0.0)
    assert one.phase_psnr_dB == pytest.approx(two.phase_psnr_dB, abs=1e-3)
    assert one.amplitude_ssim == pytest.approx(two.amplitude_ssim, abs=1e-6)
    assert one.frc_nyquist_fraction == pytest.approx(two.frc_nyquist_fraction)
