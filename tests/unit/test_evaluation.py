"""`evaluate` in Python: objects in memory and in files, halves, and what it refuses."""

import json
import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from skimage.io import imread

import ptychodus_torch_plugin as plugin
from ptychodus_torch_plugin import evaluation
from ptychodus_torch_plugin.backends.protocol import Reconstruction
from ptychodus_torch_plugin.errors import ConfigError, ScanFileError, ScanValueError
from ptychodus_torch_plugin.evaluation import evaluate, halves, place_reconstruction
from ptychodus_torch_plugin.files.product import write_object_npz, write_product
from ptychodus_torch_plugin.metrics import compare_objects

N = 32


@pytest.fixture(scope='module')
def scan():
    settings = {'N': N, 'n_positions': 64, 'step_px': 5.0, 'photons': 1e5, 'seed': 2}
    return plugin.simulate_scan(plugin.SimulationConfig(**settings))


def reconstruction(scan, object_, **changes):
    """Return what a backend might have found."""
    values = {
        'object_': object_.astype(np.complex64),
        'probe': scan.probe,
        'occupancy': np.ones(object_.shape, np.float32),
        'frame': scan.frame,
        'stage': 'guessed',
        'stages': {'guessed': object_.astype(np.complex64)},
        'r_fitted': {},
        'r_held_out': {},
    }
    return Reconstruction(**(values | changes))


def noisy(scan, level, seed):
    """Return the true object with noise that no neighbouring pixels share."""
    noise = np.random.default_rng(seed).standard_normal((2, *scan.object_guess.shape))
    return scan.object_guess + level * (noise[0] + 1j * noise[1])


@pytest.fixture(scope='module')
def found(scan):
    """An object with noise, turned and brightened."""
    return reconstruction(scan, 2j * noisy(scan, 0.05, 1), probe=scan.probe / np.complex64(2))


def product_of(path, scan, result):
    write_product(
        path,
        object_=result.object_,
        frame=result.frame,
        scan=scan,
        probe=result.probe,
        name='product',
    )
    return path


def test_against_the_truth_in_memory(scan, found):
    result = evaluate(found, scan=scan, truth=scan)
    region = evaluation.region_of(scan, found)
    expected = compare_objects(found.object_, scan.object_guess, region)
    assert result.metrics.phase_psnr_dB == expected.phase_psnr_dB
    assert result.metrics.frc_criterion == 'noise-free'
    side_m = scan.optics.pixel_size_m[0]
    assert result.metrics.frc_resolution_m == side_m * expected.frc_resolution_px
    assert result.compared_with == 'truth'
    assert result.r.r_held_out is None
    assert 0 < result.r.r_fitted < 0.5
    np.testing.assert_array_equal(result.region, region)


def test_a_product_leads_to_the_same(tmp_path, scan, found):
    path = product_of(tmp_path / 'object.h5', scan, found)
    one, two = (evaluate(each, scan=scan, truth=scan) for each in (found, path))
    figures, expected = two.as_dict(), one.as_dict()
    assert figures['phase_psnr_dB'] == pytest.approx(expected['phase_psnr_dB'], rel=1e-6)
    assert two.r.r_fitted == pytest.approx(one.r.r_fitted, rel=1e-6)
    assert figures['r'] == {**expected['r'], 'r_all': two.r.r_all, 'r_fitted': two.r.r_fitted}
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    lengths = {len(curve) for curve in figures['frc'].values()}
    assert lengths == {len(two.metrics.frc.frequencies)}


def test_a_reference_is_taken_for_the_truth(tmp_path, scan, found):
    other = reconstruction(scan, noisy(scan, 0.01, 3))
    path = product_of(tmp_path / 'reference.h5', scan, other)
    result = evaluate(found, scan=scan, reference=path)
    assert result.compared_with == 'reference'
    assert result.metrics.frc_criterion == 'noise-free'
    assert result.metrics.complex_error == pytest.approx(
        evaluate(found, scan=scan, truth=other_placed(scan, other)).metrics.complex_error, rel=1e-4
    )


def other_placed(scan, result):
    return place_reconstruction(scan, result)


