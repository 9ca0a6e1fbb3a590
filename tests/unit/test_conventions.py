"""The conventions of `specs/array-conventions.md`, each pinned by a test that fails when it flips.

Contents are asymmetric and off centre throughout, canvases have more columns than rows.
`test_conventions_flipped.py` flips the conventions one by one and asks these tests to notice.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from ptychodus_torch_plugin import frame, physics, probes, sweeps
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.files import conversion
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.raw import RawScan
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.scan import ScanData

N = 16
MIDDLE = (N - 1) / 2


def lobes(n=N, modes=2):
    """Return modes (m, n, n): smooth, asymmetric, off centre, small at the edges."""
    y, x = (np.indices((n, n)) - n // 2) * (N / n)
    first = np.exp(-((y - 1.1) ** 2 + 1.7 * (x + 0.6) ** 2) / 7 + 0.3j * x - 0.05j * y * x)
    second = 0.6 * (y + 0.4) * np.exp(-(1.3 * (y + 0.7) ** 2 + (x - 1.4) ** 2) / 6)
    return np.stack([first, second])[:modes].astype(complex)


def tilt_between(probe, reference):
    return probes.tilt_px(probes.far_field_counts(probe), probes.far_field_counts(reference))


def landscape(y, x):
    """Return a smooth transmission at the pixels y, x."""
    return (0.9 - 0.2 * np.exp(-((y - 9) ** 2 + (x - 14) ** 2) / 60)) * np.exp(
        0.5j * np.exp(-((y - 12) ** 2 + 2 * (x - 9) ** 2) / 80)
    )


def scan_of(patterns=None, **changes):
    positions = np.array([[8.3, 9.9], [10.75, 20.5], [12.5, 17.1]])
    if patterns is None:
        corners, remainders = frame.patch_corners(positions, N)
        object_ = landscape(*np.indices((24, 31)))
        patterns = physics.predict_counts(object_, 40 * lobes(), corners, remainders)
    values = {
        'patterns': np.asarray(patterns, dtype=np.float32),
        'positions_px': positions,
        'probe': lobes().astype(np.complex64),
        'bad_pixels': np.zeros((N, N), dtype=bool),
    }
    return ScanData(**(values | changes))


def raw_scan(patterns, **changes):
    values = {
        'patterns': patterns,
        'positions_px': np.array([[8.25, 19.5], [11.0, 17.75]]),
        'probe': lobes(),
        'contract': 'amplitude',
        'contract_source': 'a test says so',
        'keys': 'none',
    }
    return RawScan(**(values | changes))


# Axes and positions


def test_rows_come_before_columns():
    hole = np.zeros((33, 41), dtype=complex)
    hole[9, 21] = 1  # only this pixel transmits: the total count is the probe's intensity there
    corners, remainders = ObjectFrame((0, 0), hole.shape).corners(
        np.array([[10.5, 22.5], [13.5, 19.5]]), N
    )
    counts = physics.predict_counts(hole, lobes(modes=1), corners, remainders)
    expected = np.abs([lobes()[0, 9 - 3, 21 - 15], lobes()[0, 9 - 6, 21 - 12]]) ** 2
    np.testing.assert_allclose(counts.sum(axis=(1, 2)), expected, rtol=1e-9)


def test_the_centre_of_n_pixels_is_half_of_n_minus_one():
    for n, centre in ((16, 7.5), (15, 7.0)):
        corners, remainders = frame.patch_corners(np.array([[centre, centre + 3]]), n)
        assert corners.tolist() == [[0, 3]]
        assert remainders.tolist() == [[0.0, 0.0]]
    assert ObjectFrame((-5, 7), (24, 31)).center_px() == (-5 + 11.5, 7 + 15.0)


def test_remainders_reach_from_minus_a_half_to_below_a_half():
    first = np.array([[2.5, 3.5], [-0.5, -1.5], [4.49, -4.49]])
    corners, remainders = frame.patch_corners(first + MIDDLE, N)
    assert corners.tolist() == [[3, 4], [0, -1], [4, -4]]
    np.testing.assert_allclose(remainders, [[-0.5, -0.5], [-0.5, -0.5], [0.49, -0.49]], atol=1e-12)
    positions = np.random.default_rng(1).uniform(-40, 40, (100, 2))
    corners, remainders = frame.patch_corners(positions, N)
    np.testing.assert_allclose(corners + MIDDLE + remainders, positions, atol=1e-12)
    assert remainders.min() >= -0.5
    assert remainders.max() < 0.5


def test_a_positive_remainder_moves_the_probe_to_higher_rows_and_columns():
    shifts = np.array([[0.45, -0.2], [-0.35, 0.1]])
    for shift, moved in zip(shifts, physics.shift_probe(lobes(), shifts), strict=True):
        change = np.subtract(probes.center_px(moved), probes.center_px(lobes()))
        np.testing.assert_allclose(change, shift, atol=1e-3)


def test_light_falls_where_the_position_says():
    probe_centre = np.array(probes.center_px(lobes()))
    for position in ([12.3, 19.9], [9.75, 17.5], [10.05, 22.45]):
        corners, remainders = frame.patch_corners(np.array([position]), N)
        light = physics.illumination(lobes(), corners, remainders, (24, 34))
        centre = [(light * axis).sum() / light.sum() for axis in np.indices(light.shape)]
        np.testing.assert_allclose(centre, np.array(position) - MIDDLE + probe_centre, atol=1e-3)


def test_the_canvas_begins_at_its_origin():
    positions = np.array([[3.25, 17.6], [8.0, 30.5]])
    around = ObjectFrame.around(positions, N)
    assert (around.origin_px, around.shape) == ((-4, 10), (21, 29))
    corners, remainders = around.corners(positions, N)
    absolute, same = frame.patch_corners(positions, N)
    np.testing.assert_array_equal(corners + around.origin_px, absolute)
    np.testing.assert_array_equal(remainders, same)
    assert corners.min(axis=0).tolist() == [0, 0]


def test_scattering_is_the_adjoint_of_gathering():
    rng = np.random.default_rng(2)
    canvas, patches = (rng.normal(size=(*shape, 2)) @ [1, 1j] for shape in ((20, 27), (3, N, N)))
    corners = np.array([[0, 11], [4, 3], [2, 5]])
    there = np.vdot(patches, physics.gather_patches(canvas, corners, N))
    back = np.zeros_like(canvas)
    physics.scatter_patches(patches, corners, back)
    np.testing.assert_allclose(np.vdot(back, canvas), there, rtol=1e-12)


# Physics


def test_the_far_field_is_centred_and_keeps_the_energy():
    y, x = np.indices((N, N)) - N // 2
    for rows, columns in ((0, 0), (2, -3)):
        tilted = physics.far_field(np.exp(2j * np.pi * (rows * y + columns * x) / N))
        expected = np.zeros((N, N))
        expected[N // 2 + rows, N // 2 + columns] = N
        np.testing.assert_allclose(tilted, expected, atol=1e-9)
    point = np.where((y == 0) & (x == 0), 1, 0)
    np.testing.assert_allclose(physics.far_field(point), np.full((N, N), 1 / N), atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(physics.far_field(lobes())), np.linalg.norm(lobes()), rtol=1e-12
    )
    np.testing.assert_allclose(physics.near_field(physics.far_field(lobes())), lobes(), atol=1e-12)


def test_patterns_are_photon_counts():
    corners, remainders = frame.patch_corners(np.array([[9.2, 10.9]]), N)
    counts = physics.predict_counts(np.ones((24, 31)), lobes(), corners, remainders)
    energy = float(np.sum(np.abs(lobes()) ** 2))
    assert counts.sum() == pytest.approx(energy, rel=1e-9)


def test_modes_add_incoherently():
    corners, remainders = frame.patch_corners(np.array([[9.2, 10.9]]), N)
    object_ = landscape(*np.indices((24, 31)))
    both, first, second = (
        physics.predict_counts(object_, modes, corners, remainders)
        for modes in (lobes(), lobes()[:1], lobes()[1:])
    )
    np.testing.assert_allclose(both, first + second, rtol=1e-9, atol=1e-12)


def test_the_loss_is_poissons_over_the_mean_count():
    predicted, counts = np.array([[[2.0, 5.0], [7.0, 1.5]]]), np.array([[[3.0, 0.0], [7.0, 9.0]]])
    valid = np.array([[True, True], [True, False]])
    by_hand = ((2 - 3 * np.log(2) - 3 + 3 * np.log(3)) + 5 + 0) / 3 / 4.5
    assert physics.poisson_loss(predicted, counts, valid, 4.5) == pytest.approx(by_hand, rel=1e-9)
    assert physics.poisson_loss(counts, counts, valid, 4.5) == pytest.approx(0, abs=1e-9)
    ten_times = physics.poisson_loss(10 * predicted, 10 * counts, valid, 45)
    assert ten_times == pytest.approx(by_hand, rel=1e-9)


def test_counts_pull_amplitudes_as_far_as_poisson_noise_allows():
    amplitudes, counts = np.array([0.7, 1.9, 12.0, 3.0]), np.array([4.0, 0.0, 150.0, 9.0])
    waves = (amplitudes * np.exp(1j * np.arange(4))).reshape(1, 1, 2, 2)
    pulled = physics.impose_counts(waves, counts.reshape(1, 2, 2), np.ones((2, 2), dtype=bool))
    np.testing.assert_allclose(np.angle(pulled), np.angle(waves), atol=1e-12)
    for before, count, after in zip(amplitudes, counts, np.abs(pulled).ravel(), strict=True):
        best = minimize_scalar(
            lambda a, k=count, a0=before: a**2 - 2 * k * np.log(a) + (a - a0) ** 2,
            bounds=(1e-6, 30),
            method='bounded',
            options={'xatol': 1e-9},
        ).x
        assert after == pytest.approx(before + 1.5 * (best - before), abs=1e-5)


def test_a_background_adds_to_the_rate():
    """The expected counts of a wave and of the background are imposed, and cost nothing."""
    rate, dark = np.array([[[9.0, 2.5], [40.0, 0.3]]]), np.array([[4.0, 0.1], [39.0, 7.0]])
    waves = (np.sqrt(rate) * np.exp(1j * np.arange(4).reshape(2, 2)))[:, None]
    valid = np.ones((2, 2), bool)
    kept = physics.impose_counts(waves, rate + dark, valid, dark)
    np.testing.assert_allclose(kept, waves, rtol=1e-12)
    moved = physics.impose_counts(waves, 3 * rate, valid, dark)
    share = 3 * rate * rate / (rate + dark)
    np.testing.assert_allclose(moved, physics.impose_counts(waves, share, valid), rtol=1e-12)


# Scale


def test_an_empty_object_predicts_the_measured_mean_counts():
    bad = np.zeros((N, N), dtype=bool)
    bad[N // 2, N // 2 - 1] = True
    for photons in (1.0, 50.0):
        scan = scan_of(scan_of().patterns * photons, bad_pixels=bad)
        probe = sweeps.first_probe(scan, SweepConfig())
        predicted = np.sum(np.abs(physics.far_field(probe)) ** 2, axis=0)[~bad].sum()
        assert predicted == pytest.approx(scan.mean_counts(), rel=1e-6)


def test_bad_pixels_take_no_part():
    bad = np.zeros((N, N), dtype=bool)
    bad[5, 9] = True
    good = scan_of(bad_pixels=bad)
    spoilt = scan_of(np.where(bad, 1e7, good.patterns), bad_pixels=bad)
    assert spoilt.mean_counts() == good.mean_counts()
    waves = physics.far_field(np.stack([lobes()] * 3) * 30)
    predicted = np.sum(np.abs(waves) ** 2, axis=1)
    losses, pulled = zip(
        *(
            (
                physics.poisson_loss(predicted, scan.patterns, scan.valid_pixels, 3.0),
                physics.impose_counts(waves, scan.patterns, scan.valid_pixels),
            )
            for scan in (good, spoilt)
        ),
        strict=True,
    )
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(pulled[0], pulled[1])
    np.testing.assert_array_equal(pulled[0][..., 5, 9], waves[..., 5, 9])


def test_a_ramp_moves_the_far_field_and_its_opposite_hides_it():
    tilt = (1.25, -2.5)
    ramped = lobes() * probes.ramp((N, N), tilt, N)
    np.testing.assert_allclose(tilt_between(ramped, lobes()), tilt, atol=0.02)
    corners, remainders = frame.patch_corners(np.array([[8.5, 11.5], [10.5, 20.5]]), N)
    object_ = landscape(*np.indices((24, 31)))
    counts = physics.predict_counts(object_, lobes(), corners, remainders)
    opposite = object_ * probes.ramp(object_.shape, tilt, N).conj()
    hidden = physics.predict_counts(opposite, ramped, corners, remainders)
    np.testing.assert_allclose(hidden, counts, atol=1e-9 * counts.max())


def test_a_probe_to_be_refined_starts_where_the_mean_pattern_lies():
    aside = scan_of(np.roll(scan_of().patterns, (2, -1), axis=(-2, -1)))
    anchored, kept = (
        sweeps.first_probe(aside, SweepConfig(refine_probe=refined)) for refined in (True, False)
    )
    reference = np.asarray(tilt_between(kept, lobes()))
    np.testing.assert_allclose(reference, (0, 0), atol=0.02)
    moved = np.asarray(tilt_between(anchored, sweeps.first_probe(scan_of(), SweepConfig())))
    np.testing.assert_allclose(moved, (2, -1), atol=0.02)


def test_sweeps_keep_energy_and_place_of_the_probe():
    scan = scan_of()
    probe = np.roll(sweeps.first_probe(scan, SweepConfig()), (1, -1), axis=(-2, -1))
    state = sweeps.SweepState(np.ones(scan.frame.shape, dtype=complex), probe.copy())
    config = SweepConfig(batch_size=2, probe_step=1.0)
    sweeps.sweep_oracle(scan, state, config, sweeps.schedule(config, 8))
    assert np.abs(state.probe - probe).max() > 0.01 * np.abs(probe).max()
    assert np.sum(np.abs(state.probe) ** 2) == pytest.approx(np.sum(np.abs(probe) ** 2), rel=1e-9)
    drift = np.subtract(probes.center_px(state.probe), probes.center_px(probe))
    assert np.abs(drift).max() <= 0.5
    np.testing.assert_allclose(tilt_between(state.probe, probe), (0, 0), atol=0.05)


# Files


def test_the_kind_of_the_patterns_is_told_by_evidence_then_by_contract():
    values = np.abs(lobes()) * 9 + 0.25
    bad = np.zeros((N, N), dtype=bool)
    whole = np.round(values * 30).astype(np.uint16)
    cases = [
        (raw_scan(values), 'auto', values**2),
        (raw_scan(values, contract='intensity'), 'auto', values),
        (raw_scan(values, bad_pixels=bad), 'auto', values),
        (raw_scan(whole), 'auto', whole),
        (raw_scan(whole), 'amplitude', whole.astype(float) ** 2),
        (raw_scan(values, contract='intensity'), 'amplitude', values**2),
        (raw_scan(values), 'intensity', values),
    ]
    for raw, kind, counts in cases:
        scan = conversion.to_scan(raw, ReadOptions(diffraction_kind=kind, beam_center='center'))
        np.testing.assert_allclose(scan.patterns, counts, rtol=1e-6)


def test_the_beam_goes_to_pixel_half_n():
    corner = np.full((2, N, N), 0.1)
    corner[:, 0, 0], corner[:, 0, 1], corner[:, 3, 0] = 90, 40, 20
    raw = raw_scan(corner, contract='intensity')
    scan = conversion.to_scan(raw, ReadOptions(beam_center='corner'))
    marks = {(8, 8): 90, (8, 9): 40, (11, 8): 20}
    for pixel, count in marks.items():
        assert scan.patterns[(0, *pixel)] == count
    assert scan.patterns[0, 7, 7] == pytest.approx(0.1)


def test_positions_become_patch_centres():
    raw = raw_scan(np.full((2, N, N), 1.5))
    for anchor, centre in (('center', 0), ('center-pixel', -0.5), ('first-pixel', 7.5)):
        scan = conversion.to_scan(raw, ReadOptions(position_anchor=anchor))
        np.testing.assert_allclose(scan.positions_px, raw.positions_px + centre, rtol=1e-12)


def test_a_cropped_detector_sees_the_same_sample_in_larger_pixels():
    """Halve the detector: pixel (i, j) of the new object grid is pixel (2 i, 2 j) of the old."""
    positions = np.array([[17.3, 18.9], [20.75, 29.5], [18.5, 25.1]])
    corners, remainders = frame.patch_corners(positions, 2 * N)
    object_ = landscape(*(np.indices((46, 58)) / 2))
    patterns = physics.predict_counts(object_, lobes(2 * N), corners, remainders)
    scan = ScanData(
        patterns=patterns.astype(np.float32),
        positions_px=positions,
        probe=lobes(2 * N).astype(np.complex64),
        bad_pixels=np.zeros((2 * N, 2 * N), dtype=bool),
        optics=Optics(pixel_size_m=(4e-9, 6e-9), origin_m=(1e-6, -2e-6)),
    )
    small = scan.cropped(N)
    assert small.optics.pixel_size_m == pytest.approx((8e-9, 12e-9))
    assert small.optics.origin_m == scan.optics.origin_m
    corners, remainders = frame.patch_corners(small.positions_px, N)
    expected = physics.predict_counts(object_[::2, ::2], small.probe, corners, remainders)
    np.testing.assert_allclose(small.patterns, expected, atol=2e-3 * expected.max())


# The document


def test_every_rule_names_tests_that_exist():
    root = Path(__file__).parents[2]
    text = (root / 'specs' / 'array-conventions.md').read_text()
    named = re.findall(r'`(?:(test_\w+\.py): )?(test_\w+)`', text)
    assert len(named) > 30
    home = 'test_conventions.py'
    for file, test in named:
        # A list after a file name goes on in that file, unless the test is one of this file.
        home = file or (Path(__file__).name if test in globals() else home)
        assert f'def {test}(' in (Path(__file__).parent / home).read_text(), f'{home}: {test}'
