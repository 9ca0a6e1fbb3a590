"""R of an object and a probe on a scan, as `evaluate` finds it without any backend."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin import pattern_store, physics
from ptychodus_torch_plugin.errors import ScanValueError, ShapeError
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import write_scan
from ptychodus_torch_plugin.pattern_store import PatternFile
from ptychodus_torch_plugin.r_factors import r_factor, r_factors
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

N = 32


@pytest.fixture(scope='module')
def scan():
    made = simulate_scan(SimulationConfig(N=N, n_positions=36, probe_modes=2, photons=2e4, seed=3))
    bad = np.zeros((N, N), bool)
    bad[3, 5] = bad[16, 14:18] = True
    return replace(made, bad_pixels=bad)


@pytest.fixture(scope='module')
def fitted(scan):
    return np.arange(scan.n_patterns) % 3 != 0


def predicted(scan):
    corners, remainders_px = scan.frame.corners(scan.positions_px, N)
    expected = physics.predict_counts(scan.object_guess, scan.probe, corners, remainders_px)
    return expected.astype(np.float32)


def found(scan, fitted, positions_px=None, probe=None, intensities=None):
    positions_px = scan.positions_px if positions_px is None else positions_px
    probe = scan.probe if probe is None else probe
    return r_factors(scan.object_guess, probe, positions_px, scan, fitted, intensities)


def test_it_is_that_of_r_factor_over_each_part(scan, fitted):
    r, expected = found(scan, fitted), predicted(scan)
    for value, part in ((r.r_all, ...), (r.r_fitted, fitted), (r.r_held_out, ~fitted)):
        by_hand = r_factor(expected[part], scan.patterns[part], scan.valid_pixels)
        assert value == pytest.approx(by_hand, rel=1e-5)
    assert (r.fitted_patterns, r.held_out_patterns, r.outside_patterns) == (24, 12, 0)
    assert r.intensity_scale == 1
    # Without the bad pixels it would be another number.
    whole = r_factor(expected, scan.patterns, np.ones((N, N), bool))
    assert whole != pytest.approx(r.r_all, rel=1e-3)


def test_no_patterns_have_no_r(scan):
    r = found(scan, np.ones(scan.n_patterns, bool))
    assert r.r_held_out is None
    assert r.r_fitted == r.r_all
    assert found(scan, np.zeros(scan.n_patterns, bool)).r_fitted is None


def test_patterns_on_disk_give_the_same(tmp_path, monkeypatch, scan, fitted):
    write_scan(tmp_path / 'scan.h5', scan)
    monkeypatch.setattr(pattern_store, 'RESIDENT_BYTES', 1)
    monkeypatch.setattr(pattern_store, 'BLOCK_BYTES', 7 * N * N * 4)
    large = read_scan(tmp_path / 'scan.h5')
    assert isinstance(large.patterns, PatternFile)
    assert found(large, fitted).r_held_out == pytest.approx(found(scan, fitted).r_held_out)


def test_the_background_belongs_to_what_is_expected(scan, fitted):
    dark = np.full((N, N), 1.5, np.float32)
    noise = np.random.default_rng(0).poisson(dark, scan.patterns.shape).astype(np.float32)
    lit = replace(scan, patterns=scan.patterns + noise)
    expected = predicted(scan) + dark
    known = found(replace(lit, background=dark), fitted)
    by_hand = r_factor(expected, lit.patterns, lit.valid_pixels)
    assert known.r_all == pytest.approx(by_hand, rel=1e-5)
    assert known.r_all < 0.8 * found(lit, fitted).r_all


def test_a_probe_that_is_not_in_photons_is_scaled_and_that_is_said(scan, fitted, caplog):
    with caplog.at_level(logging.WARNING):
        plain = found(scan, fitted)
        assert caplog.records == []
        r = found(scan, fitted, probe=(0.1 * scan.probe).astype(np.complex64))
    assert 'predict 0.01 times the photons counted' in caplog.text
    assert r.intensity_scale == pytest.approx(100, rel=0.02)
    assert r.r_all == pytest.approx(plain.r_all, rel=0.02)


def test_intensities_belong_to_patterns(scan, fitted):
    rng = np.random.default_rng(1)
    intensities = rng.uniform(0.7, 1.3, scan.n_patterns)
    counts = predicted(scan) * intensities[:, None, None].astype(np.float32)
    flickering = replace(scan, patterns=rng.poisson(counts).astype(np.float32))
    plain, known = (found(flickering, fitted, intensities=each) for each in (None, intensities))
    by_hand = r_factor(counts, flickering.patterns, flickering.valid_pixels)
    assert known.r_all == pytest.approx(by_hand, rel=1e-5)
    assert known.r_all < 0.95 * plain.r_all
    partly = np.where(fitted, intensities, np.nan)
    by_totals = found(flickering, fitted, intensities=partly)
    assert by_totals.r_fitted == known.r_fitted
    assert by_totals.r_held_out == pytest.approx(known.r_held_out, rel=5e-3)
    assert by_totals.r_held_out != known.r_held_out


def test_positions_matter(scan, fitted):
    moved = scan.positions_px.copy()
    moved[~fitted] += 3
    r = found(scan, fitted, moved)
    assert r.r_held_out > 1.2 * r.r_fitted
    assert r.r_fitted == found(scan, fitted).r_fitted


def test_patterns_beyond_the_object_take_no_part(scan, fitted):
    moved = scan.positions_px.copy()
    moved[0] -= 500
    moved[1] += 500
    r = found(scan, fitted, moved)
    inside = np.arange(scan.n_patterns) > 1
    expected = r_factor(predicted(scan)[inside], scan.patterns[inside], scan.valid_pixels)
    assert r.r_all == pytest.approx(expected, rel=1e-5)
    assert (r.fitted_patterns, r.held_out_patterns, r.outside_patterns) == (23, 11, 2)


def test_defects_are_named(scan, fitted):
    with pytest.raises(ScanValueError, match=r'none of the 36 patterns .* lies inside the object'):
        found(scan, fitted, scan.positions_px + 1000)
    with pytest.raises(ScanValueError, match='predict 0 photons in'):
        found(scan, fitted, probe=0 * scan.probe)
    with pytest.raises(ShapeError, match='fitted has shape'):
        found(scan, fitted[1:])
    with pytest.raises(ShapeError, match='probe has shape'):
        found(scan, fitted, probe=scan.probe[:, 1:])
