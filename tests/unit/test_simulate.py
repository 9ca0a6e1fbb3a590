import socket
from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.errors import ConfigError, ScanValueError
from ptychodus_torch_plugin.phantoms import IMAGE_SETS, load_image, make_object
from ptychodus_torch_plugin.physics import far_field, predict_counts
from ptychodus_torch_plugin.probes import center_px
from ptychodus_torch_plugin.simulate import (
    SimulationConfig,
    diameter_of,
    expected_counts,
    simulate_scan,
    zone_plate_probe,
)

KINDS = ('natural', 'dead-leaves', 'siemens-star', 'circuit')
SMALL = {'n_positions': 49, 'N': 32, 'seed': 3}


def small_scan(**settings):
    return simulate_scan(SimulationConfig(**{**SMALL, **settings}))


def plain_pattern(object_, probe, position):
    """One pattern by explicit sums: no FFT, no helper of the package."""
    n = probe.shape[-1]
    first = position - (n - 1) / 2
    corner = np.floor(first + 0.5).astype(int)
    k = np.arange(n) - n // 2
    pattern = np.zeros((n, n))
    for mode in probe:
        shifts = []
        for remainder in first - corner:
            # Trigonometric interpolation: sample the mode at (pixel - remainder).
            distance = np.arange(n)[:, None] - remainder - np.arange(n)[None]
            shifts.append(np.exp(2j * np.pi * distance[..., None] * k / n).mean(axis=-1))
        shifted = shifts[0] @ mode @ shifts[1].T
        exit_wave = shifted * object_[corner[0] : corner[0] + n, corner[1] : corner[1] + n]
        dft = np.exp(-2j * np.pi * np.outer(k, k) / n) / np.sqrt(n)
        pattern += np.abs(dft @ exit_wave @ dft.T) ** 2
    return pattern


@pytest.mark.parametrize('kind', KINDS)
def test_same_settings_same_bits(kind):
    first, second = (small_scan(object_kind=kind, position_error_px=0.5) for _ in range(2))
    other = small_scan(object_kind=kind, position_error_px=0.5, seed=4)
    for name in ('patterns', 'positions_px', 'probe', 'object_guess'):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
        assert getattr(first, name).tobytes() != getattr(other, name).tobytes()
    assert (first.name, other.name) == (f'simulated-{kind}-seed3', f'simulated-{kind}-seed4')


def test_dose_noise_and_offset_leave_the_object_alone():
    reference = small_scan()
    changed = small_scan(photons=1e3, poisson=False, offset_px=(-3.75, 7.5), position_error_px=1.0)
    np.testing.assert_array_equal(changed.object_guess, reference.object_guess)
    np.testing.assert_allclose(  # same shape, other scale
        changed.probe * np.linalg.norm(reference.probe) / np.linalg.norm(changed.probe),
        reference.probe,
        rtol=1e-5,
        atol=1e-5 * np.abs(reference.probe).max(),
    )
    offset = small_scan(offset_px=(-3.75, 7.5))
    shift = offset.positions_px - reference.positions_px
    np.testing.assert_allclose(shift, np.broadcast_to([-3.75, 7.5], shift.shape), atol=1e-10)


def test_patterns_follow_an_independent_forward_model():
    scan = small_scan(probe_modes=2, poisson=False, offset_px=(2.2, -4.9), photons=3e3)
    assert np.abs(scan.positions_px % 1 - 0.5).min() < 0.05  # remainders of both signs
    object_, probe = scan.object_guess.astype(complex), scan.probe.astype(complex)
    for index in (0, 17, 45):
        expected = plain_pattern(object_, probe, scan.positions_px[index])
        np.testing.assert_allclose(
            scan.patterns[index], expected, rtol=1e-4, atol=1e-6 * expected.max()
        )


def test_a_hole_sees_the_probe_move_over_it():
    # Only one pixel transmits: the total count is the probe's intensity there.
    object_ = np.zeros((61, 61), dtype=np.complex64)
    object_[30, 24] = 1
    probe = zone_plate_probe(32, 14.0, 5)[None]
    positions = np.array([[27.5, 26.5], [31.5, 20.5], [33.5, 25.5]])
    totals = expected_counts(object_, probe, positions).sum(axis=(1, 2))
    corners = (positions - 15.5).astype(int)
    seen = [np.abs(probe[0, 30 - y, 24 - x]) ** 2 for y, x in corners]
    np.testing.assert_allclose(totals, seen, rtol=1e-4)
    assert len(np.unique(np.round(seen, 6))) == 3


