"""What a model knows about its instrument: the first probe, the scale of its input, its energy."""

import numpy as np
import pytest
from scipy import ndimage

from ptychodus_torch_plugin.calibration import (
    Calibration,
    group_energy,
    input_scale,
    scaled_amplitudes,
    scan_probe,
)
from ptychodus_torch_plugin.config import ModelConfig, SweepConfig
from ptychodus_torch_plugin.physics import far_field
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import first_probe

N = 64


def scan_of(counts=3.0, n=7, seed=1):
    """A beam of two modes off the centre, wider than the disc, and bad pixels that hold garbage."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((N, N)) - np.reshape((29.0, 36.0), (2, 1, 1))
    beam = np.exp(-(y**2 + 2 * x**2) / 500 + 0.3j * x - 0.2j * y)
    bad_pixels = rng.random((N, N)) < 0.1
    patterns = rng.poisson(counts, size=(n, N, N)).astype(np.float32)
    patterns[:, bad_pixels] = 2**16 - 1
    return ScanData(
        patterns=patterns,
        positions_px=rng.uniform(40, 60, size=(n, 2)),
        probe=np.stack([beam, 0.2j * y * beam]).astype(np.complex64),
        bad_pixels=bad_pixels,
    )


def test_probe_of_the_first_scan_and_counts_of_all():
    scans = [scan_of(3.0), scan_of(8.0, n=4, seed=2)]
    config = ModelConfig(sweeps=SweepConfig(probe_modes=3))
    calibration = Calibration.of(scans, config)
    assert (calibration.probe.dtype, calibration.probe.shape) == (np.complex64, (3, N, N))
    expected = first_probe(scans[0], config.sweeps).astype(np.complex64)
    np.testing.assert_array_equal(calibration.probe, expected)
    counts = [scan.patterns[:, scan.valid_pixels].sum(axis=1).mean() for scan in scans]
    assert counts[1] > 2 * counts[0]
    assert calibration.mean_counts == pytest.approx(np.mean(counts), rel=1e-6)
    assert not calibration.probe_trained


def test_the_input_has_the_mean_energy_of_half_the_side_squared():
    scan = scan_of()
    scale = Calibration.of([scan], ModelConfig()).input_scale
    amplitudes = np.sqrt(scan.patterns * scan.valid_pixels) / scale
    assert np.mean(np.sum(amplitudes**2, axis=(1, 2))) == pytest.approx((N / 2) ** 2, rel=1e-6)


@pytest.mark.parametrize(('scaling', 'whose'), [('training', 3.0), ('scan', 8.0)])
def test_the_input_is_scaled_by_the_training_scans_or_by_the_scan_itself(scaling, whose):
    calibration = Calibration.of([scan_of(3.0)], ModelConfig())
    config = ModelConfig(architecture='cnn', input_scaling=scaling)
    scan = scan_of(8.0, seed=2)
    found = input_scale(scan, config, calibration)
    assert found == pytest.approx(2 * np.sqrt(whose * scan.valid_pixels.sum()) / N, rel=0.02)
    amplitudes = scaled_amplitudes(scan.patterns, found)
    assert amplitudes.dtype == np.float32
    np.testing.assert_allclose(amplitudes, np.sqrt(scan.patterns) / found, rtol=1e-6)


def likeness(one, other):
    return abs(np.vdot(one, other)) / (np.linalg.norm(one) * np.linalg.norm(other))


@pytest.mark.parametrize('trained', [True, False])
def test_a_scan_is_seen_with_the_trained_probe_or_with_its_own(trained):
    known = Calibration.of([scan_of(3.0)], ModelConfig())
    moved = Calibration(np.roll(known.probe, 3, axis=1), known.mean_counts, probe_trained=trained)
    scan = scan_of(8.0, seed=2)
    own = first_probe(scan, ModelConfig().sweeps)
    assert likeness(moved.probe, own) < 0.99
    found = scan_probe(scan, ModelConfig(), moved)
    assert likeness(found, moved.probe if trained else own) == pytest.approx(1, rel=1e-6)
    predicted = np.sum(np.abs(far_field(found)) ** 2, axis=0)
    assert predicted[scan.valid_pixels].sum() == pytest.approx(scan.mean_counts(), rel=1e-5)


def shaped(probe, sigma_px, *, masked):
    """Return exit waves of an empty object after SciPy's filter, inside a disc."""
    if sigma_px:
        kernel = np.zeros((3, 3))
        kernel[1, 1] = 1
        kernel = ndimage.gaussian_filter(kernel, sigma_px, radius=1, mode='constant')
        probe = np.stack([ndimage.correlate(mode, kernel, mode='constant') for mode in probe])
    y, x = np.indices((N, N)) - 31.5
    return probe * (np.hypot(y, x) <= 16) if masked else probe


@pytest.mark.parametrize(
    ('sigma_px', 'masked'), [(0.0, False), (0.9, False), (0.0, True), (0.9, True)]
)
def test_an_empty_object_predicts_the_mean_counts(sigma_px, masked):
    """What the filter and the disc take away, the probe has more of."""
    scan = scan_of()
    config = ModelConfig(architecture='cnn', probe_mask=masked, gaussian_smoothing_sigma=sigma_px)
    probe = first_probe(scan, config.sweeps)
    energy = group_energy(probe, scan.valid_pixels, config)
    before = np.sum(np.abs(probe) ** 2)
    stronger = probe * np.sqrt(energy / before)
    predicted = np.sum(np.abs(far_field(shaped(stronger, sigma_px, masked=masked))) ** 2, axis=0)
    total = predicted[scan.valid_pixels].sum()
    assert total == pytest.approx(scan.mean_counts(), rel=1e-5)
    if masked or sigma_px:
        assert energy > 1.1 * before
    else:
        assert energy == pytest.approx(before, rel=1e-12)
