"""The TensorFlow physics against the NumPy oracle, function by function, and the gradient."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin.backends.tensorflow import data, physics
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.backends.tensorflow.illumination import Illumination
from ptychodus_torch_plugin.backends.tensorflow.sweeps import photons_per_pixel
from ptychodus_torch_plugin.calibration import Calibration, group_energy
from ptychodus_torch_plugin.sweeps import first_probe
from tests.parity.comparison import SPOILED, TOLERANCES, assert_close, single, unlike, waves_of
from tests.parity.graphs import cnn_config
from tests.parity.scenes import lopsided_scan

from .parity import gradient_of

# The comparison itself


@pytest.mark.parametrize('spoil', SPOILED.values(), ids=SPOILED)
def test_the_comparison_notices(spoil):
    probe = lopsided_scan(32, 3, whole=False).probe
    close = tf.constant(probe * np.float32(1 + 5e-6))
    assert_close(close, probe.astype(complex), 1e-5, dtype=np.complex64)
    with pytest.raises(AssertionError):
        assert_close(tf.constant(spoil(probe)), probe.astype(complex), 1e-5, dtype=np.complex64)


# Layouts


def test_channels_go_to_the_end_and_back():
    groups = waves_of((2, 3, 5, 7))
    last = data.channels_last(groups)
    assert last.shape == (2, 5, 7, 3)
    for (g, c, h, w), value in np.ndenumerate(groups):
        assert last[g, h, w, c] == value
    np.testing.assert_array_equal(data.channels_first(last), groups)


# Physics, function by function


@pytest.mark.parametrize('n_px', [24, 32, 64])
def test_far_and_near_field(n_px):
    waves, board = waves_of((3, 2, n_px, n_px)), physics.checkerboard(n_px)
    far = physics.far_field(waves * board)
    # The checkerboard centres the far field and leaves another one on it, which no intensity sees.
    expected = oracle.far_field(waves.astype(complex))
    assert_close(far * board, expected, TOLERANCES['transform'], dtype=np.complex64)
    near = physics.near_field(far) * board
    assert_close(near, waves, TOLERANCES['transform'], dtype=np.complex64)


@pytest.mark.parametrize('n_px', [24, 32, 64])
def test_shifted_probes(n_px):
    probe, board = waves_of((3, n_px, n_px)), physics.checkerboard(n_px)
    remainders = np.array([[0.3, -0.45], [0.0, 0.0], [-0.5, 0.49], [0.01, 0.2]])
    ramps = physics.shift_ramps(tf.constant(remainders), n_px)
    assert (ramps.dtype, ramps.shape) == (tf.complex64, (4, 2, n_px))
    shifted = physics.shift_probe(probe * board, ramps) * board
    expected = oracle.shift_probe(probe.astype(complex), remainders)
    assert_close(shifted, expected, TOLERANCES['transform'], dtype=np.complex64)


def test_gather_and_scatter(scene):
    corners, _ = scene.where
    n_px, shape = scene.n_px, scene.scan.frame.shape
    index = physics.patch_index(tf.constant(corners), n_px, shape[1])
    patches = physics.gather_patches(tf.constant(scene.object_), index, n_px)
    expected = oracle.gather_patches(scene.object_, corners, n_px)
    assert_close(patches[:, 0], expected, 0, dtype=np.complex64)
    values = waves_of((len(corners), n_px, n_px))
    canvas = np.zeros(shape, dtype=complex)
    oracle.scatter_patches(values.astype(complex), corners, canvas)
    scattered = physics.scatter_patches(tf.constant(values), index, shape)
    assert_close(scattered, canvas, TOLERANCES['transform'], dtype=np.complex64)


def test_predicted_counts(scene):
    predicted, expected = scene.tensor_prediction(), scene.predicted()
    assert_close(predicted, expected, TOLERANCES['intensity'], dtype=np.float32)
    totals = tf.reduce_sum(predicted, (1, 2)), expected.sum(axis=(1, 2))
    assert_close(*totals, TOLERANCES['intensity'], dtype=np.float32)
    chosen = np.array([17, 0, 4])
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
    assert np.shares_memory(tensors.counts, scan.patterns)


def test_patterns_that_an_accelerator_keeps(scene):
    """The same batches from a tensor as from an array."""
    tensors, chosen = scene.tensors, np.array([17, 0, 4])
    expected = tensors.batch_counts(chosen)
    tensors.counts = tf.constant(tensors.counts)
    np.testing.assert_array_equal(tensors.batch_counts(chosen), expected)


def test_other_patterns_than_the_scans(scene):
    patterns = scene.scan.patterns[::-1]
    chosen = np.array([3, 1])
    counts = ScanTensors(scene.scan, patterns).batch_counts(chosen)
    np.testing.assert_array_equal(counts, patterns[chosen])


@pytest.mark.parametrize('factor', [1.0, 0.9, 1.3])
def test_the_loss(scene, factor):
    tensors, scan = scene.tensors, scene.scan
    predicted = scene.predicted() * factor
    loss = physics.poisson_loss(
        *single(predicted), scan.patterns, tensors.valid, tensors.mean_count
    )
    expected = oracle.poisson_loss(predicted, scan.patterns, scan.valid_pixels, tensors.mean_count)
    assert_close(loss, expected, TOLERANCES['loss'], dtype=np.float32)


def test_the_loss_of_dark_pixels():
    counts = np.array([[[0.0, 3.0], [0.0, 7.0]]], np.float32)
    predicted = np.array([[[0.0, 0.0], [2.0, 7.0]]], np.float32)
    valid = np.array([[True, True], [True, False]])
    loss = physics.poisson_loss(predicted, counts, *single(valid), 2.5)
    expected = oracle.poisson_loss(predicted, counts, valid, 2.5)
    assert_close(loss, expected, TOLERANCES['loss'], dtype=np.float32)


def test_imposed_counts(scene):
    tensors, scan = scene.tensors, scene.scan
    waves = waves_of((scan.n_patterns, 2, scene.n_px, scene.n_px)) * 20
    intensity = tf.reduce_sum(physics.absolute_square(waves), 1)
    dark = np.random.default_rng(6).uniform(0, 900, scan.valid_pixels.shape).astype(np.float32)
    for background in (np.zeros_like(dark), dark):
        factor = physics.count_factor(intensity, scan.patterns, tensors.valid, background)
        known = waves.astype(complex), scan.patterns, scan.valid_pixels
        expected = oracle.impose_counts(*known, background)
        imposed = waves * (1 + factor[:, None].numpy())
        assert_close(imposed, expected, TOLERANCES['transform'], dtype=np.complex64)
        assert not factor.numpy()[:, ~scan.valid_pixels].any()


def test_photons_per_pixel(scene):
    corners, remainders = scene.where
    for pool in (np.arange(scene.scan.n_patterns), np.array([25, 3, 11])):
        photons = photons_per_pixel(scene.tensors, scene.state.probe, pool)
        expected = oracle.illumination(
            scene.probe.astype(complex), corners[pool], remainders[pool], scene.scan.frame.shape
        )
        assert_close(photons, expected, TOLERANCES['intensity'], dtype=np.float32)


def test_photons_of_more_patterns_than_are_computed_at_once(scene, monkeypatch):
    pool = np.arange(scene.scan.n_patterns)
    whole = photons_per_pixel(scene.tensors, scene.state.probe, pool)
    monkeypatch.setattr('ptychodus_torch_plugin.backends.tensorflow.sweeps.PATTERNS_AT_ONCE', 7)
    parts = photons_per_pixel(scene.tensors, scene.state.probe, pool)
    assert_close(parts, whole, TOLERANCES['transform'], dtype=np.float32)


# Groups of patterns


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
    variation = physics.total_variation(objects)
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
    smoothed = physics.smooth(waves, *single(oracle.smoothing_kernel(sigma_px)))
    expected = oracle.shape_exit_waves(waves.astype(complex), sigma_px, masked=False)
    assert_close(smoothed, expected, TOLERANCES['transform'], dtype=np.complex64)


def test_smoothing_follows_the_kernel():
    """A kernel without symmetry, read as it stands: a correlation."""
    kernel = np.arange(1.0, 10.0).reshape(3, 3) ** 2
    waves = waves_of((2, 24, 24))
    smoothed = physics.smooth(waves, *single(kernel))
    expected = ndimage.correlate(waves.astype(complex), kernel[None], mode='constant')
    assert_close(smoothed, expected, TOLERANCES['transform'], dtype=np.complex64)


@pytest.mark.parametrize(
    'options', [{}, {'probe_mask': True}, {'gaussian_smoothing_sigma': 0.8, 'probe_mask': True}]
)
def test_counts_of_groups(options):
    """Each scan under its own probe, with as many modes as that has."""
    scans = [lopsided_scan(64, modes, whole=False) for modes in (1, 3)]
    config = cnn_config(**options)
    light = Illumination(scans, config, Calibration.of(scans, config), trainable=False)
    seen = waves_of((2, 4, 64, 64), 5, flat=True)
    for number, scan in enumerate(scans):
        probe = first_probe(scan, config.sweeps)
        energy = group_energy(probe, scan.valid_pixels, config)
        probe = probe * np.sqrt(energy / np.sum(np.abs(probe) ** 2))
        waves = oracle.shape_exit_waves(
            probe * seen[:, :, None], config.gaussian_smoothing_sigma, masked=config.probe_mask
        )
        expected = np.sum(np.abs(oracle.far_field(waves)) ** 2, axis=2)
        predicted = light(tf.constant(seen, tf.complex64), scan=number)
        assert_close(predicted, expected, TOLERANCES['intensity'], dtype=np.float32)


def test_a_trained_probe_is_shared_and_keeps_each_scans_energy():
    scans = [lopsided_scan(64, 3, whole=False), lopsided_scan(64, 1, whole=False)]
    config = cnn_config()
    light = Illumination(scans, config, Calibration.of(scans, config), trainable=True)
    (variable,) = light.trainable_variables
    variable.assign(variable * 0.3 + 0.01)
    one, other = (light.probe(number).numpy() for number in (0, 1))
    assert_close(one / one[0, 5, 3], other / other[0, 5, 3], 1e-5, dtype=np.complex64)
    for probe, scan in ((one, scans[0]), (other, scans[1])):
        first = first_probe(scan, config.sweeps)
        energy = group_energy(first, scan.valid_pixels, config)
        assert np.sum(np.abs(probe) ** 2) == pytest.approx(energy, rel=1e-5)
    assert np.sum(np.abs(light.exported(7.0)) ** 2) == pytest.approx(7, rel=1e-5)


# Gradient


def test_the_gradient_of_the_loss(scene):
    tensors, counts = scene.tensors, scene.scan.patterns

    def loss(object_):
        predicted = scene.tensor_prediction(object_)
        return physics.poisson_loss(predicted, counts, tensors.valid, tensors.mean_count)

    _, gradient = gradient_of(loss, scene.object_)
    assert_close(gradient, scene.gradient(), TOLERANCES['gradient'], dtype=np.complex64)
    with pytest.raises(AssertionError, match='off by'):
        conjugated = tf.math.conj(gradient)
        assert_close(conjugated, scene.gradient(), TOLERANCES['gradient'], dtype=np.complex64)


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
    _, tensor = gradient_of(loss, *single(variable))
    gradient = tensor.numpy().astype(variable.dtype)
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
    value, gradient = gradient_of(loss, *single(variable))
    assert np.isfinite(value)
    assert np.isfinite(gradient.numpy()).all()
