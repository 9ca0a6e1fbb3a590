"""The PyTorch sweeps against the NumPy oracle: same start, same order, same result."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.backends.torch import sweeps as torch_sweeps
from ptychodus_torch_plugin.backends.torch import visits
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, SweepState, _keep_gauge
from ptychodus_torch_plugin.lattice import Lattice
from ptychodus_torch_plugin.probes import center_px
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

from .parity import CPU, TOLERANCES, Scene, assert_close, board


@pytest.fixture(params=[visits.HostVisits, visits.DeviceVisits], autouse=True)
def kind(request, monkeypatch):
    """Visit as on a processor, and as on an accelerator."""
    monkeypatch.setattr(torch_sweeps, 'visits_of', request.param)
    return request.param


ON_PROCESSOR = pytest.mark.parametrize('kind', [visits.HostVisits], indirect=True)


def both(scene, config, sweeps, *, double=False, pool=None, seed=3):
    """Run the same sweeps in both worlds; return (object, probe) of each and where light fell."""
    expected, lit = expected_sweeps(scene, config, sweeps, pool=pool, seed=seed)
    tensors = scene.tensors
    state = SweepState.start(tensors, defocused(scene.scan, config))
    state.object_ = torch.from_numpy(scene.object_)
    if double:
        state = SweepState(state.object_.to(torch.complex128), state.probe.to(torch.complex128))
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


@CONFIGS
def test_ten_sweeps_in_single_precision(scene, config, monkeypatch):
    # The tilt is measured in steps of 0.01 px: a rounding may decide between two of them, and that
    # would be a ramp over the canvas.  Here both take the same.
    for module in (plain, torch_sweeps):
        monkeypatch.setattr(module, 'tilt_px', lambda *_: (0.31, -0.17))
    actual, expected, lit = both(scene, config, plain.schedule(config, 10))
    assert_close(actual[0][lit], expected[0][lit], TOLERANCES['ten sweeps'], dtype=np.complex64)
    assert_close(actual[1], expected[1], TOLERANCES['ten sweeps'], dtype=np.complex64)


@CONFIGS
def test_sweeps_over_a_pool(scene, config):
    pool = np.array([1, 4, 5, 8, 9, 13, 20, 22, 27, 29])
    sweeps = [plain.Sweep(0.5, 0.7, 0.6), plain.Sweep(0.8, 1.0, 0.0), plain.Sweep(1.0, 0.5, 0.0)]
    actual, expected, lit = both(scene, config, sweeps, double=True, pool=pool, seed=11)
    tolerance = TOLERANCES['ten sweeps, double precision']
    assert_close(actual[0][lit], expected[0][lit], tolerance, dtype=np.complex128)
    assert_close(actual[1], expected[1], tolerance, dtype=np.complex128)


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
    state = SweepState.start(tensors, defocused(scene.scan, config))
    state.object_ = torch.from_numpy(scene.object_)
    state = SweepState(state.object_.to(torch.complex128), state.probe.to(torch.complex128))
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


@CONFIGS
def test_sweeps_leave_their_start_alone(scene, config):
    start = scene.state
    before = start.object_.clone(), start.probe.clone()
    reports = []
    sweeps = plain.schedule(config, 3)
    sweeper = Sweeper(scene.tensors, config, np.arange(scene.scan.n_patterns))
    once = sweeper.run(start, sweeps, on_sweep=lambda: reports.append(1))
    twice = sweeper.run(start, sweeps)
    assert len(reports) == 3
    assert torch.equal(start.object_, before[0])
    assert torch.equal(start.probe, before[1])
    assert torch.equal(once.object_, twice.object_)
    assert torch.equal(once.probe, twice.probe)
    assert not torch.equal(once.object_, start.object_)
    assert torch.equal(once.probe, start.probe) == (not config.refine_probe)


@ON_PROCESSOR
def test_threads_of_the_caller_are_given_back(scene, monkeypatch):
    def stop(*_):
        assert torch.get_num_threads() == 1
        raise InterruptedError

    monkeypatch.setattr(visits.HostVisits, '_update_probe', stop)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        sweeper = Sweeper(scene.tensors, REFINING, np.arange(scene.scan.n_patterns))
        with pytest.raises(InterruptedError):
            sweeper.run(scene.state, plain.schedule(REFINING, 3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_garbage_in_bad_pixels_changes_no_bit(scene):
    """Not even the largest number of a 32-bit detector."""
    scan = scene.scan
    patterns = scan.patterns.copy()
    patterns[:, scan.bad_pixels] = 2.0**32 - 1
    states = [
        Sweeper(ScanTensors(s, CPU), REFINING, np.arange(s.n_patterns)).run(
            scene.state, plain.schedule(REFINING, 3)
        )
        for s in (scan, replace(scan, patterns=patterns))
    ]
    assert torch.equal(states[0].object_, states[1].object_)
    assert torch.equal(states[0].probe, states[1].probe)


@pytest.mark.parametrize('shift', [(1, 0), (2, -3), (-1, 1), (0, 0)])
def test_the_gauge(scene, shift):
    """An odd drift turns the sign of the checkerboard on the probe."""
    drifted = 1.6 * np.roll(scene.probe, shift, axis=(-2, -1))
    home, energy = center_px(scene.probe), float(np.sum(np.abs(scene.probe) ** 2))
    state = SweepState.start(scene.tensors, drifted)
    state.object_ = torch.from_numpy(scene.object_.copy())
    velocities = state.object_ * 0.1j, state.probe * 0.2
    _keep_gauge(
        state.object_, velocities[0], state.probe, velocities[1], torch.tensor(energy), home
    )
    expected = plain.SweepState(scene.object_.astype(complex), drifted.astype(complex))
    plain_velocities = expected.object_ * 0.1j, expected.probe * 0.2
    plain._keep_gauge(expected, *plain_velocities, energy, home)
    for actual, wanted in (
        (state.export()[0], expected.object_),
        (state.export()[1], expected.probe),
        (velocities[0], plain_velocities[0]),
        (velocities[1] * board(scene.n_px), plain_velocities[1]),
    ):
        assert_close(actual, wanted, TOLERANCES['transform'], dtype=np.complex64)
    assert_close(state.export()[1], scene.probe, TOLERANCES['transform'], dtype=np.complex64)
