"""The PyTorch physics against the NumPy oracle, function by function, and the gradient."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.backends.torch import data, physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, photons_per_pixel
from tests.parity.comparison import SPOILED, unlike
from tests.parity.comparison import single as single_arrays
from tests.parity.sweeping import REFINING

from .parity import CPU, TOLERANCES, assert_close, board, waves_of

# The comparison itself


@pytest.mark.parametrize('spoil', SPOILED.values(), ids=SPOILED)
def test_the_comparison_notices(lopsided, spoil):
    probe = lopsided(32, 3, whole=False).probe
    assert_close(probe * np.float32(1 + 5e-6), probe.astype(complex), 1e-5, dtype=np.complex64)
    with pytest.raises(AssertionError):
        assert_close(spoil(probe), probe.astype(complex), 1e-5, dtype=np.complex64)


# Physics, function by function


@pytest.mark.parametrize('n_px', [24, 32, 64])
def test_far_and_near_field(n_px):
    waves = waves_of((3, 2, n_px, n_px))
    far = physics.far_field(torch.from_numpy(waves) * board(n_px))
    # The checkerboard centres the far field and leaves another one on it, which no intensity sees.
    expected = oracle.far_field(waves.astype(complex))
    assert_close(far * board(n_px), expected, TOLERANCES['transform'], dtype=np.complex64)
    near = physics.near_field(far) * board(n_px)
    assert_close(near, waves, TOLERANCES['transform'], dtype=np.complex64)


@pytest.mark.parametrize('norm', ['backward', 'ortho'])
@pytest.mark.parametrize('batch', [(), (1,), (1, 1), (3,)])
def test_a_single_transform_is_the_same_as_one_of_many(batch, norm):
    waves = waves_of((*batch, 32, 32))
    for own, numpys in ((physics.fft2, np.fft.fft2), (physics.ifft2, np.fft.ifft2)):
        actual, expected = own(torch.from_numpy(waves), norm), numpys(waves, norm=norm)
        assert_close(actual, expected, TOLERANCES['transform'], dtype=np.complex64)


@pytest.mark.parametrize('n_px', [24, 32, 64])
def test_shifted_probes(n_px):
    probe = waves_of((3, n_px, n_px))
    remainders = np.array([[0.3, -0.45], [0.0, 0.0], [-0.5, 0.49], [0.01, 0.2]])
    ramps = physics.shift_ramps(torch.from_numpy(remainders), n_px)
    assert (ramps.dtype, ramps.shape) == (torch.complex64, (4, 2, n_px))
    shifted = physics.shift_probe(torch.from_numpy(probe) * board(n_px), ramps) * board(n_px)
    expected = oracle.shift_probe(probe.astype(complex), remainders)
    assert_close(shifted, expected, TOLERANCES['transform'], dtype=np.complex64)


def test_gather_and_scatter(scene):
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
    added = torch.zeros(shape, dtype=torch.complex64)
    scene.tensors.add_patches(added, np.arange(len(corners)), torch.from_numpy(values))
    assert_close(added, canvas, TOLERANCES['transform'], dtype=np.complex64)


def test_windows_are_all_patches_of_a_canvas(scene):
    canvas, tensors = torch.from_numpy(scene.object_), scene.tensors
    windows = physics.windows(canvas, scene.n_px)
    expected = oracle.gather_patches(scene.object_, scene.where[0], scene.n_px)
    assert_close(windows[tensors.starts], expected, 0, dtype=np.complex64)
    height, width = canvas.shape
    assert len(windows) == (height - scene.n_px) * width + width - scene.n_px + 1
    assert torch.equal(windows[-1], canvas[-scene.n_px :, -scene.n_px :])


def test_predicted_counts(scene):
    predicted, expected = scene.tensor_prediction(), scene.predicted()
    assert_close(predicted, expected, TOLERANCES['intensity'], dtype=np.float32)
    totals = predicted.sum((1, 2)), expected.sum(axis=(1, 2))
    assert_close(*totals, TOLERANCES['intensity'], dtype=np.float32)
    chosen = torch.tensor([17, 0, 4])
    part = scene.tensor_prediction(chosen=chosen)
    assert_close(part, expected[chosen], TOLERANCES['intensity'], dtype=np.float32)


def test_a_scan_as_tensors(scene):
    scan, tensors = scene.scan, scene.tensors
    assert len(tensors) == scan.n_patterns
    np.testing.assert_array_equal(tensors.corners, scene.where[0])
    np.testing.assert_array_equal(tensors.valid, scan.valid_pixels.astype(np.float32))
    assert tensors.mean_count == pytest.approx(
        scan.patterns[:, scan.valid_pixels].mean(dtype=np.float64), rel=1e-6
    )
    chosen = np.array([17, 0, 4])
    assert_close(tensors.batch_counts(chosen), scan.patterns[chosen], 0, dtype=np.float32)
    assert (tensors.remainders is None) == (not np.any(scene.where[1]))
    assert np.shares_memory(tensors.counts.numpy(), scan.patterns)


class Fetched:
    """Patterns that are read from somewhere else whenever they are asked for."""

    def __init__(self, patterns):
        self._patterns = patterns
        self.shape, self.dtype, self.nbytes = patterns.shape, patterns.dtype, patterns.nbytes

    def __len__(self):
        return len(self._patterns)

    def __getitem__(self, chosen):
        return self._patterns[chosen].copy()


def test_patterns_that_are_not_in_memory(scene):
    """Batches are fetched, and nothing else is."""
    patterns = Fetched(scene.scan.patterns[::-1])
    tensors = ScanTensors(scene.scan, CPU, patterns)
    assert tensors.counts is None
    chosen = np.array([17, 0, 4])
    assert_close(tensors.batch_counts(chosen), patterns[chosen], 0, dtype=np.float32)
    in_memory = ScanTensors(scene.scan, CPU, patterns[:])
    config, pool = REFINING, np.arange(scene.scan.n_patterns)
    one, other = (
        Sweeper(each, config, pool).run(scene.state, plain.schedule(config, 2))
        for each in (tensors, in_memory)
    )
    assert torch.equal(one.object_, other.object_)


def test_what_an_accelerator_keeps_is_brought_there_in_parts(scene, monkeypatch):
    monkeypatch.setattr(data, 'FETCHED_AT_ONCE', 7)
    elsewhere = torch.device('meta')
    assert (
        data._resident(Fetched(scene.scan.patterns), elsewhere).shape == scene.scan.patterns.shape
    )
    monkeypatch.setattr(data, 'RESIDENT_BYTES', scene.scan.patterns.nbytes - 1)
    assert data._resident(scene.scan.patterns, elsewhere) is None


@pytest.mark.parametrize('factor', [1.0, 0.9, 1.3])
def test_the_loss(scene, factor):
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


def test_the_loss_of_dark_pixels():
    counts = np.array([[[0.0, 3.0], [0.0, 7.0]]], np.float32)
    predicted = np.array([[[0.0, 0.0], [2.0, 7.0]]], np.float32)
    valid = np.array([[True, True], [True, False]])
    loss = physics.poisson_loss(
        *(torch.from_numpy(x) for x in (predicted, counts, valid.astype(np.float32))), 2.5
    )
    expected = oracle.poisson_loss(predicted, counts, valid, 2.5)
    assert_close(loss, expected, TOLERANCES['loss'], dtype=np.float32)


def test_imposed_counts(scene):
    tensors, scan = scene.tensors, scene.scan
    waves = waves_of((scan.n_patterns, 2, scene.n_px, scene.n_px)) * 20
    wave_tensor = torch.from_numpy(waves)
    intensity = physics.absolute_square(wave_tensor).sum(1)
    dark = np.random.default_rng(6).uniform(0, 900, scan.valid_pixels.shape).astype(np.float32)
    for background in (None, dark):
        tensor = None if background is None else torch.from_numpy(background)
        factor = physics.count_factor(intensity, tensors.counts, tensors.valid, tensor)
        known = waves.astype(complex), scan.patterns, scan.valid_pixels
        expected = oracle.impose_counts(*known, 0.0 if background is None else background)
        imposed = wave_tensor * (1 + factor[:, None])
        assert_close(imposed, expected, TOLERANCES['transform'], dtype=np.complex64)
        assert not factor[:, ~torch.from_numpy(scan.valid_pixels)].any()


def test_photons_per_pixel(scene):
    corners, remainders = scene.where
    for pool in (np.arange(scene.scan.n_patterns), np.array([25, 3, 11])):
        photons = photons_per_pixel(scene.tensors, scene.state.probe, pool)
        expected = oracle.illumination(
            scene.probe.astype(complex), corners[pool], remainders[pool], scene.scan.frame.shape
        )
        assert_close(photons, expected, TOLERANCES['intensity'], dtype=np.float32)


# Groups of patterns


def single(*arrays):
    """Return tensors in single precision."""
    return [torch.from_numpy(array) for array in single_arrays(*arrays)]


@pytest.mark.parametrize('n_px', [24, 64])
def test_the_amplitude_error(n_px):
    counts, predicted, *_, valid = unlike(3, n_px)
    predicted[1, 2] = 0
    error = physics.amplitude_error(*single(predicted, counts, valid), 3.7)
    expected = oracle.amplitude_error(predicted, counts, valid, 3.7)
    assert_close(error, expected, TOLERANCES['loss'], dtype=np.float32)
    for flipped in (valid.T, valid[::-1], valid[:, ::-1]):
        other = oracle.amplitude_error(predicted, counts, flipped, 3.7)
        with pytest.raises(AssertionError, match='off by'):
            assert_close(error, other, TOLERANCES['loss'], dtype=np.float32)


@pytest.mark.parametrize('n_px', [24, 64])
def test_the_object_error(n_px):
    _, _, patches, truth, weight, _ = unlike(3, n_px)
    error = physics.object_error(*single(patches, truth, weight))
    expected = oracle.object_error(patches, truth, weight)
    assert_close(error, expected, TOLERANCES['loss'], dtype=np.float32)
    for flipped in (weight.T, weight[::-1], weight[:, ::-1]):
        other = oracle.object_error(patches, truth, flipped)
        with pytest.raises(AssertionError, match='off by'):
            assert_close(error, other, TOLERANCES['loss'], dtype=np.float32)


@pytest.mark.parametrize('shape', [(3, 24, 24), (1, 31, 64), (2, 3, 5)])
def test_the_total_variation(shape):
    objects = waves_of(shape)
    variation = physics.total_variation(torch.from_numpy(objects))
    expected = oracle.total_variation(objects.astype(complex))
    assert_close(variation, expected, TOLERANCES['loss'], dtype=np.float32)
    # At the far edges a difference has no partner and is left out, so that a flip is seen.
    flipped = oracle.total_variation(objects[..., ::-1].astype(complex))
    with pytest.raises(AssertionError, match='off by'):
        assert_close(variation, flipped, TOLERANCES['loss'], dtype=np.float32)


@pytest.mark.parametrize('sigma_px', [0.4, 1.3])
@pytest.mark.parametrize('n_px', [24, 64])
def test_smoothed_exit_waves(n_px, sigma_px):
    waves = waves_of((2, 3, 2, n_px, n_px))
    kernel = oracle.smoothing_kernel(sigma_px)
    smoothed = physics.smooth(torch.from_numpy(waves), *single(kernel))
    expected = oracle.shape_exit_waves(waves.astype(complex), sigma_px, masked=False)
    assert_close(smoothed, expected, TOLERANCES['transform'], dtype=np.complex64)


def test_smoothing_follows_the_kernel():
    """A kernel without symmetry, read as it stands: a correlation."""
    kernel = np.arange(1.0, 10.0).reshape(3, 3) ** 2
    waves = waves_of((2, 24, 24))
    smoothed = physics.smooth(torch.from_numpy(waves), *single(kernel))
    expected = ndimage.correlate(waves.astype(complex), kernel[None], mode='constant')
    assert_close(smoothed, expected, TOLERANCES['transform'], dtype=np.complex64)


# Gradient


def test_the_gradient_of_the_loss(scene):
    tensors = scene.tensors
    object_ = torch.from_numpy(scene.object_).requires_grad_()
    predicted = scene.tensor_prediction(object_)
    physics.poisson_loss(predicted, tensors.counts, tensors.valid, tensors.mean_count).backward()
    expected = scene.gradient()
    assert_close(object_.grad, expected, TOLERANCES['gradient'], dtype=np.complex64)


def test_the_analytic_gradient_by_finite_differences(scene):
    scan, gradient = scene.scan, scene.gradient()

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


COUNTS, PREDICTED, PATCHES, TRUTH, WEIGHT, VALID = unlike(3, 24)
KERNEL = oracle.smoothing_kernel(0.7)


@pytest.mark.parametrize(
    ('loss', 'expected', 'variable'),
    [
        (
            lambda i: physics.amplitude_error(i, *single(COUNTS, VALID), 3.7),
            lambda i: oracle.amplitude_error(i, COUNTS, VALID, 3.7),
            PREDICTED,
        ),
        (
            lambda o: physics.object_error(o, *single(TRUTH, WEIGHT)),
            lambda o: oracle.object_error(o, TRUTH, WEIGHT),
            PATCHES,
        ),
        (
            lambda o: physics.object_error(
                physics.smooth(o, *single(KERNEL)), *single(TRUTH, WEIGHT)
            ),
            lambda o: oracle.object_error(
                oracle.shape_exit_waves(o, 0.7, masked=False), TRUTH, WEIGHT
            ),
            PATCHES,
        ),
        (physics.total_variation, oracle.total_variation, PATCHES),
    ],
    ids=['amplitude error', 'object error', 'smoothed', 'total variation'],
)
def test_gradients_of_the_losses_of_groups(loss, expected, variable):
    """The oracle's finite differences along directions without symmetry."""
    (tensor,) = single(variable)
    loss(tensor.requires_grad_()).backward()
    gradient = tensor.grad.numpy().astype(variable.dtype)
    slopes, wanted = [], []
    for seed in range(4):
        direction = waves_of(variable.shape, seed).astype(complex)
        direction = direction if np.iscomplexobj(variable) else direction.real
        step = 1e-7 * direction
        wanted.append((expected(variable + step) - expected(variable - step)) / 2e-7)
        slopes.append(np.vdot(direction, gradient).real)
    assert_close(np.array(slopes), wanted, TOLERANCES['gradient'], dtype=np.float64)


@pytest.mark.parametrize(
    ('loss', 'variable'),
    [
        (lambda i: physics.amplitude_error(i, *single(COUNTS, VALID), 3.7), np.zeros((3, 24, 24))),
        (lambda o: physics.object_error(o, *single(TRUTH, WEIGHT)), TRUTH),
        (physics.total_variation, np.ones((3, 24, 24), dtype=complex)),
    ],
    ids=['no light', 'at the truth', 'flat'],
)
def test_gradients_stay_finite_where_roots_are_steep(loss, variable):
    (tensor,) = single(variable)
    value = loss(tensor.requires_grad_())
    value.backward()
    assert torch.isfinite(value)
    assert np.isfinite(tensor.grad.numpy()).all()