@pytest.mark.parametrize('photons', [300.0, 1e5])
def test_mean_counts_are_the_photons_asked_for(photons):
    noisy, clean = small_scan(photons=photons), small_scan(photons=photons, poisson=False)
    assert clean.mean_counts() == pytest.approx(photons, rel=1e-6)
    sigma = np.sqrt(photons / 49)
    assert abs(noisy.mean_counts() - photons) < 4 * sigma
    assert noisy.mean_counts() != clean.mean_counts()
    assert (noisy.patterns == np.round(noisy.patterns)).all()
    lit = clean.patterns > photons / 32**2 / 4
    chi_squared = ((noisy.patterns - clean.patterns)[lit] ** 2 / clean.patterns[lit]).mean()
    assert chi_squared == pytest.approx(1, abs=0.05)  # the variance of a count is its mean


@pytest.mark.parametrize('scan_kind', ['raster', 'spiral'])
def test_truth_and_frame_agree(scan_kind):
    scan = small_scan(scan=scan_kind, poisson=False, offset_px=(7.5, -7.5), jitter=0.5)
    assert scan.frame.origin_px == (0, 0)
    assert scan.frame.shape == scan.object_guess.shape
    corners, remainders = scan.frame.corners(scan.positions_px, scan.n_px)
    predicted = predict_counts(scan.object_guess, scan.probe, corners, remainders)
    np.testing.assert_allclose(scan.patterns, predicted, rtol=1e-3, atol=1e-3)


def test_reported_positions_are_wrong_but_patterns_are_not():
    right, wrong = small_scan(), small_scan(position_error_px=1.5)
    np.testing.assert_array_equal(right.patterns, wrong.patterns)
    errors = wrong.positions_px - right.positions_px
    assert np.sqrt((errors**2).mean()) == pytest.approx(1.5, rel=0.2)
    wild = small_scan(position_error_px=100.0)
    assert wild.frame.shape == wild.object_guess.shape


def test_raster_has_the_pitch_and_jitter():
    scan = small_scan(n_positions=52, jitter=0.2, step_px=9.0)
    assert scan.n_patterns == 49
    middle = (scan.object_guess.shape[0] - 1) / 2
    y, x = (scan.positions_px - middle).reshape(7, 7, 2).transpose(2, 0, 1)
    steps = np.arange(-3, 4)
    for displacement in (y - 9 * steps[:, None], x - 9 * steps[None]):
        assert 0.8 * 1.8 < np.abs(displacement).max() < 1.8
        assert displacement.min() < 0 < displacement.max()


def test_spiral_has_the_density_of_the_raster():
    scan = small_scan(scan='spiral', n_positions=300, N=16)
    middle = (scan.object_guess.shape[0] - 1) / 2
    radius = np.hypot(*(scan.positions_px - middle).T)
    inside = np.count_nonzero(radius < 45)
    assert inside == pytest.approx(np.pi * 45**2 / 7.5**2, rel=0.05)
    gaps = np.linalg.norm(scan.positions_px[:, None] - scan.positions_px[None], axis=-1)
    assert gaps[~np.eye(300, dtype=bool)].min() > 0.5 * 7.5


def test_training_and_test_images_are_disjoint():
    training, test = set(IMAGE_SETS['training']), set(IMAGE_SETS['test'])
    assert not training & test
    assert {'camera', 'clock'} <= test
    seen, unseen = small_scan(), small_scan(images='test')
    assert unseen.name == 'simulated-natural-test-seed3'
    assert not np.array_equal(seen.object_guess, unseen.object_guess)


def test_photographs_need_no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError('the network was asked for')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    for name in IMAGE_SETS['training'] + IMAGE_SETS['test']:
        image = load_image(name)
        assert image.ndim == 2
        assert min(image.shape) > 100
        assert 0 <= image.min() < 0.5 < image.max() <= 1
        assert image.std() > 0.03


