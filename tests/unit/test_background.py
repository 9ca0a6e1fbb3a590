"""The dark background: where it comes from, what it adds to, and what it is left out of."""

from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.calibration import Calibration, scan_probe
from ptychodus_torch_plugin.config import ModelConfig, SweepConfig
from ptychodus_torch_plugin.errors import (
    ConfigError,
    InputNotFoundError,
    ScanFileError,
    ScanValueError,
    ShapeError,
)
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import (
    write_ptychodus_npz,
    write_ptychopinn_npz,
    write_scan,
)
from ptychodus_torch_plugin.physics import far_field, impose_counts, poisson_loss
from ptychodus_torch_plugin.scan import backgrounds
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.sweeps import first_probe

N = 32
PLAIN = SimulationConfig(N=N, n_positions=25, step_px=4.5, photons=2e3, seed=3)


@pytest.fixture(scope='module')
def scan():
    """A scan with another background at every pixel, and bad pixels."""
    rng = np.random.default_rng(4)
    dark = rng.uniform(0, 0.4, (N, N)).astype(np.float32)
    bare = simulate_scan(PLAIN)
    patterns = bare.patterns + rng.poisson(dark, bare.patterns.shape)
    bad = rng.random((N, N)) < 0.05
    return replace(bare, patterns=patterns.astype('f4'), background=dark, bad_pixels=bad)


def loss(intensity, dark, count):
    pixel = np.ones((1, 1), bool)
    return poisson_loss(np.full((1, 1, 1), intensity + dark), np.full((1, 1, 1), count), pixel, 1.0)


def imposed(amplitude, dark, count):
    waves = np.full((1, 1, 1, 1), amplitude * np.exp(0.7j))
    after = impose_counts(waves, np.full((1, 1, 1), count), np.ones((1, 1), bool), dark)
    return (after / np.exp(0.7j)).item()


# Physics


@pytest.mark.parametrize('dark', [0.01, 1.0, 40.0])
@pytest.mark.parametrize('count', [0.0, 1.0, 9.0, 1e4])
@pytest.mark.parametrize('amplitude', [0.1, 1.0, 30.0])
def test_a_wave_gets_its_expected_share_of_the_counts(amplitude, count, dark):
    share = amplitude**2 / (amplitude**2 + dark)
    after = imposed(amplitude, dark, count)
    assert after == pytest.approx(imposed(amplitude, 0.0, share * count), rel=1e-12)
    assert loss(abs(after) ** 2, dark, count) <= loss(amplitude**2, dark, count) + 1e-9


def test_a_wave_that_explains_the_rest_of_the_counts_stays():
    assert imposed(3.0, 5.0, 14.0) == pytest.approx(3.0, rel=1e-12)
    assert abs(imposed(3.0, 5.0, 13.0)) < 3 < abs(imposed(3.0, 5.0, 15.0))


def test_fewer_counts_than_background_never_turn_a_wave_round():
    for amplitude in (1e-6, 0.3, 50.0):
        assert 0 < imposed(amplitude, 20.0, 0.0).real < amplitude


# Scale of the probe


def test_the_probe_explains_the_counts_less_the_background(scan):
    probe = first_probe(scan, SweepConfig())
    predicted = np.sum(np.abs(far_field(probe)) ** 2, axis=0)[scan.valid_pixels].sum()
    dark = scan.background[scan.valid_pixels].sum()
    assert dark > 50
    assert predicted == pytest.approx(scan.mean_counts() - dark, rel=1e-5)
    trained = Calibration(scan.probe, 1.0, probe_trained=True)
    other = scan_probe(scan, ModelConfig(N=N), trained)
    predicted = np.sum(np.abs(far_field(other)) ** 2, axis=0)[scan.valid_pixels].sum()
    assert predicted == pytest.approx(scan.mean_signal(), rel=1e-5)


def test_a_lopsided_background_does_not_tilt_the_first_probe():
    bare = simulate_scan(PLAIN.model_copy(update={'photons': 1e6}))
    dark = np.zeros((N, N), np.float32)
    dark[:, : N // 4] = 1e4
    seen = replace(bare, patterns=bare.patterns + dark, background=dark)
    probes = [first_probe(each, SweepConfig()) for each in (bare, seen)]
    np.testing.assert_allclose(*probes, atol=1e-3 * np.abs(probes[0]).max())
    blind = first_probe(replace(seen, background=None), SweepConfig())
    assert np.abs(blind - probes[0]).max() > 0.1 * np.abs(probes[0]).max()


# Scan


@pytest.mark.parametrize(
    ('dark', 'error', 'message'),
    [
        (np.zeros((N, 8), np.float32), ShapeError, 'background has shape'),
        (np.zeros((N, N)), ShapeError, 'background has dtype float64; expected float32'),
        (np.full((N, N), -0.5, np.float32), ScanValueError, 'negative values .lowest -0.5'),
        (np.full((N, N), np.nan, np.float32), ScanValueError, 'background has 1024 values'),
        (np.full((N, N), 9, np.float32), ScanValueError, 'expected fewer. Give it in the units'),
    ],
)
def test_an_impossible_background_is_refused(scan, dark, error, message):
    with pytest.raises(error, match=message):
        replace(scan, background=dark)


def test_a_background_is_cropped_and_known_again(scan):
    central = scan.cropped(16)
    np.testing.assert_array_equal(central.background, scan.background[8:24, 8:24])
    prints = {
        replace(scan, background=dark).fingerprint()
        for dark in (None, scan.background, scan.background * 2)
    }
    assert len(prints) == 3


def test_backgrounds_of_scans(scan):
    without = replace(scan, background=None)
    assert backgrounds([without, without]) is None
    both = backgrounds([without, scan])
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both, [np.zeros((N, N)), scan.background])


