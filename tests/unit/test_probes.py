import numpy as np
import pytest

from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.physics import far_field, predict_counts, shift_probe
from ptychodus_torch_plugin.probes import (
    NEW_MODE_ENERGY,
    center_px,
    far_field_counts,
    orthogonalise,
    ramp,
    scale_probe,
    tilt_px,
    with_modes,
)

N = 32


def spot(centre, width=2.4, n=N):
    y, x = np.indices((n, n)) - np.reshape(centre, (2, 1, 1))
    return np.exp(-(y**2 + 0.7 * x**2) / (2 * width**2) + 0.07j * y**2 - 0.2j * x)


def energies(probe):
    return np.sum(np.abs(probe) ** 2, axis=(1, 2))


def gram(probe):
    flat = probe.reshape(len(probe), -1)
    return flat.conj() @ flat.T


@pytest.fixture
def modes():
    """Three modes, neither orthogonal nor sorted."""
    return np.stack([2j * spot((14, 18)), 5 * spot((17, 15)), spot((19, 12), 3.1)])


# scale_probe


def test_an_empty_object_predicts_the_mean_counts_of_good_pixels(modes):
    valid = np.ones((N, N), dtype=bool)
    valid[16, 14:19] = valid[3, 4] = False  # a beam stop in the middle
    scaled = scale_probe(modes, 4321.0, valid)
    far = np.sum(np.abs(far_field(scaled)) ** 2, axis=0)
    assert far[valid].sum() == pytest.approx(4321.0, rel=1e-9)
    assert far.sum() > 1.02 * 4321.0  # the stop takes photons that were not counted
    np.testing.assert_allclose(scaled / modes, scaled[0, 14, 18] / modes[0, 14, 18])


def test_the_scale_does_not_depend_on_the_one_before(modes):
    valid = np.ones((N, N), dtype=bool)
    np.testing.assert_allclose(
        scale_probe(1e4 * modes, 99.0, valid), scale_probe(modes, 99.0, valid), rtol=1e-12
    )
    assert energies(scale_probe(modes, 99.0, valid)).sum() == pytest.approx(99.0)


# with_modes


def test_the_wanted_number_may_be_the_one_there_is(modes):
    assert with_modes(modes, None) is modes
    assert with_modes(modes, 3) is modes


def test_fewer_modes_are_the_strongest_ones(modes):
    fewer = with_modes(modes, 2)
    assert (fewer[0] == modes[1]).all()
    assert (fewer[1] == modes[np.argsort(-energies(modes))[1]]).all()
    assert (with_modes(modes, 1) == modes[1:2]).all()


@pytest.mark.parametrize('dtype', [np.complex64, np.complex128])
@pytest.mark.parametrize('n_modes', [2, 3, 5, 8])
def test_new_modes_are_orthogonal_and_weak(dtype, n_modes):
    first = (7 * spot((13.4, 18.2))).astype(dtype)[None]
    more = with_modes(first, n_modes)
    assert more.shape == (n_modes, N, N)
    assert more.dtype == dtype
    assert (more[0] == first[0]).all()
    overlap = gram(more.astype(np.complex128))
    expected = np.full(n_modes, NEW_MODE_ENERGY)
    expected[0] = 1
    energy = overlap[0, 0].real
    np.testing.assert_allclose(overlap / energy, np.diag(expected), atol=1e-6)


@pytest.mark.parametrize('mixture', [0.0, 0.6], ids=['orthogonal', 'mixed'])
def test_new_modes_come_behind_those_that_are_there(mixture):
    """The second mode is bent along y already, so that the next new one bends along x."""
    first, second = 4 * spot((16, 16)), 0.5 * spot((16, 16)) * (np.indices((N, N))[0] - 16)
    there = np.stack([first, second + mixture * 0.4 * first])
    more = with_modes(there, 4)
    assert (more[:2] == there).all()
    overlap = np.abs(gram(more))
    strongest = overlap[0, 0]
    for new in (2, 3):
        assert overlap[new, new] == pytest.approx(NEW_MODE_ENERGY * strongest)
        assert np.delete(overlap[new], new).max() < 1e-9 * strongest
    y, x = np.indices((N, N)) - 16
    profile = np.abs(more[2]).sum(axis=0)
    assert profile[16] < 0.05 * profile.max()  # a dark line along y, between two lobes
    assert np.average(x[0] ** 2, weights=profile**2) > np.average(
        y[:, 0] ** 2, weights=np.abs(more[2]).sum(axis=1) ** 2
    )


def test_modes_may_be_added_one_after_the_other():
    first = spot((13.4, 18.2)).astype(np.complex64)[None]
    one_by_one = with_modes(with_modes(with_modes(first, 2), 3), 5)
    np.testing.assert_allclose(one_by_one, with_modes(first, 5), atol=1e-5)


def test_new_modes_bend_along_y_then_x():
    y, x = np.indices((N, N)) - 16
    first = spot((16, 16))
    more = with_modes(first[None], 3)
    for new, axis, other in ((more[1], y, x), (more[2], x, y)):
        lobes = (new / np.where(np.abs(first) > 1e-3, first, np.inf)).real
        assert np.corrcoef(lobes.ravel(), (axis * (np.abs(first) > 1e-3)).ravel())[0, 1] > 0.99
        assert abs(np.corrcoef(lobes.ravel(), other.ravel())[0, 1]) < 0.05


def test_more_modes_than_there_are_polynomials():
    with pytest.raises(ConfigError, match='9 probe modes were asked for; expected at most 8'):
        with_modes(spot((16, 16))[None], 9)