def test_test_objects_draw_on_test_images_alone(monkeypatch):
    loaded = []

    def spy(name):
        loaded.append(name)
        return load_image(name)

    monkeypatch.setattr('ptychodus_torch_plugin.phantoms.load_image', spy)
    limits = {'amplitude_min': 0.5, 'phase_range_rad': 1.0, 'images': 'test'}
    for seed in range(8):
        make_object('natural', 40, np.random.default_rng(seed), **limits)
        assert loaded[-1] != loaded[-2]  # amplitude and phase are different photographs
    assert set(loaded) == set(IMAGE_SETS['test'])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('side', [123, 410])
def test_objects_fill_their_ranges(kind, side):
    rng = np.random.default_rng(2)
    object_ = make_object(kind, side, rng, amplitude_min=0.3, phase_range_rad=2.0)
    assert object_.shape == (side, side)
    assert object_.dtype == np.complex64
    assert np.isfinite(object_).all()
    for values, low, high in ((np.abs(object_), 0.3, 1.0), (np.angle(object_), 0.0, 2.0)):
        assert low - 1e-5 <= values.min() <= low + 0.15 * (high - low)
        assert high - 0.15 * (high - low) <= values.max() <= high + 1e-5
        assert values.std() > 0.1 * (high - low)


def test_flat_object_when_asked():
    object_ = make_object(
        'circuit', 40, np.random.default_rng(0), amplitude_min=1.0, phase_range_rad=0.0
    )
    np.testing.assert_array_equal(object_, np.ones((40, 40), dtype=np.complex64))


def test_siemens_star_has_spokes_all_the_way_round():
    star = make_object(
        'siemens-star', 301, np.random.default_rng(8), amplitude_min=0.0, phase_range_rad=0.0
    )
    dark = np.abs(star) < 0.5
    centre = np.argwhere(dark).mean(axis=0)
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)

    def edges(radius):
        y, x = (
            np.rint(c + radius * f(angles)) for c, f in zip(centre, (np.sin, np.cos), strict=True)
        )
        ring = dark[y.astype(int), x.astype(int)]
        return np.count_nonzero(ring != np.roll(ring, 1))

    outer = edges(0.36 * 301 * 0.8)
    assert outer == edges(0.36 * 301 * 0.5)
    assert outer % 4 == 0
    assert 48 <= outer <= 80
    assert edges(0.36 * 301 * 0.36) == edges(0.36 * 301 * 0.63) == 0  # the two gaps
    assert edges(0.36 * 301 * 0.97) == edges(0.36 * 301 * 0.05) == 0  # ring and disc
    assert dark[round(centre[0]), round(centre[1])]


