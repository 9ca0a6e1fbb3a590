"""Periods of a scan, and what repeats with them in probe and object."""

import tracemalloc

import numpy as np
import pytest

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.aberrations import with_aberrations
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.lattice import (
    ENOUGH,
    LEAST_REGULAR,
    MOST_FREQUENCIES,
    Lattice,
    lattice_frequencies,
    regularity,
)
from ptychodus_torch_plugin.probes import with_modes
from ptychodus_torch_plugin.simulate import zone_plate_probe

N = 32
FRAME = ObjectFrame((0, 0), (110, 150))
PROBE = zone_plate_probe(N, 12.0, seed=1)[None].astype(complex)
OBLIQUE = np.array([[5.3, 1.1], [-2.1, 7.4]])
"""Steps [y, x] of a raster whose lattice is no rectangle, nor its own mirror image."""


def raster(steps, n=(15, 17), jitter=0.0):
    """Return positions (n, 2); steps are rows, and the jitter is a share of them."""
    units = np.indices(n).reshape(2, -1).T.astype(float)
    units += np.random.default_rng(0).uniform(-jitter, jitter, units.shape)
    return units @ steps + (41.7, 66.3)


def whole():
    """Return positions (n, 2) at whole pixels, five apart along y and seven along x."""
    return np.indices((9, 11)).reshape(2, -1).T * (5, 7) + (20, 33) + (N - 1) / 2


def net(shape=(N, N)):
    """Return a function with the period of `whole`, about the middle of a patch."""
    y, x = np.indices(shape) - N // 2
    return (
        1
        + 0.15 * np.exp(2j * np.pi * y / 5)
        + 0.1j * np.exp(2j * np.pi * (y / 5 + x / 7))
        - 0.08 * np.exp(2j * np.pi * (y / 5 - 2 * x / 7))
    )


def distances(found, expected):
    """Return how far each expected frequency is from the nearest one found, or its opposite."""
    both = np.concatenate([found, -found])
    return np.linalg.norm(both[None] - expected[:, None], axis=-1).min(axis=1)


def predicted(object_, probe):
    return physics.predict_counts(object_, probe, *FRAME.corners(whole(), N))


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def relaxed(lattice, probe, n=30):
    """Return the probe after its factors were applied n times."""
    for _ in range(n):
        probe = probe * lattice.factors(probe)[0]
    return probe


# Frequencies


def test_the_frequencies_of_an_oblique_raster():
    found, basis = lattice_frequencies(raster(OBLIQUE)), np.linalg.inv(OBLIQUE).T
    assert found.shape == (MOST_FREQUENCIES, 2)
    assert distances(found, basis).max() < 1e-6
    for wrong in (basis.T, basis[:, ::-1], basis * (1, -1)):
        assert distances(found, wrong).max() > 1e-3
    # Whole multiples of the two, and all of the shortest.
    multiples = found @ OBLIQUE.T
    np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-5)
    lengths = np.linalg.norm(np.indices((9, 9)).reshape(2, -1).T @ basis - 4 * basis.sum(0), axis=1)
    shortest = np.sort(lengths)[1::2][:MOST_FREQUENCIES]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), shortest, atol=1e-6)


@pytest.mark.parametrize('steps', [OBLIQUE, np.diag([5.0, 7.0]), OBLIQUE[::-1] * (1, -1)])
def test_of_a_frequency_and_its_opposite_only_one(steps):
    found = lattice_frequencies(raster(steps))
    both = np.concatenate([found, -found])
    apart = np.linalg.norm(both[:, None] - both[None], axis=-1) + np.eye(len(both))
    assert apart.min() > 0.05
    assert np.abs(found).max() <= 0.5 + 1e-12


@pytest.mark.parametrize('angle_deg', [0.2, 0.5, -0.5, -1.2])
def test_a_raster_that_is_hardly_turned_has_each_frequency_once(angle_deg):
    """A peak beside the axis has its opposite for a neighbour."""
    angle = np.deg2rad(angle_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    test_of_a_frequency_and_its_opposite_only_one(np.diag([6.1, 6.1]) @ turn)


def test_a_little_jitter_leaves_a_lattice():
    found = lattice_frequencies(raster(OBLIQUE, jitter=0.05))
    assert len(found) >= 2
    assert distances(found, np.linalg.inv(OBLIQUE).T).max() < 1e-3


def test_none_beyond_half_a_cycle_per_pixel():
    found = lattice_frequencies(raster(np.diag([1.7, 3.1])))
    assert len(found) > 0
    assert np.abs(found).max() <= 0.5
    assert distances(found, np.array([[0.0, 1 / 3.1]])).max() < 1e-6


def spiral(n):
    k = np.arange(n)
    angle, radius = np.pi * (3 - np.sqrt(5)) * k, 8 * np.sqrt(k / np.pi)
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)


NONE = {
    'a fourth of the step': raster(OBLIQUE, jitter=0.25),
    'spiral': spiral(300),
    'one position': np.array([[20.0, 31.0]]),
    'a line': np.stack([np.arange(40) * 5.0, np.full(40, 9.0)], axis=-1),
    'all at one place': np.full((30, 2), 17.5),
    'any nine': np.random.default_rng(1).uniform(0, 30, (9, 2)),
    'any twenty-five': np.random.default_rng(2).uniform(0, 50, (25, 2)),
    'nobody in the middle': spiral(30) + 900 * np.eye(2)[[0, 1] * 15],
}


