import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.physics import (
    MIN_INTENSITY,
    far_field,
    gather_patches,
    illumination,
    impose_counts,
    near_field,
    poisson_loss,
    predict_counts,
    scatter_patches,
    shift_probe,
)

N = 32


def gaussian(centre, n=N, width=2.6):
    """A smooth complex spot around `centre` [y, x], narrow enough for any shift to stay inside."""
    y, x = np.indices((n, n)) - np.reshape(centre, (2, 1, 1))
    return np.exp(-(y**2 + 1.4 * x**2 + 0.3 * y * x) / (2 * width**2) + 0.11j * y - 0.04j * x * y)


def noise(shape, seed):
    return np.random.default_rng(seed).normal(size=(*shape, 2)).view(np.complex128)[..., 0]


@pytest.fixture
def scene():
    """Object (41, 57), two unequal modes, and where five patches lie."""
    object_ = 0.9 + 0.1 * noise((41, 57), 1)
    probe = np.stack([5 * gaussian((14, 18)), gaussian((19, 11)) * 2j])
    corners = np.array([[0, 25], [9, 0], [3, 17], [3, 18], [9, 25]])
    remainders = np.array([[0.3, -0.45], [0.0, 0.0], [-0.5, 0.2], [0.1, 0.49], [-0.2, -0.2]])
    return object_, probe, corners, remainders


# shift_probe


@pytest.mark.parametrize('shift', [(0.3, -0.45), (-0.5, 0.49), (0.0, 0.25), (-1.6, -2.2)])
def test_a_shifted_gaussian_is_the_gaussian_at_its_new_centre(shift):
    modes = np.stack([gaussian((15, 17)), 1j * gaussian((18, 14))])
    expected = np.stack(
        [
            gaussian((15 + shift[0], 17 + shift[1])),
            1j * gaussian((18 + shift[0], 14 + shift[1])),
        ]
    )
    shifted = shift_probe(modes, np.array([shift]))
    assert shifted.shape == (1, 2, N, N)
    np.testing.assert_allclose(shifted[0], expected, atol=1e-6)


@pytest.mark.parametrize('shift', [(1, 0), (0, -3), (-7, 5)])
def test_a_shift_by_whole_pixels_rolls(shift):
    probe = noise((2, N, N), 3)
    shifted = shift_probe(probe, np.array([shift], dtype=float))[0]
    np.testing.assert_allclose(shifted, np.roll(probe, shift, axis=(-2, -1)), atol=1e-12)


def test_every_position_has_its_own_shift(scene):
    _, probe, _, remainders = scene
    together = shift_probe(probe, remainders)
    assert together.shape == (5, 2, N, N)
    for shifted, remainder in zip(together, remainders, strict=True):
        np.testing.assert_allclose(shifted, shift_probe(probe, remainder[None])[0], atol=1e-12)
    np.testing.assert_allclose(together[1], probe, atol=1e-12)


def test_a_shift_keeps_the_energy():
    probe = noise((1, N, N), 5)
    shifted = shift_probe(probe, np.array([[0.37, -0.21]]))
    assert np.sum(np.abs(shifted) ** 2) == pytest.approx(np.sum(np.abs(probe) ** 2), rel=1e-12)


# gather_patches, scatter_patches


def test_gathered_patches_are_cut_at_their_corners(scene):
    object_, _, corners, _ = scene
    patches = gather_patches(object_, corners, N)
    assert patches.shape == (5, N, N)
    for patch, (y, x) in zip(patches, corners, strict=True):
        assert patch[0, 0] == object_[y, x]
        assert patch[2, 31] == object_[y + 2, x + 31]


def test_scattered_patches_add_up(scene):
    _, _, corners, _ = scene
    canvas = np.full((41, 57), 100.0)
    scatter_patches(np.arange(1.0, 6.0)[:, None, None] * np.ones((5, N, N)), corners, canvas)
    assert canvas[0, 0] == 100
    assert canvas[40, 0] == 102  # the second patch alone
    assert canvas[5, 30] == 100 + 1 + 3 + 4
    assert canvas[20, 28] == 100 + 15
    assert canvas[40, 56] == 105


