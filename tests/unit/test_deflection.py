"""Slow variations of the phase, found from where the patterns lie."""

import numpy as np
import pytest

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.deflection import MOST_CELLS, Deflection, moment_weights, response
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan, zone_plate_probe

N = 32
PROBE = zone_plate_probe(N, 12.0, seed=1)[None] * 1e4
VALID = np.ones((N, N), bool)
SHAPE = (150, 120)


def corners(step: int = 5) -> np.ndarray:
    """Positions on an off-centre part of the canvas, moved about a little."""
    rng = np.random.default_rng(2)
    rows, columns = np.arange(10, 110, step), np.arange(4, 80, step)
    grid = np.stack(np.meshgrid(rows, columns, indexing='ij'), -1)
    return grid.reshape(-1, 2) + rng.integers(-1, 2, size=(grid.size // 2, 2))


def moments(object_: np.ndarray, where: np.ndarray, valid: np.ndarray = VALID) -> np.ndarray:
    """Moments of noise-free patterns."""
    patches = physics.gather_patches(object_, where, N)[:, None]
    counts = np.sum(np.abs(physics.far_field(PROBE * patches)) ** 2, axis=1)
    return counts.reshape(len(where), -1) @ moment_weights(valid).astype(np.float64)


def bump() -> np.ndarray:
    """A slow phase that differs along the axes."""
    y, x = np.indices(SHAPE)
    return 1.5 * np.exp(-(((y - 70) / 30) ** 2) - ((x - 50) / 22) ** 2) + 0.004 * y


def seen(where: np.ndarray) -> np.ndarray:
    region = np.zeros(SHAPE, bool)
    for y, x in where:
        region[y + 10 : y + N - 10, x + 10 : x + N - 10] = True
    return region


TRUTH = np.exp(1j * bump())
"""A sweep that has begun to make the bump agrees with it."""


@pytest.fixture
def believed(monkeypatch):
    """Ask no sweep."""
    monkeypatch.setattr(Deflection, '_agreement', lambda *_: 1.0)


def error_rad(found: np.ndarray, where: np.ndarray) -> float:
    difference = (found - bump())[seen(where)]
    return float(np.std(difference))


def test_a_slow_phase_is_found_at_once():
    where = corners()
    found = Deflection(SHAPE, where, PROBE, VALID).phase(
        moments(np.exp(1j * bump()), where), moments(np.ones(SHAPE, complex), where), TRUTH
    )
    assert found.shape == SHAPE
    assert found.dtype == np.float32
    assert error_rad(found, where) < 0.25 * np.std(bump()[seen(where)])
    for wrong in (-found, found[::-1], np.roll(found, 12, 0), np.roll(found, 12, 1)):
        assert error_rad(wrong, where) > 1.2 * error_rad(found, where)


def test_repeating_it_finds_the_rest(believed):
    where, measured = corners(), moments(np.exp(1j * bump()), corners())
    deflection, found = Deflection(SHAPE, where, PROBE, VALID), np.zeros(SHAPE)
    errors = []
    for _ in range(4):
        found = found + deflection.phase(measured, moments(np.exp(1j * found), where), TRUTH)
        errors.append(error_rad(found, where))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_what_all_patterns_share_is_left_to_a_probe_that_is_refined(believed):
    where = corners()
    measured = moments(np.exp(0.05j * np.indices(SHAPE)[0]), where)
    flat = moments(np.ones(SHAPE, complex), where)
    fixed = Deflection(SHAPE, where, PROBE, VALID).phase(measured, flat, TRUTH)
    refined = Deflection(SHAPE, where, PROBE, VALID, free_ramp=True).phase(measured, flat, TRUTH)
    assert np.gradient(fixed, axis=0)[seen(where)].mean() == pytest.approx(0.05, rel=0.1)
    assert np.abs(refined).max() < 1e-3


@pytest.mark.parametrize('jitter', ['photons', 'beam'])
def test_noise_is_not_taken_for_a_phase(believed, jitter):
    where, rng = corners(), np.random.default_rng(3)
    flat = moments(np.ones(SHAPE, complex), where)
    if jitter == 'beam':
        noisy = flat.copy()
        noisy[:, 1:3] += 0.01 * rng.standard_normal((len(where), 2)) * flat[:, :1]
        plain = noisy[:, 1:3] / noisy[:, :1] - flat[:, 1:3] / flat[:, :1]
    else:
        counts = np.sum(np.abs(physics.far_field(PROBE)) ** 2, axis=0)
        counts *= 50 / counts.sum()
        drawn = rng.poisson(counts, (len(where), N, N)).reshape(len(where), -1)
        noisy = drawn @ moment_weights(VALID).astype(np.float64)
        plain = noisy[:, 1:3] / noisy[:, :1] - flat[:, 1:3] / flat[:, :1]
    found = Deflection(SHAPE, where, PROBE, VALID).phase(noisy, flat, TRUTH)
    gradient = np.stack(np.gradient(found))[:, seen(where)]
    assert np.sqrt(np.mean(gradient**2)) < 0.15 * 2 * np.pi * np.std(plain)


@pytest.mark.parametrize(('change', 'least', 'most'), [(0.2, 1, 1), (-0.2, 0, 0), (0.0, 0, 0)])
def test_it_is_believed_as_far_as_a_sweep_agrees(change, least, most):
    where, flat = corners(), np.ones(SHAPE, complex)
    deflection = Deflection(SHAPE, where, PROBE, VALID)
    measured, expected = moments(TRUTH, where), moments(flat, where)
    swept = np.exp(1j * change * bump())
    whole = np.abs(deflection.phase(measured, expected, TRUTH)).max()
    found = np.abs(deflection.phase(measured, expected, swept)).max()
    assert least * 0.99 * whole <= found <= most * 1.01 * whole


def test_a_sweep_that_does_something_else_is_no_witness():
    where, flat, rng = corners(), np.ones(SHAPE, complex), np.random.default_rng(4)
    deflection = Deflection(SHAPE, where, PROBE, VALID)
    measured, expected = moments(TRUTH, where), moments(flat, where)
    noise = np.exp(0.5j * rng.standard_normal(SHAPE))
    found, whole = (deflection.phase(measured, expected, each) for each in (noise, TRUTH))
    assert np.abs(found).max() < 0.6 * np.abs(whole).max()


def test_few_patterns_agree_by_chance_and_are_not_believed():
    rng = np.random.default_rng(6)
    few, many = (Deflection(SHAPE, corners(step), PROBE, VALID) for step in (20, 5))
    assert few._independent == len(corners(20))
    assert len(corners(20)) < many._independent < len(corners(5))
    phases = rng.standard_normal((200, 2, *few._cells))
    changes = [np.exp(1j * on_pixels(b, few)) for _, b in phases]
    beliefs, of_photons = (
        [few._agreement(a, change, share) for (a, _), change in zip(phases, changes, strict=True)]
        for share in (1.0, 0.2)
    )
    assert np.mean(beliefs) < 0.01
    assert np.mean(of_photons) > 4 * np.mean(beliefs) + 0.01
    # A phase that is the sweep's own is believed all the same.
    assert few._agreement(phases[0, 1], changes[0], 1.0) == 1


def test_places_are_as_many_as_unrelated_noise_says():
    rng, many = np.random.default_rng(7), Deflection(SHAPE, corners(5), PROBE, VALID)
    weight = many._trust / many._trust.sum()

    def drawn() -> np.ndarray:
        noise = many._smoothed(rng.standard_normal(many._cells))
        centred = noise - np.sum(weight * noise)
        return centred / np.sqrt(np.sum(weight * centred**2))

    correlations = [np.sum(weight * drawn() * drawn()) for _ in range(400)]
    assert np.std(correlations) == pytest.approx(many._independent**-0.5, rel=0.15)


def on_pixels(cells: np.ndarray, deflection: Deflection) -> np.ndarray:
    """Return values of cells on their pixels, small enough for a phase."""
    wide = np.kron(0.1 * cells, np.ones((deflection._cell_px, deflection._cell_px)))
    return wide[: SHAPE[0], : SHAPE[1]]


def test_a_beam_stop_takes_from_what_deflection_says():
    assert response(PROBE, VALID) == pytest.approx(1, abs=0.01)
    stopped = VALID.copy()
    stopped[: N // 2 + 3] = False
    assert 0 <= response(PROBE, stopped) < 0.8
    bad = VALID.copy()
    bad[3, 5] = False
    assert response(PROBE, bad) == pytest.approx(1, abs=0.02)


def test_patterns_without_counts_do_no_harm():
    where = corners()
    measured = moments(np.exp(1j * bump()), where)
    measured[7] = 0
    found = Deflection(SHAPE, where, PROBE, VALID).phase(
        measured, moments(np.ones(SHAPE, complex), where), TRUTH
    )
    assert np.isfinite(found).all()
    assert error_rad(found, where) < 0.3 * np.std(bump()[seen(where)])


def test_the_cells_of_a_large_scan_grow():
    deflection = Deflection((5000, 4000), corners(), PROBE, VALID)
    rows, columns = deflection._cells
    assert rows * columns <= MOST_CELLS
    assert Deflection(SHAPE, corners(), PROBE, VALID)._cell_px == N // 8


def test_moments_are_those_of_the_orthonormal_frequencies():
    scan = simulate_scan(SimulationConfig(N=32, n_positions=9, photons=1e4, seed=5))
    pattern = scan.patterns[4].astype(np.float64)
    total, y, x, square = pattern.reshape(-1) @ moment_weights(scan.valid_pixels).astype(float)
    f = np.fft.fftshift(np.fft.fftfreq(32))
    assert total == pytest.approx(pattern.sum())
    assert y == pytest.approx((pattern * f[:, None]).sum(), rel=1e-5)
    assert x == pytest.approx((pattern * f[None]).sum(), rel=1e-5)
    assert square == pytest.approx((pattern * (f[:, None] ** 2 + f[None] ** 2)).sum(), rel=1e-5)