@pytest.mark.parametrize('positions', NONE.values(), ids=list(NONE))
def test_no_lattice(positions):
    assert lattice_frequencies(positions).shape == (0, 2)
    assert Lattice.found(positions, PROBE, FRAME.shape) is None


def test_many_positions_cost_little_memory():
    positions = raster(OBLIQUE, n=(316, 317))
    assert len(positions) > 10 * ENOUGH
    tracemalloc.start()
    try:
        lattice = Lattice.found(positions, PROBE, (2600, 2500))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Frequencies are sharp: one that is off by a step of the search differs across the scan.
    assert np.abs(regularity(positions, lattice.frequencies)).min() > 1 - 1e-4
    assert distances(lattice.frequencies, np.linalg.inv(OBLIQUE).T).max() < 1e-8
    assert peak < 100 * 2**20


def test_only_what_is_regular_enough():
    """A jitter that is uniform over +-j steps leaves |S| = sinc(2 j)."""
    for jitter, has in ((0.13, True), (0.22, False)):
        positions = raster(np.diag([6.3, 9.1]), n=(40, 40), jitter=jitter)
        first = np.abs(regularity(positions, np.array([[1 / 6.3, 0.0]])))[0]
        assert first == pytest.approx(np.sinc(2 * jitter), abs=0.02)
        assert (first > LEAST_REGULAR) == has == (len(lattice_frequencies(positions)) > 0)


# Factors


def test_factors_change_no_prediction():
    """On whole pixels, on a canvas of unequal sides: what the probe gives up the object takes."""
    rng = np.random.default_rng(0)
    object_ = 1 + 0.3 * rng.normal(size=(*FRAME.shape, 2)).view(complex)[..., 0]
    lattice, probe = Lattice.found(whole(), PROBE, FRAME.shape), PROBE * net()
    of_probe, of_object = lattice.factors(probe)
    assert of_probe.shape == (N, N)
    assert of_object.shape == FRAME.shape
    assert of_probe.dtype == of_object.dtype == np.complex64
    assert np.abs(of_probe - 1).max() > 0.1
    before, after = predicted(object_, probe), predicted(object_ * of_object, probe * of_probe)
    assert np.abs(after - before).max() < 1e-5 * before.max()
    for wrong in (of_object.conj(), 1 / of_object, np.roll(of_object, 1, -1), 1):
        other = predicted(object_ * wrong, probe * of_probe)
        assert np.abs(other - before).max() > 0.02 * before.max()


def test_also_between_pixels():
    """A band-limited probe that is shifted carries a function of its period along."""
    positions = np.indices((9, 11)).reshape(2, -1).T * (5.3, 6.7) + (36.1, 48.8)
    where = FRAME.corners(positions, N)
    lattice = Lattice.found(positions, PROBE, FRAME.shape)
    y, x = np.indices((N, N)) - N // 2
    probe = PROBE * (1 + 0.2 * np.exp(2j * np.pi * x / 6.7) + 0.1j * np.exp(-2j * np.pi * y / 5.3))
    of_probe, of_object = lattice.factors(probe)
    object_ = np.ones(FRAME.shape, complex)
    before = physics.predict_counts(object_, probe, *where)
    after = physics.predict_counts(object_ * of_object, probe * of_probe, *where)
    without = physics.predict_counts(object_, probe * of_probe, *where)
    assert np.abs(after - before).max() < 0.05 * np.abs(without - before).max()


@pytest.mark.parametrize('defocused', [False, True], ids=['first probe right', 'first probe wrong'])
def test_a_net_is_taken_off_the_probe_again(defocused):
    """By the aperture alone: the first probe may have other aberrations."""
    first = with_aberrations(PROBE.astype(np.complex64), 0.66, seed=3) if defocused else PROBE
    lattice, spoilt = Lattice.found(whole(), first, FRAME.shape), PROBE * net()
    assert relative(spoilt, PROBE) > 0.15
    assert relative(relaxed(lattice, spoilt), PROBE) < 0.02


def test_a_net_is_taken_off_all_modes_at_once():
    modes = with_modes(PROBE, 3)
    lattice = Lattice.found(whole(), modes, FRAME.shape)
    assert relative(relaxed(lattice, modes * net()), modes) < 0.02


def test_a_right_probe_is_left_alone():
    for probe in (PROBE, with_modes(PROBE, 3), 1e4 * PROBE):
        factors = Lattice.found(whole(), probe, FRAME.shape).factors(probe)
        for factor in factors:
            assert np.abs(factor - 1).max() < 1e-4


def test_a_probe_of_other_aberrations_is_left_alone():
    """What the aperture does not tell is left to the data."""
    other = with_aberrations(PROBE.astype(np.complex64), 0.66, seed=3)
    lattice = Lattice.found(whole(), PROBE, FRAME.shape)
    assert np.abs(lattice.factors(other)[0] - 1).max() < 1e-4


def test_a_wild_probe_is_changed_by_half_at_most():
    lattice = Lattice.found(whole(), PROBE, FRAME.shape)
    y, x = np.indices((N, N))
    noise = np.random.default_rng(4).normal(size=(1, N, N, 2)).view(complex)[..., 0]
    for wild in (
        noise * 1e-3,
        PROBE * 1e-2,
        PROBE * np.exp(9j * np.cos(2 * np.pi * y / 5)),
        PROBE * (x % 7 == 1),
    ):
        of_probe, of_object = lattice.factors(wild)
        assert np.abs(of_probe).min() >= 0.5 - 1e-6
        assert np.abs(of_object).max() <= 2 + 1e-5
        assert 0.01 < np.abs(of_probe - 1).max() <= 0.5 + 1e-6
