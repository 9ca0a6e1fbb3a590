"""The TensorFlow sweeps against the NumPy oracle: same start, same order, same result."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.backends.tensorflow import physics, visits
from ptychodus_torch_plugin.backends.tensorflow import sweeps as tensor_sweeps
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.backends.tensorflow.sweeps import Sweeper, SweepState, _kept_gauge
from ptychodus_torch_plugin.lattice import Lattice
from ptychodus_torch_plugin.probes import center_px
from tests.parity.comparison import TOLERANCES, assert_close
from tests.parity.scenes import darkened, regular_scan
from tests.parity.sweeping import (
    CONFIGS,
    EXPOSING,
    REFINING,
    SETTINGS,
    defocused,
    expected_state,
    expected_sweeps,
    uneven,
)

from .parity import Scene

EITHER = pytest.mark.parametrize(
    'config',
    [pytest.param(SETTINGS, marks=pytest.mark.slow), REFINING],
    ids=['probe kept', 'probe refined'],
)


@pytest.fixture(params=[visits.HostVisits, visits.DeviceVisits], autouse=True)
def kind(request, monkeypatch):
    """Visit as on a processor, and as on an accelerator."""
    monkeypatch.setattr(tensor_sweeps, 'visits_of', request.param)
    return request.param


def both(scene, config, sweeps, *, double=False, pool=None, seed=3):
    """Run the same sweeps in both worlds; return (object, probe) of each and where light fell."""
    expected, lit = expected_sweeps(scene, config, sweeps, pool=pool, seed=seed)
    tensors = scene.tensors
    start = SweepState.start(tensors, defocused(scene.scan, config))
    dtype = tf.complex128 if double else tf.complex64
    state = SweepState(tf.constant(scene.object_, dtype), tf.cast(start.probe, dtype))
    pool = np.arange(scene.scan.n_patterns) if pool is None else pool
    swept = Sweeper(tensors, config, pool).run(state, sweeps, seed=seed)
    return swept.export(), expected, lit


@CONFIGS
def test_ten_sweeps_are_the_same_algorithm(scene, config):
    sweeps = plain.schedule(config, 10)
    actual, expected, lit = both(scene, config, sweeps, double=True)
    tolerance = TOLERANCES['ten sweeps, double precision']
    assert np.abs(expected[0] - scene.object_)[lit].mean() > 0.1
    assert_close(actual[0][lit], expected[0][lit], tolerance, dtype=np.complex128)
    assert_close(actual[1], expected[1], tolerance, dtype=np.complex128)
    moved = np.abs(expected[1] - defocused(scene.scan, config)).max() / np.abs(expected[1]).max()
    assert moved > 0.05 if config.refine_probe else moved == 0


# `test_stored` holds single precision to the oracle in every run.
@pytest.mark.slow
@CONFIGS
def test_ten_sweeps_in_single_precision(scene, config, monkeypatch):
    # The tilt is measured in steps of 0.01 px: a rounding may decide between two of them, and that
    # would be a ramp over the canvas.  Here both take the same.
    for module in (plain, tensor_sweeps):
        monkeypatch.setattr(module, 'tilt_px', lambda *_: (0.31, -0.17))
    actual, expected, lit = both(scene, config, plain.schedule(config, 10))
    assert_close(actual[0][lit], expected[0][lit], TOLERANCES['ten sweeps'], dtype=np.complex64)
    assert_close(actual[1], expected[1], TOLERANCES['ten sweeps'], dtype=np.complex64)


# With the probe kept: `test_sweeps_that_refine_exposures` sweeps over pools, too.
@EITHER
def test_sweeps_over_a_pool(scene, config):
    pool = np.array([1, 4, 5, 8, 9, 13, 20, 22, 27, 29])
    sweeps = [plain.Sweep(0.5, 0.7, 0.6), plain.Sweep(0.8, 1.0, 0.0), plain.Sweep(1.0, 0.5, 0.0)]
    actual, expected, lit = both(scene, config, sweeps, double=True, pool=pool, seed=11)
    tolerance = TOLERANCES['ten sweeps, double precision']
    assert_close(actual[0][lit], expected[0][lit], tolerance, dtype=np.complex128)
    assert_close(actual[1], expected[1], tolerance, dtype=np.complex128)


def same(one, other):
    return np.array_equal(one.numpy(), other.numpy())


def test_sweeps_with_a_background(scene):
    dark = replace(scene, scan=darkened(scene.scan))
    actual, expected, lit = both(dark, REFINING, plain.schedule(REFINING, 5), double=True)
    tolerance = TOLERANCES['ten sweeps, double precision']
    assert_close(actual[0][lit], expected[0][lit], tolerance, dtype=np.complex128)
    assert_close(actual[1], expected[1], tolerance, dtype=np.complex128)
    without = replace(dark, scan=replace(dark.scan, background=None))
    blind, _ = expected_sweeps(without, REFINING, plain.schedule(REFINING, 5))
    assert np.abs(blind[0] - expected[0])[lit].mean() > 0.02


def test_sweeps_over_a_regular_raster(monkeypatch):
    raster = Scene.on(regular_scan(), whole=False)
    # Some accelerated sweeps after the first net is undone: momentum repeats what is left of it.
    sweeps = plain.schedule(REFINING, 7)
    actual, expected, lit = both(raster, REFINING, sweeps, double=True)
    # What to multiply by is in single precision.
    tolerance = TOLERANCES['ten sweeps']
    assert_close(actual[0][lit], expected[0][lit], tolerance, dtype=np.complex128)
    assert_close(actual[1], expected[1], tolerance, dtype=np.complex128)
    monkeypatch.setattr(Lattice, 'found', lambda *_: None)
    netted, _ = expected_sweeps(raster, REFINING, sweeps)
    assert np.abs(netted[0] - expected[0])[lit].mean() > 0.01
    assert np.abs(netted[1] - expected[1]).max() > 0.01 * np.abs(expected[1]).max()


@EXPOSING
def test_sweeps_that_refine_exposures(scene, wanted, pool):
    scene = uneven(scene)
    config = SETTINGS.model_copy(update=dict.fromkeys(wanted, True))
    sweeps = plain.schedule(config, 6)
    expected, lit = expected_state(scene, config, sweeps, pool=pool)
    tensors = scene.tensors
    start = SweepState.start(tensors, defocused(scene.scan, config))
    dtype = tf.complex128
    state = SweepState(tf.constant(scene.object_, dtype), tf.cast(start.probe, dtype))
    pool = np.arange(scene.scan.n_patterns) if pool is None else pool
    swept = Sweeper(tensors, config, pool).run(state, sweeps, seed=3)
    tolerance = TOLERANCES['ten sweeps, double precision']
    object_, probe = swept.export()
    assert_close(object_[lit], expected.object_[lit], tolerance, dtype=np.complex128)
    assert_close(probe, expected.probe, tolerance, dtype=np.complex128)
    for name, given in (('intensities', 1.0), ('positions_px', scene.scan.positions_px)):
        one, other = (getattr(each.exposures, name) for each in (swept, expected))
        assert_close(one, other, tolerance, dtype=np.float64)
        changed = np.abs(other - given).max() > 0.1
        assert changed == (name.split('_')[0].removesuffix('ies') in ' '.join(wanted))


# With the probe kept: `test_ten_sweeps_are_the_same_algorithm` looks whether it moves.
@EITHER
def test_sweeps_leave_their_start_alone(scene, config):
    start = scene.state
    before = start.object_.numpy().copy(), start.probe.numpy().copy()
    reports = []
    sweeps = plain.schedule(config, 3)
    sweeper = Sweeper(scene.tensors, config, np.arange(scene.scan.n_patterns))
    once = sweeper.run(start, sweeps, on_sweep=lambda: reports.append(1))
    twice = sweeper.run(start, sweeps)
    assert len(reports) == 3
    assert np.array_equal(start.object_, before[0])
    assert np.array_equal(start.probe, before[1])
    assert same(once.object_, twice.object_)
    assert same(once.probe, twice.probe)
    assert not same(once.object_, start.object_)
    assert same(once.probe, start.probe) == (not config.refine_probe)


def test_garbage_in_bad_pixels_changes_no_bit(scene):
    """Not even the largest number of a 32-bit detector."""
    scan = scene.scan
    patterns = scan.patterns.copy()
    patterns[:, scan.bad_pixels] = 2.0**32 - 1
    states = [
        Sweeper(ScanTensors(s), REFINING, np.arange(s.n_patterns)).run(
            scene.state, plain.schedule(REFINING, 3)
        )
        for s in (scan, replace(scan, patterns=patterns))
    ]
    assert same(states[0].object_, states[1].object_)
    assert same(states[0].probe, states[1].probe)


@pytest.mark.parametrize('kind', [visits.DeviceVisits], indirect=True)
def test_a_scan_of_the_same_size_is_not_traced_again(scene, monkeypatch):
    """With and without the probe, and whatever is left for the last batch."""
    function = tf.function(visits._updated, reduce_retracing=True, autograph=False)
    monkeypatch.setattr(visits, 'traced', function)
    monkeypatch.setattr(visits, 'BATCHES_AT_ONCE', 2)
    for config, n in ((REFINING, scene.scan.n_patterns), (SETTINGS, 29), (REFINING, 20)):
        Sweeper(scene.tensors, config, np.arange(n)).run(scene.state, plain.schedule(config, 3))
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize('shift', [(1, 0), (2, -3), (-1, 1), (0, 0)])
def test_the_gauge(scene, shift):
    """An odd drift turns the sign of the checkerboard on the probe."""
    drifted = 1.6 * np.roll(scene.probe, shift, axis=(-2, -1))
    home, energy = center_px(scene.probe), float(np.sum(np.abs(scene.probe) ** 2))
    probe = SweepState.start(scene.tensors, drifted).probe
    object_ = tf.constant(scene.object_)
    kept = _kept_gauge(object_, object_ * 0.1j, probe, probe * 0.2, tf.constant(energy), home)
    state = SweepState(kept[0], kept[2])
    expected = plain.SweepState(scene.object_.astype(complex), drifted.astype(complex))
    plain_velocities = expected.object_ * 0.1j, expected.probe * 0.2
    plain._keep_gauge(expected, *plain_velocities, energy, home)
    for actual, wanted in (
        (state.export()[0], expected.object_),
        (state.export()[1], expected.probe),
        (kept[1], plain_velocities[0]),
        (kept[3] * physics.checkerboard(scene.n_px), plain_velocities[1]),
    ):
        assert_close(actual, wanted, TOLERANCES['transform'], dtype=np.complex64)
    assert_close(state.export()[1], scene.probe, TOLERANCES['transform'], dtype=np.complex64)