def test_halves_are_compared_by_their_own_threshold(scan):
    rows = halves(scan)
    parts = [
        other_placed(scan.subset(each), reconstruction(scan, noisy(scan, 0.3, seed)))
        for seed, each in enumerate(rows)
    ]
    result = evaluate(parts[0], half=parts[1], scan=scan)
    assert (result.compared_with, result.patterns_in_both) == ('half', 0)
    assert result.metrics.frc_criterion == 'halves'
    assert result.as_dict()['patterns_in_both'] == 0
    assert (result.r.fitted_patterns, result.r.held_out_patterns) == tuple(map(len, rows))


def test_patterns_are_found_by_their_numbers(scan, found, tmp_path):
    """They need not begin at 0, and a product may list them in another order."""
    numbers = 3 + 2 * np.arange(scan.n_patterns)[::-1]
    counted = replace(scan, indexes=numbers)
    path = product_of(tmp_path / 'object.h5', counted, found)
    expected = evaluate(product_of(tmp_path / 'plain.h5', scan, found), scan=scan).r
    assert evaluate(path, scan=counted).r == expected
    with pytest.raises(ScanValueError, match='does not belong to'):
        evaluate(path, scan=scan)


def test_halves_that_share_patterns_are_told(scan, caplog):
    first, second = halves(scan)
    both = [
        other_placed(scan.subset(each), reconstruction(scan, noisy(scan, 0.1, seed)))
        for seed, each in enumerate((first, np.sort(np.append(second, first[:5]))))
    ]
    with caplog.at_level(logging.WARNING):
        assert evaluate(both[0], half=both[1]).patterns_in_both == 5
    assert 'both list 5 patterns of one number and place' in caplog.text


def test_the_same_numbers_at_other_places_are_other_patterns(scan, caplog):
    """Another program may have counted each half from 0."""
    parts = [
        other_placed(
            replace(scan.subset(each), indexes=None), reconstruction(scan, noisy(scan, 0.1, seed))
        )
        for seed, each in enumerate(halves(scan))
    ]
    with caplog.at_level(logging.WARNING):
        assert evaluate(parts[0], half=parts[1]).patterns_in_both <= 2
    assert evaluate(parts[0], half=parts[0]).patterns_in_both == len(halves(scan)[0])


@pytest.mark.parametrize('n_positions', [64, 49])
def test_halves_share_nothing_and_are_spread(n_positions):
    settings = plugin.SimulationConfig(N=N, n_positions=n_positions, step_px=5.0, seed=1)
    scan = plugin.simulate_scan(settings)
    first, second = halves(scan)
    assert sorted([*first, *second]) == list(range(n_positions))
    assert abs(len(first) - len(second)) <= 1
    np.testing.assert_array_equal(halves(scan)[0], first)
    middle = np.median(scan.positions_px, axis=0)
    for rows in (first, second):
        above = scan.positions_px[rows] > middle
        for axis in (above[:, 0], above[:, 1], above[:, 0] ^ above[:, 1]):
            assert 0.3 < axis.mean() < 0.7
    # No half is a regular one: some neighbours in order are in one half.
    assert np.ptp(np.diff(first)) > 0


def test_one_pattern_has_no_halves(scan):
    with pytest.raises(ScanValueError, match='has one pattern'):
        halves(scan.subset(np.array([3])))


def test_held_out_patterns_are_those_that_the_product_does_not_list(tmp_path, scan, found):
    rows = np.arange(scan.n_patterns)[::2]
    path = product_of(tmp_path / 'part.h5', scan.subset(rows), found)
    r = evaluate(path, scan=scan).r
    assert (r.fitted_patterns, r.held_out_patterns, r.outside_patterns) == (32, 32, 0)
    spoilt = scan.patterns.copy()
    spoilt[1::2] = spoilt[1::2, ::-1]
    other = evaluate(path, scan=replace(scan, patterns=spoilt)).r
    assert other.r_fitted == r.r_fitted
    assert other.r_held_out > r.r_held_out


def test_fitted_patterns_are_predicted_where_the_product_says(tmp_path, scan, found):
    """Refined positions belong to the object."""
    shifted = replace(scan, positions_px=scan.positions_px + np.array([1.5, -0.75]))
    placed = evaluate(product_of(tmp_path / 'a.h5', scan, found), scan=shifted).r
    assert placed == evaluate(found, scan=scan).r