@pytest.mark.parametrize(('n_px', 'diameter'), [(64, 24.0), (64, 13.0), (128, 60.0), (40, 15.0)])
@pytest.mark.parametrize('seed', [0, 11])
def test_zone_plate_probe(n_px, diameter, seed):
    probe = zone_plate_probe(n_px, diameter, seed)
    assert probe.dtype == np.complex64
    intensity = np.abs(probe.astype(complex)) ** 2
    assert intensity.sum() == pytest.approx(1, rel=1e-5)
    pixels = np.arange(n_px)
    variances = []
    for axis in (0, 1):
        profile = intensity.sum(axis=1 - axis)
        mean = (profile * pixels).sum()
        assert mean == pytest.approx(n_px // 2, abs=0.05)
        variances.append((profile * (pixels - mean) ** 2).sum())
    assert 4 * np.sqrt(np.mean(variances)) == pytest.approx(diameter, rel=0.03)
    assert diameter_of(probe) == pytest.approx(diameter, rel=1e-3)
    beam = np.abs(far_field(probe)) ** 2
    quarter = n_px // 4
    assert beam[quarter:-quarter, quarter:-quarter].sum() == pytest.approx(1, rel=1e-5)
    stop = slice(n_px // 2 - 1, n_px // 2 + 2)
    assert beam[stop, stop].max() < 1e-3 * beam.max()  # the central stop


def test_probe_is_aberrated_by_its_seed():
    one, two = zone_plate_probe(64, 24.0, 1), zone_plate_probe(64, 24.0, 2)
    assert 0.5 < abs(np.vdot(one, two)) < 0.99
    turned = np.roll(one[::-1, ::-1], (1, 1), axis=(0, 1))
    assert abs(np.vdot(one, turned)) < 0.99  # coma has no inversion centre


def test_impossible_probe_names_what_is_possible():
    with pytest.raises(ConfigError, match=r'7 px in diameter .* on 64 px; expected 1\d\.\d to'):
        zone_plate_probe(64, 7.0, 0)
    with pytest.raises(ConfigError, match='60 px in diameter'):
        small_scan(probe_diameter_px=60.0)


@pytest.mark.parametrize('n_px', [16, 24, 64])
def test_default_diameter_exists(n_px):
    scan = small_scan(N=n_px)
    assert diameter_of(scan.probe[0]) == pytest.approx(max(10, 0.375 * n_px), rel=1e-3)


def test_modes_are_orthogonal_with_their_energies():
    probe = small_scan(probe_modes=3).probe.astype(complex).reshape(3, -1)
    gram = probe.conj() @ probe.T
    energy = gram.diagonal().real
    np.testing.assert_allclose(energy / energy.sum(), [0.85, 0.10, 0.05], rtol=1e-4)
    np.testing.assert_allclose(gram / energy[0], np.diag(energy) / energy[0], atol=1e-5)
    assert len(small_scan(probe_modes=8).probe) == 8
    single = small_scan().probe
    np.testing.assert_allclose(center_px(single), [16, 16], atol=0.1)


def test_the_intensity_of_the_beam_varies_as_asked_for():
    settings = {'n_positions': 400, 'poisson': False, 'photons': 2e3}
    steady, varied = (small_scan(**settings, intensity_variation=v) for v in (0.0, 0.3))
    np.testing.assert_array_equal(varied.object_guess, steady.object_guess)
    np.testing.assert_array_equal(varied.positions_px, steady.positions_px)
    totals = [scan.patterns.sum(axis=(1, 2), dtype=np.float64) for scan in (varied, steady)]
    intensities = totals[0] / totals[1]
    assert intensities.std() / intensities.mean() == pytest.approx(0.3, rel=0.1)
    assert intensities.min() > 0
    assert varied.mean_counts() == pytest.approx(2e3, rel=1e-5)
    # The shape of a pattern stays what it is.
    shapes = [s.patterns / t[:, None, None] for s, t in zip((varied, steady), totals, strict=True)]
    np.testing.assert_allclose(*shapes, atol=1e-6)


def test_optics_make_the_object_pixel():
    optics = small_scan().optics
    wavelength_m = 12.398419843e-10 / (optics.photon_energy_eV / 1e3)
    dx = wavelength_m * optics.detector_distance_m / (32 * 75e-6)
    assert optics.pixel_size_m == pytest.approx((dx, dx), rel=1e-6)
    assert 5e-9 < dx < 50e-9
    assert 0.1 < optics.detector_distance_m < 10


def test_position_zero_metres_is_the_middle_of_the_object():
    scan = small_scan(jitter=0.0)
    metres = np.asarray(scan.optics.origin_m) + scan.positions_px * scan.optics.pixel_size_m
    np.testing.assert_allclose(metres.mean(axis=0), 0, atol=1e-15)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'N': 60}, 'N = 60.*multiple of 8'),
        ({'photons': 0}, 'photons = 0'),
        ({'object_kind': 'lena'}, 'object_kind'),
        ({'jitter': 0.6}, 'jitter'),
        ({'offset_px': [0, 8]}, r'offset_px = \(0\.0, 8\.0\) is more than step_px = 7\.5'),
        ({'steps': 3}, 'steps is not a known setting'),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        SimulationConfig.parse(settings)


def test_no_photons_is_an_error():
    with pytest.raises(ScanValueError, match='zero in every good pixel'):
        small_scan(photons=1e-6)


def test_settings_round_trip_and_travel_in_the_provenance():
    config = SimulationConfig(scan='spiral', offset_px=(1.5, -2.0), probe_diameter_px=20.0)
    assert SimulationConfig.parse(config.to_json()) == config
    scan = small_scan()
    text = scan.provenance[0].removeprefix('simulated with ')
    again = simulate_scan(SimulationConfig.model_validate_json(text))
    assert again.fingerprint() == scan.fingerprint()
    assert replace(scan, name='x').fingerprint() == scan.fingerprint()
