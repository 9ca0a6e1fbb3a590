"""The PyTorch physics and sweeps against the NumPy oracle, on asymmetric inputs."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch import sweeps as torch_sweeps
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import (
    Sweeper,
    SweepState,
    _keep_gauge,
    photons_per_pixel,
)
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.probes import center_px
from ptychodus_torch_plugin.scan import ScanData

TOLERANCES = {
    # All relative to the largest value of the oracle's result, which is in double precision.
    # Shifts, propagation, scatter: some roundings of single precision, 6e-8 each.
    'transform': 2e-6,
    # Forward intensity: squares of the above.
    'intensity': 1e-5,
    # Loss: a sum of terms that cancel, over many pixels.
    'loss': 1e-5,
    # Gradient of the loss with respect to the object: 1 - k / I, where I may be near zero.
    'gradient': 1e-3,
    # Analytic gradient of the oracle against its own finite differences.
    'finite differences': 1e-5,
    # Ten sweeps in double precision: the same algorithm.  What is left comes from the final ramp,
    # which is applied in single precision.
    'ten sweeps, double precision': 1e-6,
    # Ten sweeps in single precision: roundings of a batch enter the next one.
    'ten sweeps': 1e-5,
}

CPU = torch.device('cpu')
SINGLE = {'real': np.float32, 'complex': np.complex64}


@dataclass(frozen=True)
class Scene:
    """A scan, and an object on its canvas and a probe that do not fit it; also as tensors."""

    scan: ScanData
    object_: np.ndarray
    probe: np.ndarray

    @property
    def n_px(self):
        return self.scan.n_px

    @property
    def where(self):
        return self.scan.frame.corners(self.scan.positions_px, self.n_px)

    @property
    def tensors(self):
        return ScanTensors(self.scan, CPU)

    @property
    def state(self):
        state = SweepState.start(self.tensors, self.probe)
        state.object_ = torch.from_numpy(self.object_)
        return state

    def predicted(self):
        """Return what the oracle predicts, in double precision."""
        wide = self.object_.astype(complex), self.probe.astype(complex)
        return oracle.predict_counts(*wide, *self.where)

    def tensor_prediction(self, object_=None, chosen=None):
        tensors, state = self.tensors, self.state
        chosen = torch.arange(len(tensors)) if chosen is None else chosen
        object_ = state.object_ if object_ is None else object_
        patches = physics.gather_patches(object_, tensors.batch_index(chosen), self.n_px)
        return physics.predict_counts(patches, tensors.batch_probes(state.probe, chosen))


SCENES = {
    '32 px, 3 modes, sub-pixel': (32, 3, False),
    '32 px, 1 mode, whole pixels': (32, 1, True),
    '64 px, 2 modes, whole pixels': (64, 2, True),
    '64 px, 1 mode, sub-pixel': (64, 1, False),
}


@pytest.fixture(scope='module', params=SCENES.values(), ids=SCENES)
def scene(request, lopsided):
    n_px, modes, whole = request.param
    scan = lopsided(n_px, modes, whole=whole)
    height, width = scan.frame.shape
    y, x = np.indices((height, width))
    disc = (y - 20) ** 2 + (x - 31) ** 2 < 90
    object_ = (0.8 + 0.15 * np.sin(y / 5) * np.cos(x / 7 + 0.5)) * np.exp(
        1j * np.sin(x / 6) + 0.7j * disc
    )
    # Fine texture scatters light into every pixel: a dark one has no phase to agree on.
    object_ += 0.1 * waves_of(object_.shape, 7, flat=True)
    assert np.any(scan.frame.corners(scan.positions_px, n_px)[1]) != whole
    # Off the centre of the patch by whole pixels, unequal along y and x.
    probe = np.roll(scan.probe, (2, -3), axis=(-2, -1))
    return Scene(scan, object_.astype(np.complex64), probe)


# The comparison itself


@pytest.mark.parametrize(
    'spoil',
    [
        lambda x: np.roll(x, 1, axis=-1),
        lambda x: np.roll(x, 1, axis=-2),
        lambda x: x.swapaxes(-2, -1),
        lambda x: x[::-1],
        lambda x: x.conj(),
        lambda x: x.astype(np.complex128),
        lambda x: x[:, :-1],
        lambda x: x * (1 + 2e-5),
        lambda x: x * np.nan,
    ],
    ids=['column', 'row', 'axes', 'modes', 'conjugate', 'dtype', 'shape', 'scale', 'nan'],
)
def test_the_comparison_notices(assert_close, lopsided, spoil):
    probe = lopsided(32, 3, whole=False).probe
    assert_close(probe * np.float32(1 + 5e-6), probe.astype(complex), 1e-5, dtype=np.complex64)
    with pytest.raises(AssertionError):
        assert_close(spoil(probe), probe.astype(complex), 1e-5, dtype=np.complex64)


# Physics, function by function


def board(n_px):
    return physics.checkerboard(n_px, CPU)


def waves_of(shape, seed=0, *, flat=False):
    """Return complex noise that is strongest in one corner, or not."""
    noise = np.random.default_rng(seed).normal(size=(*shape, 2)).view(np.complex128)[..., 0]
    if flat:
        return noise
    y, x = np.indices(shape[-2:])
    return (noise * np.exp(-(y + 2 * x) / shape[-1])).astype(np.complex64)


@pytest.mark.parametrize('n_px', [24, 32, 64])
def test_far_and_near_field(assert_close, n_px):
    waves = waves_of((3, 2, n_px, n_px))
    far = physics.far_field(torch.from_numpy(waves) * board(n_px))
    # The checkerboard centres the far field and leaves another one on it, which no intensity sees.
    expected = oracle.far_field(waves.astype(complex))
    assert_close(far * board(n_px), expected, TOLERANCES['transform'], dtype=np.complex64)
    near = physics.near_field(far) * board(n_px)
    assert_close(near, waves, TOLERANCES['transform'], dtype=np.complex64)


@pytest.mark.parametrize('norm', ['backward', 'ortho'])
@pytest.mark.parametrize('batch', [(), (1,), (1, 1), (3,)])
def test_a_single_transform_is_the_same_as_one_of_many(assert_close, batch, norm):
    waves = waves_of((*batch, 32, 32))
    for own, numpys in ((physics.fft2, np.fft.fft2), (physics.ifft2, np.fft.ifft2)):
        actual, expected = own(torch.from_numpy(waves), norm), numpys(waves, norm=norm)
        assert_close(actual, expected, TOLERANCES['transform'], dtype=np.complex64)


@pytest.mark.parametrize('n_px', [24, 32, 64])
def test_shifted_probes(assert_close, n_px):
    probe = waves_of((3, n_px, n_px))
    remainders = np.array([[0.3, -0.45], [0.0, 0.0], [-0.5, 0.49], [0.01, 0.2]])
    ramps = physics.shift_ramps(torch.from_numpy(remainders), n_px)
    assert (ramps.dtype, ramps.shape) == (torch.complex64, (4, 2, n_px))
    shifted = physics.shift_probe(torch.from_numpy(probe) * board(n_px), ramps) * board(n_px)
    expected = oracle.shift_probe(probe.astype(complex), remainders)
    assert_close(shifted, expected, TOLERANCES['transform'], dtype=np.complex64)


def test_gather_and_scatter(assert_close, scene):
    corners, _ = scene.where
    n_px, shape = scene.n_px, scene.scan.frame.shape
    index = physics.patch_index(torch.from_numpy(corners), n_px, shape[1])
    patches = physics.gather_patches(torch.from_numpy(scene.object_), index, n_px)
    expected = oracle.gather_patches(scene.object_, corners, n_px)
    assert_close(patches[:, 0], expected, 0, dtype=np.complex64)
    values = waves_of((len(corners), n_px, n_px))
    canvas = np.zeros(shape, dtype=complex)
    oracle.scatter_patches(values.astype(complex), corners, canvas)
    scattered = physics.scatter_patches(torch.from_numpy(values), index, shape)
    assert_close(scattered, canvas, TOLERANCES['transform'], dtype=np.complex64)


def test_predicted_counts(assert_close, scene):
    predicted, expected = scene.tensor_prediction(), scene.predicted()
    assert_close(predicted, expected, TOLERANCES['intensity'], dtype=np.float32)
    totals = predicted.sum((1, 2)), expected.sum(axis=(1, 2))
    assert_close(*totals, TOLERANCES['intensity'], dtype=np.float32)
    chosen = torch.tensor([17, 0, 4])
    part = scene.tensor_prediction(chosen=chosen)
    assert_close(part, expected[chosen], TOLERANCES['intensity'], dtype=np.float32)


def test_a_scan_as_tensors(assert_close, scene):
    scan, tensors = scene.scan, scene.tensors
    assert len(tensors) == scan.n_patterns
    np.testing.assert_array_equal(tensors.corners, scene.where[0])
    np.testing.assert_array_equal(tensors.valid, scan.valid_pixels.astype(np.float32))
    assert tensors.mean_count == pytest.approx(
        scan.patterns[:, scan.valid_pixels].mean(dtype=np.float64), rel=1e-6
    )
    chosen = torch.tensor([17, 0, 4])
    assert_close(tensors.batch_counts(chosen), scan.patterns[chosen], 0, dtype=np.float32)
    assert (tensors.ramps is None) == (not np.any(scene.where[1]))
    assert tensors.counts.numpy().base is not None
    assert np.shares_memory(tensors.counts.numpy(), scan.patterns)


@pytest.mark.parametrize('factor', [1.0, 0.9, 1.3])
def test_the_loss(assert_close, scene, factor):
    tensors, scan = scene.tensors, scene.scan
    predicted = scene.predicted() * factor
    loss = physics.poisson_loss(
        torch.from_numpy(predicted.astype(np.float32)),
        tensors.counts,
        tensors.valid,
        tensors.mean_count,
    )
    expected = oracle.poisson_loss(predicted, scan.patterns, scan.valid_pixels, tensors.mean_count)
    assert_close(loss, expected, TOLERANCES['loss'], dtype=np.float32)


def test_the_loss_of_dark_pixels(assert_close):
    counts = np.array([[[0.0, 3.0], [0.0, 7.0]]], np.float32)
    predicted = np.array([[[0.0, 0.0], [2.0, 7.0]]], np.float32)
    valid = np.array([[True, True], [True, False]])
    loss = physics.poisson_loss(
        *(torch.from_numpy(x) for x in (predicted, counts, valid.astype(np.float32))), 2.5
    )
    expected = oracle.poisson_loss(predicted, counts, valid, 2.5)
    assert_close(loss, expected, TOLERANCES['loss'], dtype=np.float32)


def test_imposed_counts(assert_close, scene):
    tensors, scan = scene.tensors, scene.scan
    waves = waves_of((scan.n_patterns, 2, scene.n_px, scene.n_px)) * 20
    wave_tensor = torch.from_numpy(waves)
    intensity = physics.absolute_square(wave_tensor).sum(1)
    factor = physics.count_factor(intensity, tensors.counts, tensors.valid)
    expected = oracle.impose_counts(waves.astype(complex), scan.patterns, scan.valid_pixels)
    imposed = wave_tensor * (1 + factor[:, None])
    assert_close(imposed, expected, TOLERANCES['transform'], dtype=np.complex64)
    assert not factor[:, ~torch.from_numpy(scan.valid_pixels)].any()


def test_photons_per_pixel(assert_close, scene):
    corners, remainders = scene.where
    for pool in (np.arange(scene.scan.n_patterns), np.array([25, 3, 11])):
        photons = photons_per_pixel(scene.tensors, scene.state.probe, pool)
        expected = oracle.illumination(
            scene.probe.astype(complex), corners[pool], remainders[pool], scene.scan.frame.shape
        )
        assert_close(photons, expected, TOLERANCES['intensity'], dtype=np.float32)


# Gradient


def analytic_gradient(scene):
    """Return the gradient dL/da + i dL/db of the loss with respect to the object a + i b."""
    scan, (corners, remainders) = scene.scan, scene.where
    probes = oracle.shift_probe(scene.probe.astype(complex), remainders)
    patches = oracle.gather_patches(scene.object_.astype(complex), corners, scene.n_px)
    waves = oracle.far_field(probes * patches[:, None])
    intensity = np.sum(np.abs(waves) ** 2, axis=1)
    pull = np.where(scan.valid_pixels, 1 - scan.patterns / intensity, 0)
    back = oracle.near_field(2 * pull[:, None] * waves)
    canvas = np.zeros(scan.frame.shape, dtype=complex)
    oracle.scatter_patches(np.sum(probes.conj() * back, axis=1), corners, canvas)
    n_terms = scan.n_patterns * scan.valid_pixels.sum()
    return canvas / (n_terms * scene.tensors.mean_count)


def test_the_gradient_of_the_loss(assert_close, scene):
    tensors = scene.tensors
    object_ = torch.from_numpy(scene.object_).requires_grad_()
    predicted = scene.tensor_prediction(object_)
    physics.poisson_loss(predicted, tensors.counts, tensors.valid, tensors.mean_count).backward()
    expected = analytic_gradient(scene)
    assert_close(object_.grad, expected, TOLERANCES['gradient'], dtype=np.complex64)


def test_the_analytic_gradient_by_finite_differences(assert_close, scene):
    scan, gradient = scene.scan, analytic_gradient(scene)

    def loss(object_):
        predicted = oracle.predict_counts(object_, scene.probe.astype(complex), *scene.where)
        mean_count = scene.tensors.mean_count
        return oracle.poisson_loss(predicted, scan.patterns, scan.valid_pixels, mean_count)

    slopes, expected = [], []
    for seed in range(4):
        # A direction that rises to one side, so that no symmetry hides a transposition.
        direction = waves_of((128, 128), seed)[: gradient.shape[0], : gradient.shape[1]]
        step = 1e-5 * direction
        wide = scene.object_.astype(complex)
        slopes.append((loss(wide + step) - loss(wide - step)) / 2e-5)
        expected.append(np.vdot(direction.astype(complex), gradient).real)
    assert_close(np.array(slopes), expected, TOLERANCES['finite differences'], dtype=np.float64)


# Sweeps

SETTINGS = SweepConfig(
    damping_start=0.2,
    damping_end=1.0,
    momentum=0.8,
    settling_sweeps=3,
    batch_size=7,
    refine_probe=False,
    probe_damping=0.4,
    probe_step=0.6,
    probe_momentum=0.5,
)
REFINING = SETTINGS.model_copy(update={'refine_probe': True})
CONFIGS = pytest.mark.parametrize(
    'config', [SETTINGS, REFINING], ids=['probe kept', 'probe refined']
)


def defocused(scan, config):
    """Return a first probe that is wrong, so that refining has something to do."""
    f = np.fft.fftfreq(scan.n_px)
    probe = np.fft.fft2(plain.first_probe(scan, config))
    return np.fft.ifft2(probe * np.exp(4j * (f[:, None] ** 2 - f**2))).astype(np.complex64)


def both(scene, config, sweeps, *, double=False, pool=None, seed=3):
    """Run the same sweeps in both worlds; return (object, probe) of each and where light fell."""
    scan, probe = scene.scan, defocused(scene.scan, config)
    expected = plain.SweepState(scene.object_.astype(complex), probe.astype(complex))
    plain.sweep_oracle(scan, expected, config, sweeps, pool=pool, seed=seed)

    tensors = scene.tensors
    state = SweepState.start(tensors, probe)
    state.object_ = torch.from_numpy(scene.object_)
    if double:
        state = SweepState(state.object_.to(torch.complex128), state.probe.to(torch.complex128))
        tensors = in_double_precision(tensors, scene)
    pool = np.arange(scan.n_patterns) if pool is None else pool
    swept = Sweeper(tensors, config, pool).run(state, sweeps, seed=seed)
    light = oracle.illumination(expected.probe, *scene.where, scan.frame.shape)
    lit = light > 0.1 * np.quantile(light, 0.9)
    assert 0.1 < lit.mean() < 0.9
    return swept.export(), (expected.object_, expected.probe), lit


def in_double_precision(tensors, scene):
    """Give the tensors the sub-pixel factors that `shift_ramps` rounds to single precision."""
    if tensors.ramps is not None:
        f = np.fft.fftshift(np.fft.fftfreq(scene.n_px))
        tensors.ramps = torch.from_numpy(np.exp(-2j * np.pi * scene.where[1][:, :, None] * f))
    return tensors


@CONFIGS
def test_ten_sweeps_are_the_same_algorithm(assert_close, scene, config):
    sweeps = plain.schedule(config, 10)
    actual, expected, lit = both(scene, config, sweeps, double=True)
    tolerance = TOLERANCES['ten sweeps, double precision']
    assert np.abs(expected[0] - scene.object_)[lit].mean() > 0.1
    assert_close(actual[0][lit], expected[0][lit], tolerance, dtype=np.complex128)
    assert_close(actual[1], expected[1], tolerance, dtype=np.complex128)
    moved = np.abs(expected[1] - defocused(scene.scan, config)).max() / np.abs(expected[1]).max()
    assert moved > 0.05 if config.refine_probe else moved == 0


@CONFIGS
def test_ten_sweeps_in_single_precision(assert_close, scene, config, monkeypatch):
    # The tilt is measured in steps of 0.01 px: a rounding may decide between two of them, and that
    # would be a ramp over the canvas.  Here both take the same.
    for module in (plain, torch_sweeps):
        monkeypatch.setattr(module, 'tilt_px', lambda *_: (0.31, -0.17))
    actual, expected, lit = both(scene, config, plain.schedule(config, 10))
    assert_close(actual[0][lit], expected[0][lit], TOLERANCES['ten sweeps'], dtype=np.complex64)
    assert_close(actual[1], expected[1], TOLERANCES['ten sweeps'], dtype=np.complex64)


@CONFIGS
def test_sweeps_over_a_pool(assert_close, scene, config):
    pool = np.array([1, 4, 5, 8, 9, 13, 20, 22, 27, 29])
    sweeps = [plain.Sweep(0.5, 0.7, 0.6), plain.Sweep(0.8, 1.0, 0.0), plain.Sweep(1.0, 0.5, 0.0)]
    actual, expected, lit = both(scene, config, sweeps, double=True, pool=pool, seed=11)
    tolerance = TOLERANCES['ten sweeps, double precision']
    assert_close(actual[0][lit], expected[0][lit], tolerance, dtype=np.complex128)
    assert_close(actual[1], expected[1], tolerance, dtype=np.complex128)


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
def test_the_gauge(assert_close, scene, shift):
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
    moved = SimpleNamespace(object_=velocities[0], probe=velocities[1] * board(scene.n_px))
    for actual, wanted in (
        (state.export()[0], expected.object_),
        (state.export()[1], expected.probe),
        (moved.object_, plain_velocities[0]),
        (moved.probe, plain_velocities[1]),
    ):
        assert_close(actual, wanted, TOLERANCES['transform'], dtype=np.complex64)
    assert_close(state.export()[1], scene.probe, TOLERANCES['transform'], dtype=np.complex64)