def test_products_of_other_scans_are_refused(tmp_path, scan, found):
    other = replace(scan, positions_px=scan.positions_px[::-1].copy())
    path = product_of(tmp_path / 'object.h5', other, found)
    with pytest.raises(ScanValueError, match='positions lie elsewhere than the patterns'):
        evaluate(path, scan=scan)
    path = product_of(tmp_path / 'object.h5', scan, found)
    with pytest.raises(ScanValueError, match=r'24 of its 64 positions .* of which there are 40'):
        evaluate(path, scan=scan.subset(np.arange(40)))


def test_what_holds_no_probe_has_no_r(tmp_path, scan, found):
    write_object_npz(
        tmp_path / 'object.npz',
        object_=found.object_,
        occupancy=found.occupancy,
        frame=found.frame,
        pixel_size_m=scan.optics.pixel_size_m,
        stage='guessed',
        positions_px=scan.positions_px,
    )
    with pytest.raises(ConfigError, match=r'object\.npz holds no probe'):
        evaluate(tmp_path / 'object.npz', scan=scan)
    assert evaluate(tmp_path / 'object.npz', truth=scan).r is None


def test_objects_are_compared_where_both_have_been_scanned(scan, found):
    left = scan.positions_px[:, 1] < np.median(scan.positions_px[:, 1]) + 6
    part = scan.subset(np.flatnonzero(left))
    reference = other_placed(part, reconstruction(scan, noisy(scan, 0.01, 3)))
    spoilt = np.where(reference.region, reference.object_, 7)
    one = evaluate(found, scan=scan, reference=reference)
    two = evaluate(found, scan=scan, reference=replace(reference, object_=spoilt))
    assert one.metrics.region_px == two.metrics.region_px == np.count_nonzero(one.region)
    assert two.metrics.phase_psnr_dB == pytest.approx(one.metrics.phase_psnr_dB, abs=0.1)
    right = np.flatnonzero(scan.positions_px[:, 1] > scan.positions_px[:, 1].max() - 2)
    far = other_placed(
        scan.subset(np.flatnonzero(scan.positions_px[:, 1] < scan.positions_px[:, 1].min() + 2)),
        reconstruction(scan, scan.object_guess),
    )
    beside = other_placed(scan.subset(right), reconstruction(scan, scan.object_guess))
    with pytest.raises(ScanValueError, match='scanned no place of both'):
        evaluate(far, reference=beside)


def test_the_picture_has_both_objects_and_is_refused_without_any(tmp_path, scan, found):
    result = evaluate(found, scan=scan, truth=scan)
    result.draw(tmp_path / 'one.png')
    better = evaluate(reconstruction(scan, noisy(scan, 0.01, 4)), scan=scan, truth=scan)
    better.draw(tmp_path / 'two.png')
    one, two = imread(tmp_path / 'one.png'), imread(tmp_path / 'two.png')
    assert one.shape == two.shape
    assert (one != two).any()
    with pytest.raises(ConfigError, match='no difference to draw'):
        evaluate(found, scan=scan).draw(tmp_path / 'three.png')
    assert not (tmp_path / 'three.png').exists()


def test_no_framework_is_needed(tmp_path, scan, found):
    product = product_of(tmp_path / 'object.h5', scan, found)
    plugin.write_scan(tmp_path / 'scan.h5', scan)
    code = (
        'import sys\n'
        'from ptychodus_torch_plugin import evaluate, read_scan\n'
        'found = evaluate(sys.argv[1], truth=sys.argv[2], scan=read_scan(sys.argv[2]))\n'
        'assert found.r.fitted_patterns == 64\n'
        "assert not {'torch', 'tensorflow', 'lightning'} & sys.modules.keys()\n"
    )
    command = [sys.executable, '-W', 'error', '-c', code, product, tmp_path / 'scan.h5']
    subprocess.run([str(each) for each in command], check=True)


def test_wrong_requests_are_named(scan, found):
    with pytest.raises(ConfigError, match='evaluated by nothing'):
        evaluate('object.h5')
    with pytest.raises(ConfigError, match='evaluated by truth and half'):
        evaluate(found, truth=scan, half='other.h5', scan=scan)
    with pytest.raises(ConfigError, match='expected its scan'):
        evaluate(found, truth=scan)
    with pytest.raises(ScanFileError, match='holds no object'):
        evaluate(found, truth=replace(scan, object_guess=None), scan=scan)