# Simulation


def test_a_simulated_background_adds_to_the_counts():
    bare, dark = (
        simulate_scan(PLAIN.model_copy(update={'background': level, 'poisson': False}))
        for level in (0.0, 2.5)
    )
    assert bare.background is None
    np.testing.assert_array_equal(dark.background, np.full((N, N), 2.5, np.float32))
    np.testing.assert_allclose(dark.patterns, bare.patterns + 2.5, rtol=1e-5)
    assert dark.mean_signal() == pytest.approx(2e3, rel=1e-5)
    drawn = simulate_scan(PLAIN.model_copy(update={'background': 2.5}))
    assert (drawn.patterns == np.rint(drawn.patterns)).all()
    assert drawn.mean_signal() == pytest.approx(2e3, rel=0.02)


# Files


@pytest.mark.parametrize(('write', 'name'), [(write_scan, 'a.h5'), (write_ptychodus_npz, 'a.npz')])
def test_files_of_ours_keep_it(scan, tmp_path, write, name):
    for each in (scan, replace(scan, background=None)):
        write(tmp_path / name, each)
        back = read_scan(tmp_path / name)
        if each.background is None:
            assert back.background is None
        else:
            np.testing.assert_array_equal(back.background, each.background)


def test_files_that_cannot_keep_it_say_so(scan, tmp_path, caplog):
    write_ptychopinn_npz(tmp_path / 'a.npz', scan)
    assert 'PtychoPINN files know no background' in caplog.text


@pytest.fixture
def stored(scan, tmp_path):
    """The scan in a file that knows nothing of its background."""
    path = tmp_path / 'scan.h5'
    write_scan(path, replace(scan, background=None))
    return path


def test_a_number_or_a_file_gives_it(scan, stored, tmp_path):
    for value in (0.125, '0.125'):
        back = read_scan(stored, ReadOptions(background=value))
        np.testing.assert_array_equal(back.background, np.full((N, N), 0.125, np.float32))
        assert 'background of 0.125 counts per pixel, as asked for' in back.provenance
    np.save(tmp_path / 'dark.npy', scan.background.astype(float))
    np.savez(tmp_path / 'dark.npz', background=scan.background)
    write_scan(tmp_path / 'other.h5', scan)
    for name in ('dark.npy', 'dark.npz', 'other.h5'):
        for path in (tmp_path / name, str(tmp_path / name)):
            back = read_scan(stored, ReadOptions(background=path))
            np.testing.assert_array_equal(back.background, scan.background)


def test_the_option_replaces_what_the_file_says(scan, tmp_path):
    write_scan(tmp_path / 'scan.h5', scan)
    back = read_scan(tmp_path / 'scan.h5', ReadOptions(background=0.0))
    assert not back.background.any()


def test_it_moves_with_the_patterns(scan, stored, tmp_path):
    """To the centre with the beam, to another scale with the counts."""
    corner = np.fft.ifftshift(scan.patterns, axes=(-2, -1))
    write_ptychodus_npz(tmp_path / 'scan.npz', replace(scan, patterns=corner))
    back = read_scan(tmp_path / 'scan.npz', ReadOptions(beam_center='corner'))
    np.testing.assert_array_equal(back.background, np.fft.fftshift(scan.background))
    np.save(tmp_path / 'dark.npy', scan.background)
    photons = 3 * scan.mean_counts()
    back = read_scan(stored, ReadOptions(photons=photons, background=tmp_path / 'dark.npy'))
    np.testing.assert_allclose(back.background, 3 * scan.background, rtol=1e-4)
    back = read_scan(stored, ReadOptions(crop_px=16, background=tmp_path / 'dark.npy'))
    np.testing.assert_array_equal(back.background, scan.background[8:24, 8:24])


@pytest.mark.parametrize('value', [-1.0, float('nan'), float('inf'), '-3'])
def test_an_impossible_number_is_refused(value):
    with pytest.raises(ConfigError, match=r'background is .*; expected counts per pixel'):
        ReadOptions(background=value)


def test_an_unusable_file_is_refused(stored, tmp_path):
    folder = tmp_path / 'dark'
    folder.mkdir()
    np.save(folder / 'small.npy', np.ones((8, 8)))
    np.save(folder / 'negative.npy', np.full((N, N), -1.0))
    np.savez(folder / 'other.npz', dark=np.ones((N, N)))
    (folder / 'text.npy').write_text('no array')
    for name, error, message in (
        ('none.npy', InputNotFoundError, 'there is no such file'),
        ('small.npy', ShapeError, r'shape \(8, 8\)'),
        ('negative.npy', ScanValueError, 'reaches from -1 to -1'),
        ('other.npz', ScanFileError, "key 'background' is missing"),
        ('text.npy', ScanFileError, 'the background'),
    ):
        with pytest.raises(error, match=message) as caught:
            read_scan(stored, ReadOptions(background=folder / name))
        assert name in str(caught.value)