def test_scattering_is_the_adjoint_of_gathering(scene):
    object_, _, corners, _ = scene
    patches = noise((5, N, N), 8)
    canvas = np.zeros_like(object_)
    scatter_patches(patches, corners, canvas)
    left = np.vdot(gather_patches(object_, corners, N), patches)
    assert left == pytest.approx(np.vdot(object_, canvas), rel=1e-12)


# far_field, near_field


def test_the_far_field_keeps_energy_and_comes_back():
    waves = noise((3, 2, N, N), 2)
    far = far_field(waves)
    np.testing.assert_allclose(np.sum(np.abs(far) ** 2), np.sum(np.abs(waves) ** 2), rtol=1e-12)
    np.testing.assert_allclose(near_field(far), waves, atol=1e-12)
    np.testing.assert_allclose(far_field(near_field(waves)), waves, atol=1e-12)


@pytest.mark.parametrize('n', [16, N])
@pytest.mark.parametrize('tilt', [(0, 0), (3, -5), (-1, 2)])
def test_a_tilted_plane_wave_lands_beside_the_centre(n, tilt):
    """A phase that rises with the row goes to higher rows, with the phase of pixel [N//2, N//2]."""
    y, x = np.indices((n, n)) - n // 2
    far = far_field(np.exp(2j * np.pi * (tilt[0] * y + tilt[1] * x) / n + 0.7j))
    expected = np.zeros((n, n), dtype=complex)
    expected[n // 2 + tilt[0], n // 2 + tilt[1]] = n * np.exp(0.7j)
    np.testing.assert_allclose(far, expected, atol=1e-11)


def test_a_point_off_centre_tilts_the_far_field():
    point = np.zeros((N, N), dtype=complex)
    point[N // 2 + 2, N // 2 - 3] = N
    q_y, q_x = np.indices((N, N)) - N // 2
    np.testing.assert_allclose(
        far_field(point), np.exp(-2j * np.pi * (2 * q_y - 3 * q_x) / N), atol=1e-12
    )


# predict_counts


def test_modes_add_incoherently(scene):
    object_, probe, corners, remainders = scene
    counts = predict_counts(object_, probe, corners, remainders)
    assert counts.shape == (5, N, N)
    single = [predict_counts(object_, mode[None], corners, remainders) for mode in probe]
    np.testing.assert_allclose(counts, single[0] + single[1], rtol=1e-10, atol=1e-10)
    coherent = predict_counts(object_, probe.sum(axis=0)[None], corners, remainders)
    assert np.abs(counts - coherent).max() > 0.1 * counts.max()


def test_a_phase_of_a_mode_or_of_the_object_is_invisible(scene):
    object_, probe, corners, remainders = scene
    turned = probe * np.exp([0.4j, -2.1j])[:, None, None]
    np.testing.assert_allclose(
        predict_counts(object_ * np.exp(1.3j), turned, corners, remainders),
        predict_counts(object_, probe, corners, remainders),
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_dark_half_of_the_object_is_where_the_position_says(scene):
    """Only photons through the open half arrive; their number is the probe's energy there."""
    _, probe, corners, remainders = scene
    object_ = np.zeros((41, 57), dtype=complex)
    object_[:20] = 1
    totals = predict_counts(object_, probe, corners, remainders).sum(axis=(1, 2))
    for total, corner, remainder in zip(totals, corners, remainders, strict=True):
        shifted = shift_probe(probe, remainder[None])[0]
        open_rows = slice(0, 20 - corner[0])
        assert total == pytest.approx(np.sum(np.abs(shifted[:, open_rows]) ** 2), rel=1e-9)


# poisson_loss


@pytest.fixture
def counted():
    rng = np.random.default_rng(6)
    expected = rng.gamma(2.0, 4.0, size=(6, N, N))
    valid = rng.random((N, N)) > 0.2
    return expected, rng.poisson(expected).astype(np.float32), valid


def test_the_loss_by_hand():
    counts = np.array([[[3.0, 0.0], [8.0, 2.0]]])
    predicted = np.array([[[2.0, 0.5], [9.0, 77.0]]])
    valid = np.array([[True, True], [True, False]])
    terms = [2 - 3 * np.log(2) - (3 - 3 * np.log(3)), 0.5, 9 - 8 * np.log(9) - (8 - 8 * np.log(8))]
    assert poisson_loss(predicted, counts, valid, 4.0) == pytest.approx(sum(terms) / 3 / 4)


def test_a_perfect_prediction_costs_nothing(counted):
    expected, counts, valid = counted
    assert poisson_loss(expected, expected, valid, 8.0) == 0
    assert (counts[:, valid] == 0).any()
    assert poisson_loss(counts, counts, valid, 8.0) == pytest.approx(0, abs=1e-9)
    assert poisson_loss(expected * 1.01, expected, valid, 8.0) > 0
    assert poisson_loss(expected * 0.99, expected, valid, 8.0) > 0


def test_the_loss_falls_towards_the_counts_from_both_sides():
    counts, valid = np.full((1, 1, 1), 7.0), np.ones((1, 1), dtype=bool)

    def slope(predicted):
        step = 1e-6
        ends = (
            poisson_loss(np.full((1, 1, 1), predicted + s), counts, valid, 7.0)
            for s in (step, -step)
        )
        return (next(ends) - next(ends)) / (2 * step)

    for predicted in (0.5, 3.0, 6.9, 7.1, 30.0):
        assert slope(predicted) == pytest.approx((1 - 7 / predicted) / 7, rel=1e-5)


def test_a_dark_prediction_is_expensive_and_finite():
    counts, valid = np.full((1, 1, 2), [5.0, 0.0]), np.ones((1, 2), dtype=bool)
    loss = poisson_loss(np.zeros((1, 1, 2)), counts, valid, 5.0)
    assert loss == pytest.approx((5 * np.log(5 / MIN_INTENSITY) - 5) / 2 / 5)


def test_bad_pixels_take_no_part_in_the_loss(counted):
    expected, counts, valid = counted
    loss = poisson_loss(expected, counts, valid, 8.0)
    spoilt = counts.copy()
    spoilt[:, ~valid] = 1e9
    assert poisson_loss(expected, spoilt, valid, 8.0) == loss
    assert poisson_loss(np.where(valid, expected, 1e9), counts, valid, 8.0) == loss
    assert poisson_loss(expected, counts, np.ones_like(valid), 8.0) != loss


def test_the_loss_does_not_depend_on_the_batch(counted):
    expected, counts, valid = counted
    whole = poisson_loss(expected, counts, valid, 8.0)
    single = [poisson_loss(expected[i : i + 1], counts[i : i + 1], valid, 8.0) for i in range(6)]
    assert whole == pytest.approx(np.mean(single), rel=1e-12)
    twice = poisson_loss(np.tile(expected, (2, 1, 1)), np.tile(counts, (2, 1, 1)), valid, 8.0)
    assert whole == pytest.approx(twice, rel=1e-12)


def test_the_loss_does_not_depend_on_the_dose(counted):
    expected, counts, valid = counted
    low = poisson_loss(expected, counts, valid, 8.0)
    assert poisson_loss(1000 * expected, 1000 * counts, valid, 8000.0) == pytest.approx(low)


# impose_counts


def best_amplitude(amplitude, count):
    """Brute force: the minimiser of a'^2 - k log a'^2 + (a' - a)^2."""

    def objective(a):
        return a**2 - 2 * count * np.log(max(a, 1e-300)) + (a - amplitude) ** 2

    upper = amplitude + np.sqrt(count) + 1
    return minimize_scalar(objective, bounds=(0, upper), method='bounded', options={'xatol': 1e-12})


@pytest.mark.parametrize('count', [0.0, 1.0, 7.0, 250.0, 1e6])
@pytest.mark.parametrize('ratio', [0.1, 0.8, 1.0, 1.3, 20.0])
def test_amplitudes_go_half_beyond_the_minimiser_of_their_objective(count, ratio):
    amplitude = ratio * np.sqrt(max(count, 0.5))
    # Three modes share the amplitude; each keeps its phase and its share.
    modes = np.array([3 + 4j, -2j, 1 - 1j])
    waves = (amplitude * modes / np.linalg.norm(modes)).reshape(1, 3, 1, 1)
    imposed = impose_counts(waves, np.full((1, 1, 1), count), np.ones((1, 1), bool))
    expected = amplitude + 1.5 * (best_amplitude(amplitude, count).x - amplitude)
    assert np.linalg.norm(imposed) == pytest.approx(expected, rel=2e-5)
    np.testing.assert_allclose(
        imposed / waves, (imposed / waves)[0, 0, 0, 0] * np.ones((1, 3, 1, 1))
    )
    assert abs(np.angle(imposed[0, 0, 0, 0] / waves[0, 0, 0, 0])) < 1e-12


@pytest.mark.parametrize('error', [-1e-3, 1e-3])
def test_near_many_counts_it_is_the_modulus_constraint(error):
    count = 1e8
    waves = np.full((1, 1, 1, 1), np.sqrt(count) * (1 + error) * np.exp(0.3j))
    imposed = impose_counts(waves, np.full((1, 1, 1), count), np.ones((1, 1), bool))
    np.testing.assert_allclose(imposed, np.sqrt(count) * np.exp(0.3j), rtol=2 * error**2)


def test_imposing_lowers_the_loss_of_every_pixel(counted):
    _, counts, valid = counted
    waves = noise((6, 2, N, N), 9) * 3
    before = np.sum(np.abs(waves) ** 2, axis=1)
    after = np.sum(np.abs(impose_counts(waves, counts, valid)) ** 2, axis=1)
    k = np.maximum(counts, MIN_INTENSITY)
    change = (after - k * np.log(after)) - (before - k * np.log(before))
    assert change[:, valid].max() < 1e-6
    assert poisson_loss(after, counts, valid, 8.0) < 0.2 * poisson_loss(before, counts, valid, 8.0)


def test_bad_pixels_are_left_free(counted):
    _, counts, valid = counted
    counts[:, ~valid] = 1e9
    waves = noise((6, 2, N, N), 9)
    imposed = impose_counts(waves, counts, valid)
    assert (imposed[..., ~valid] == waves[..., ~valid]).all()
    assert (imposed[..., valid] != waves[..., valid]).all()


def test_a_dark_wave_stays_finite():
    waves = np.zeros((1, 1, 1, 2), dtype=complex)
    imposed = impose_counts(waves, np.array([[[9.0, 0.0]]]), np.ones((1, 2), bool))
    assert (imposed == 0).all()


# illumination


def test_illumination_is_the_intensity_at_every_position(scene):
    _, probe, corners, remainders = scene
    canvas = illumination(probe, corners, remainders, (41, 57))
    expected = np.zeros((41, 57))
    for (y, x), (dy, dx) in zip(corners, remainders, strict=True):
        first = 5 * gaussian((14 + dy, 18 + dx))
        second = 2 * gaussian((19 + dy, 11 + dx))
        expected[y : y + N, x : x + N] += np.abs(first) ** 2 + np.abs(second) ** 2
    np.testing.assert_allclose(canvas, expected, atol=1e-4)
    assert canvas.sum() == pytest.approx(5 * np.sum(np.abs(probe) ** 2), rel=1e-12)


def test_illumination_of_one_position_is_centred_on_it():
    position = np.array([[20.3, 33.85]])
    corners, remainders = ObjectFrame((0, 0), (48, 57)).corners(position, N)
    # The middle of a patch is half a pixel before its pixel N//2.
    spot = gaussian((N / 2 - 0.5, N / 2 - 0.5))[None]
    canvas = illumination(spot, corners, remainders, (48, 57))
    y, x = np.indices(canvas.shape)
    centre = [(canvas * axis).sum() / canvas.sum() for axis in (y, x)]
    np.testing.assert_allclose(centre, position[0], atol=1e-6)