# center_px


def test_the_centre_is_that_of_the_summed_intensity():
    first, second = 3 * spot((13.25, 17.5)), spot((18.0, 11.75))
    assert center_px(first[None]) == pytest.approx((13.25, 17.5), abs=1e-6)
    shares = energies(np.stack([first, second]))
    expected = np.average([(13.25, 17.5), (18.0, 11.75)], axis=0, weights=shares)
    assert center_px(np.stack([first, second])) == pytest.approx(expected, abs=1e-6)
    assert shares[0] > 5 * shares[1]


# tilt_px, ramp, far_field_counts


TILTS = [(0.0, 0.0), (0.43, -1.27), (-2.6, 0.08), (3.0, 5.0)]


def test_far_field_counts_are_those_of_an_empty_object(modes):
    empty, where = np.ones((40, 50)), (np.array([[5, 9]]), np.zeros((1, 2)))
    np.testing.assert_allclose(
        far_field_counts(modes), predict_counts(empty, modes, *where)[0], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize('tilt', TILTS)
def test_a_ramp_moves_the_far_field_by_its_tilt(modes, tilt):
    moved = far_field_counts(modes * ramp((N, N), tilt, N))
    rolled = shift_probe(far_field_counts(modes)[None], np.array([tilt]))[0, 0].real
    np.testing.assert_allclose(moved, rolled, atol=1e-3 * rolled.max())


def test_a_ramp_on_a_canvas_continues_that_of_a_patch():
    small, large = (ramp(shape, (0.43, -1.27), N) for shape in ((N, N), (41, 57)))
    assert large.shape == (41, 57)
    assert large[0, 0] == 1
    np.testing.assert_allclose(large[:N, :N], small, rtol=1e-12)
    np.testing.assert_allclose(large[9:, 25:], small * large[9, 25], rtol=1e-12)


@pytest.mark.parametrize('tilt', TILTS)
def test_a_known_tilt_is_measured_with_its_sign(modes, tilt):
    tilted, plain = far_field_counts(modes * ramp((N, N), tilt, N)), far_field_counts(modes)
    assert tilt_px(tilted, plain) == pytest.approx(tilt, abs=0.02)
    assert tilt_px(plain, tilted) == pytest.approx((-tilt[0], -tilt[1]), abs=0.02)


def test_a_tilt_is_measured_between_the_steps_of_the_grid(modes):
    """A rounding of the patterns is one of the tilt, also half-way between two steps."""
    plain = far_field_counts(modes)
    rounding = 1 + 1e-6 * np.random.default_rng(4).normal(size=plain.shape)
    for tilt in ((0.005, -0.015), (1.2345, 0.4999)):
        tilted = shift_probe(plain[None], np.array([tilt]))[0, 0].real
        assert tilt_px(tilted, plain) == pytest.approx(tilt, abs=1e-6)
        assert tilt_px(tilted * rounding, plain) == pytest.approx(tilt, abs=1e-5)


def test_a_tilt_along_an_axis_without_structure_does_not_run_away():
    stripes = np.ones((N, 1)) * np.hanning(N)
    y, x = tilt_px(np.roll(stripes, 2, axis=1), stripes)
    assert abs(y) < 1
    assert x == pytest.approx(2, abs=1e-6)


def test_energy_and_place_of_a_probe_are_no_tilt(modes):
    moved = 3 * shift_probe(modes, np.array([[1.0, -2.0]]))[0]
    measured = tilt_px(far_field_counts(moved), far_field_counts(modes))
    assert measured == pytest.approx((0, 0), abs=0.011)


# orthogonalise


def test_orthogonal_modes_predict_the_same_counts(modes):
    mixed = orthogonalise(modes)
    overlap = gram(mixed)
    energy = np.diag(overlap).real
    assert np.abs(overlap - np.diag(np.diag(overlap))).max() < 1e-9 * energy[0]
    assert (np.diff(energy) < 0).all()
    assert energy.sum() == pytest.approx(energies(modes).sum(), rel=1e-12)
    object_ = 0.8 + 0.2 * np.random.default_rng(1).normal(size=(40, 47, 2)).view(complex)[..., 0]
    where = np.array([[0, 3], [8, 15]]), np.array([[0.2, -0.4], [0.0, 0.3]])
    before = predict_counts(object_, modes, *where)
    np.testing.assert_allclose(
        predict_counts(object_, mixed, *where), before, atol=1e-9 * before.max()
    )


def test_the_first_mode_keeps_its_phase(modes):
    for turn in (1, 1j, np.exp(2.5j)):
        mixed = orthogonalise(modes * turn)
        overlap = np.vdot(mixed[0], modes[0] * turn)
        assert overlap.real > 0
        assert abs(overlap.imag) < 1e-9 * overlap.real


def test_orthogonal_modes_stay_as_they_are():
    probe = with_modes(spot((14, 18))[None], 3) * np.array([1, 1, 1.5])[:, None, None]
    mixed = orthogonalise(probe)
    for index, source in enumerate((0, 2, 1)):  # the third has more energy than the second
        overlap = np.abs(np.vdot(mixed[index], probe[source]))
        assert overlap == pytest.approx(energies(probe)[source], rel=1e-9)


def test_one_mode_is_left_alone_and_dtypes_are_kept(modes):
    single = modes[:1]
    assert orthogonalise(single) is single
    assert orthogonalise(modes.astype(np.complex64)).dtype == np.complex64
