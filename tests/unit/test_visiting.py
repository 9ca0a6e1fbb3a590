"""How far a batch may move object and probe, and shifts between a few fixed ones."""

import numpy as np
import pytest

from ptychodus_torch_plugin.config import ModelConfig, SweepConfig
from ptychodus_torch_plugin.physics import shift_probe
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import schedule
from ptychodus_torch_plugin.visiting import (
    MOST_CROWDED,
    crowding,
    least_damping,
    probe_step,
    raised_damping,
    shift_nodes_px,
    sweeps_before,
)

N = 32


# Dampings


@pytest.mark.parametrize(('photons', 'least'), [(1.0, 1.0), (10.0, 1.0), (20.0, 0.5), (1e4, 1e-3)])
def test_few_photons_are_damped(photons, least):
    probe = np.zeros((1, N, N), complex)
    probe[0, 8:16, 8:16] = np.sqrt(photons)
    apart = 8 * np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2)
    assert least_damping(apart, probe) == pytest.approx(least)
    # Twice the patterns at the same places bring twice the photons.
    twice = least_damping(np.concatenate([apart, apart]), probe)
    assert twice == pytest.approx(min(1.0, 5.0 / photons))


@pytest.mark.parametrize('n_sweeps', [1, 2, 7])
@pytest.mark.parametrize('least', [0.01, 0.1, 0.25, 0.6, 1.0])
def test_a_course_that_starts_higher_is_as_long(least, n_sweeps):
    config = SweepConfig(damping_start=0.1, damping_end=0.6, settling_sweeps=0)
    course = [sweep.damping for sweep in schedule(config, n_sweeps)]
    raised = [raised_damping(damping, config, least) for damping in course]
    start = max(0.1, least)
    expected = np.geomspace(start, max(0.6, least), n_sweeps) if start > 0.1 else course
    assert raised == pytest.approx(expected)
    assert raised_damping(1.0, config, least) == 1.0  # a settling sweep


def test_a_probe_is_not_learnt_from_few_photons():
    lengths = [probe_step(SweepConfig(probe_step=0.8), least) for least in (0.0, 0.5, 1.0)]
    assert lengths == pytest.approx([0.8, 0.6, 0.0])


# Numbers of sweeps


def grid_of(side, step_px, beam_px=8):
    """Return a scan of side^2 patterns whose beam is a square."""
    probe = np.zeros((1, N, N), np.complex64)
    probe[0, 8 : 8 + beam_px, 8 : 8 + beam_px] = 1
    line = step_px * np.arange(side)
    positions = np.stack(np.meshgrid(line, line, indexing='ij'), -1).reshape(-1, 2) + 15.5
    patterns, bad = np.ones((side**2, N, N), np.float32), np.zeros((N, N), bool)
    return ScanData(patterns, positions, probe, bad)


@pytest.mark.parametrize(
    ('side', 'step_px', 'n_sweeps'),
    # The last two: one pattern, and four, in a square of the beam's size.
    [(4, 2, 80), (16, 2, 80), (22, 2, 43), (32, 2, 20), (40, 2, 20), (40, 8, 80), (48, 4, 20)],
)
def test_few_patterns_and_such_that_hardly_overlap_are_swept_more_often(side, step_px, n_sweeps):
    scan, config = grid_of(side, step_px), ModelConfig(N=N, sweeps_before=None)
    assert sweeps_before(config, scan) == n_sweeps
    assert sweeps_before(config.model_copy(update={'sweeps_before': 7}), scan) == 7


# Shifts and crowds


@pytest.mark.parametrize('wanted', [0.3, 0.15, 0.06])
def test_shifts_are_interpolated_as_closely_as_stated(wanted):
    """For a wave of `wanted` cycles per pixel along both axes."""
    remainders = np.random.default_rng(2).uniform(-0.5, 0.5, (200, 2))
    nodes, weights = shift_nodes_px(remainders)
    cycles = round(wanted * 64) / 64
    along = np.exp(2j * np.pi * cycles * np.arange(64))
    probe = (along[:, None] * along)[None]
    interpolated = np.tensordot(weights, shift_probe(probe, nodes), axes=1)
    error = np.abs(interpolated - shift_probe(probe, remainders)).max()
    bound = 2 / 6 * (np.pi * cycles / 2) ** 3  # along one axis
    assert 0.3 * bound < error < 2.2 * bound


def test_the_weights_of_a_shift_add_up_to_one():
    remainders = np.random.default_rng(2).uniform(-0.5, 0.5, (50, 2))
    nodes, weights = shift_nodes_px(remainders)
    assert (nodes.shape, weights.shape, weights.dtype) == ((9, 2), (50, 9), np.float32)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights @ nodes, remainders, atol=1e-6)


def test_whole_pixels_need_no_interpolation():
    nodes, weights = shift_nodes_px(np.zeros((5, 2)))
    np.testing.assert_array_equal(nodes, np.zeros((1, 2)))
    np.testing.assert_array_equal(weights, np.ones((5, 1), np.float32))


def test_a_crowd_is_counted():
    """A beam of 16 px; patterns in one place, in four, and each in its own."""
    probe = np.zeros((2, N, N), dtype=complex)
    probe[0, 5:9, 7:11] = 0.6
    probe[1, 5:9, 7:11] = 0.8j
    together = np.full((40, 2), 9)
    assert MOST_CROWDED * crowding(together, probe, 16, 1.0) == pytest.approx(16)
    assert MOST_CROWDED * crowding(together[:5], probe, 16, 1.0) == pytest.approx(5)
    in_four = np.array([[0, 0], [0, 4], [4, 0], [4, 4]]).repeat(10, axis=0)
    assert MOST_CROWDED * crowding(in_four, probe, 16, 1.0) == pytest.approx(4)
    alone = 4 * np.argwhere(np.ones((8, 8)))
    assert crowding(alone, probe, 16, 1.0) == 1


@pytest.mark.parametrize(('damping', 'side_px'), [(1.0, 5), (0.1, 9)])
def test_little_damping_crowds_what_is_dimly_lit(damping, side_px):
    """16 px in full, 128 at a tenth: these are moved by 0.1 / (a + 0.1 (1 - a)) of a full step."""
    probe = np.zeros((1, N, N), dtype=complex)
    probe[0, 8:20, 8:20] = np.sqrt(0.1)
    probe[0, 12:16, 12:16] = 1
    everywhere = np.argwhere(np.ones((45, 45)))
    crowd = 100 * side_px**2 / 45**2
    assert crowding(everywhere, probe, 100, damping) == pytest.approx(crowd / MOST_CROWDED)
