"""`simulate` and `convert`."""

import numpy as np
import pytest

from ptychodus_torch_plugin import ReadOptions, SimulationConfig, read_scan, simulate_scan

SMALL = ('-N', 32, '--positions', 16, '--step-px', 4)


def test_simulate_writes_the_scan_of_its_settings(here, call):
    found = call(
        *('simulate', 'a.h5', *SMALL, '--object', 'circuit', '--photons', '2e3', '--seed', 7),
        *('--probe-modes', 2, '--offset-px', 1.5, -2, '--scan', 'spiral', '--json'),
    ).json
    config = SimulationConfig(
        N=32,
        n_positions=16,
        step_px=4,
        object_kind='circuit',
        photons=2e3,
        seed=7,
        probe_modes=2,
        offset_px=(1.5, -2),
        scan='spiral',
    )
    expected = simulate_scan(config)
    scan = read_scan('a.h5')
    assert scan.fingerprint() == expected.fingerprint() == found['scans'][0]['sha256']
    np.testing.assert_array_equal(scan.object_guess, expected.object_guess)
    assert found['settings'] == config.to_json()
    assert found['scans'][0]['patterns'] == 16


def test_simulate_counts_seeds_up(here, call, files_below):
    ran = call('simulate', 'set/a.h5', *SMALL, '--count', 3, '--seed', 5)
    assert files_below(here) == ['set', *(f'set/a_00{number}.h5' for number in range(3))]
    seeds = [read_scan(f'set/a_00{number}.h5').name.split('seed')[-1] for number in range(3)]
    assert seeds == ['5', '6', '7']
    assert 'Simulating: 3/3' in ran.err
    assert ran.out.count('mean_counts') == 3


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['-N', 33], 'N = 33'),
        (['--offset-px', 9, 0], 'offset_px'),
        (['--photons', -1], 'photons = -1.0'),
        (['-N', 64, '--probe-diameter-px', 70], 'a probe of 70 px'),
    ],
)
def test_simulate_refuses_what_cannot_be(here, fail, arguments, expected):
    assert expected in fail('simulate', 'new/a.h5', *arguments).last
    assert list(here.iterdir()) == []


def test_convert_to_npz_and_back_keeps_counts_and_places(here, call, scan_file):
    call('convert', scan_file, 'a.npz')
    with np.load('a.npz') as arrays:
        assert arrays['diff3d'].dtype == np.float32
        np.testing.assert_allclose(
            np.square(arrays['diff3d']), read_scan(scan_file).patterns, rtol=1e-6
        )
    call('convert', 'a.npz', 'b.h5')
    scan, original = read_scan('b.h5'), read_scan(scan_file)
    np.testing.assert_allclose(scan.patterns, original.patterns, rtol=1e-6)
    np.testing.assert_array_equal(scan.positions_px, original.positions_px)


def test_convert_hands_every_option_to_the_reader(here, call, scan_file):
    scan = read_scan(scan_file)
    np.savez(
        'odd.npz',
        diff3d=np.fft.ifftshift(scan.patterns, axes=(-2, -1)),
        probeGuess=scan.probe[0],
        xcoords=scan.positions_px[:, 1] - 15.5,
        ycoords=scan.positions_px[:, 0] - 15.5,
    )
    found = call(
        *('convert', 'odd.npz', 'c.h5', '--file-kind', 'ptychopinn', '--json'),
        *('--diffraction-kind', 'intensity', '--beam-center', 'corner'),
        *('--position-anchor', 'first-pixel', '--crop', 24, '--photons', 500),
        *('--pixel-size-m', '3e-8', '--photon-energy-eV', 9000, '--detector-distance-m', 2.5),
    ).json
    converted = read_scan('c.h5')
    options = ReadOptions(
        diffraction_kind='intensity',
        beam_center='corner',
        position_anchor='first-pixel',
        crop_px=24,
        photons=500,
        pixel_size_m=3e-8,
        photon_energy_eV=9000,
        detector_distance_m=2.5,
    )
    assert converted.fingerprint() == read_scan('odd.npz', options).fingerprint()
    assert converted.optics.pixel_size_m == pytest.approx((4e-8, 4e-8))
    assert (converted.optics.photon_energy_eV, converted.optics.detector_distance_m) == (9000, 2.5)
    np.testing.assert_allclose(
        converted.positions_px, (scan.positions_px + 0.5) * 0.75 - 0.5, atol=1e-4
    )
    assert any('moved to the centre' in line for line in found['provenance'])
    assert found['N'] == 24


def test_convert_says_what_was_decided(here, call, scan_file):
    call('convert', scan_file, 'a.npz')
    out = call('convert', 'a.npz', 'b.h5').out
    assert 'patterns taken as amplitude (PtychoPINN files are documented to hold amplitudes)' in out
    assert 'b.h5' in out


def test_an_existing_file_survives_a_bad_input(here, fail, call, scan_file):
    call('convert', scan_file, 'a.h5')
    before = (here / 'a.h5').read_bytes()
    (here / 'bad.npz').write_bytes(b'PK nonsense')
    fail('convert', 'bad.npz', 'a.h5')
    assert (here / 'a.h5').read_bytes() == before
