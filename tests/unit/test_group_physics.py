"""The parts of the physics that 'cnn' alone uses, by hand and by SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from ptychodus_torch_plugin.physics import (
    MIN_INTENSITY,
    SMALLEST_STEP,
    amplitude_error,
    disc,
    object_error,
    shape_exit_waves,
    smoothing_kernel,
    total_variation,
)

N = 32


def noise(shape, seed):
    return np.random.default_rng(seed).normal(size=(*shape, 2)).view(np.complex128)[..., 0]


# disc, smoothing_kernel, shape_exit_waves


@pytest.mark.parametrize('n_px', [8, N, 64])
def test_the_disc_has_half_the_side_as_diameter_and_lies_in_the_middle(n_px):
    inside = disc(n_px)
    assert (inside.dtype, inside.shape) == (bool, (n_px, n_px))
    np.testing.assert_array_equal(inside, inside[::-1, ::-1])
    row = np.flatnonzero(inside[n_px // 2])
    assert [row[0], row[-1]] == [n_px // 4, 3 * n_px // 4 - 1]
    assert inside.sum() == pytest.approx(np.pi * (n_px / 4) ** 2, rel=0.05)


@pytest.mark.parametrize('sigma_px', [0.3, 1.0, 10.0])
def test_the_filter_is_a_gaussian_of_three_pixels(sigma_px):
    kernel = smoothing_kernel(sigma_px)
    assert kernel.sum() == pytest.approx(1)
    assert kernel[1, 0] / kernel[1, 1] == pytest.approx(np.exp(-0.5 / sigma_px**2))
    assert kernel[2, 0] / kernel[1, 1] == pytest.approx(np.exp(-1 / sigma_px**2))
    np.testing.assert_array_equal(kernel, kernel.T[::-1])


@pytest.mark.parametrize('sigma_px', [0.0, 0.7])
@pytest.mark.parametrize('masked', [False, True])
def test_exit_waves_are_filtered_and_then_cut_off(sigma_px, masked):
    waves = noise((2, 3, N, N), 1)
    expected = waves
    if sigma_px:
        kernel = smoothing_kernel(sigma_px)[None, None]
        expected = ndimage.correlate(waves, kernel, mode='constant')
    if masked:
        expected = expected * disc(N)
    shaped = shape_exit_waves(waves, sigma_px, masked=masked)
    np.testing.assert_allclose(shaped, expected, atol=1e-12)


# amplitude_error


def test_the_amplitude_error_by_hand():
    counts = np.array([[[4.0, 0.0], [9.0, 2.0]], [[1.0, 1.0], [16.0, 3.0]]])
    predicted = np.array([[[1.0, 4.0], [16.0, 77.0]], [[1.0, 9.0], [0.0, 66.0]]])
    valid = np.array([[True, True], [True, False]])
    expected = (1 + 2 + 1 + 0 + 2 + 4) / 6 / np.sqrt(5.0)
    assert amplitude_error(predicted, counts, valid, 5.0) == pytest.approx(
        expected, abs=np.sqrt(MIN_INTENSITY)
    )


def test_the_amplitude_error_does_not_depend_on_the_dose_or_on_bad_pixels():
    rng = np.random.default_rng(6)
    counts, predicted = rng.gamma(2.0, 4.0, size=(2, 6, N, N))
    valid = rng.random((N, N)) > 0.2
    error = amplitude_error(predicted, counts, valid, 8.0)
    assert amplitude_error(900 * predicted, 900 * counts, valid, 7200.0) == pytest.approx(error)
    garbage = np.where(valid, counts, 1e9)
    assert amplitude_error(predicted, garbage, valid, 8.0) == error
    assert amplitude_error(predicted, counts, valid.T, 8.0) != error


# object_error


def test_the_object_error_is_the_weighted_mean_of_distances():
    truth = np.array([[[1, 1j], [0, 2]], [[1, 1], [1, 1]]], dtype=complex)
    patches = truth + np.array([[[3 + 4j, 0], [0, 1j]], [[0, -2], [1, 0]]])
    weight = np.array([[1.0, 0.5], [0.0, 2.0]])
    assert object_error(patches, truth, weight) == pytest.approx((5 + 2 + 1) / 2 / 3.5)
    assert object_error(truth, truth, weight) == 0


# total_variation


def test_a_ramp_varies_by_its_slope_and_a_constant_not():
    y, x = np.indices((7, 12))
    ramp = np.stack([0.3j * y - 0.4 * x, np.full((7, 12), 5 - 2j)])
    expected = np.sqrt(0.25 + SMALLEST_STEP**2), SMALLEST_STEP
    for one, length in zip(ramp, expected, strict=True):
        assert total_variation(one[None]) == pytest.approx(length)
    assert total_variation(ramp) == pytest.approx(np.mean(expected))


def test_an_edge_varies_by_its_height_along_its_length():
    step = np.zeros((1, 9, 6), dtype=complex)
    step[:, :, 4:] = 2j
    wanted = (np.sqrt(4 + SMALLEST_STEP**2) + 4 * SMALLEST_STEP) / 5
    assert total_variation(step) == pytest.approx(wanted)
