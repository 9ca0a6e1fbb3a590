"""`inspect` tells what a file holds, and fails on nothing with a traceback."""

import zipfile

import numpy as np
import pytest

from ptychodus_torch_plugin import SimulationConfig, read_scan, simulate_scan
from ptychodus_torch_plugin.cli.contents import beam_diameter_px, overlap, typical_step_px


def test_a_scan(call, scan_file):
    found = call('inspect', scan_file, '--json').json
    scan = read_scan(scan_file)
    assert (found['kind'], found['file_kind']) == ('scan', 'scan')
    assert found['patterns'] == {'number': 49, 'N': 32}
    assert found['counts']['mean_total'] == pytest.approx(scan.mean_counts())
    assert found['counts']['highest_pixel'] == scan.patterns.max()
    assert found['counts']['whole'] is True
    assert found['arrays']['patterns'] == '(49, 32, 32) uint16'
    assert found['positions']['lowest_px'] == scan.positions_px.min(axis=0).tolist()
    assert found['object'] == list(scan.object_guess.shape)
    assert found['optics']['pixel_size_m'] == [2e-8, 2e-8]
    assert found['sha256'] == scan.fingerprint()
    assert any('read from scan.h5 as scan' in line for line in found['decided'])
    text = call('inspect', scan_file).out
    assert 'number: 49' in text
    assert 'read from scan.h5 as scan (told from its keys)' in text


def test_a_scan_that_needs_options_is_shown_as_it_is_stored(here, call, command_line, scan_file):
    scan = read_scan(scan_file)
    np.savez(
        'corner.npz',
        diff3d=np.fft.ifftshift(scan.patterns, axes=(-2, -1)).astype(np.uint16),
        probeGuess=scan.probe[0],
        xcoords=scan.positions_px[:, 1],
        ycoords=scan.positions_px[:, 0],
    )
    ran = command_line('inspect', 'corner.npz', '--json')
    assert ran.code == 2
    assert ran.json['arrays']['diff3d'] == '(49, 32, 32) uint16'
    assert '--beam-center corner' in ran.json['problem']
    assert '--beam-center corner' in ran.last
    assert call('inspect', 'corner.npz', '--beam-center', 'corner', '--json').json['kind'] == 'scan'


def test_a_bundle_is_shown_without_its_framework(call, trained, monkeypatch):
    monkeypatch.setattr('ptychodus_torch_plugin.backends.registry.get_backend', None)
    for path in (trained, trained / 'wts.h5.zip'):
        found = call('inspect', path, '--json').json
        assert found['kind'] == 'bundle'
        assert found['manifest']['model_settings']['channels'] == [4, 8]
        assert found['weights']['numbers'] > 100
    text = call('inspect', trained).out
    assert 'channels: [4, 8]' in text
    assert 'weights.safetensors: ' in text


def test_a_product_and_its_arrays(here, call, scan_file):
    call('infer', '--architecture', 'none', '--sweeps', 2, '--test_data', scan_file)
    product = call('inspect', 'inference_outputs/object.h5', '--json').json
    arrays = call('inspect', 'inference_outputs/object.npz', '--json').json
    assert (product['kind'], arrays['kind']) == ('product', 'object')
    assert product['object'] == arrays['object'] == list(read_scan(scan_file).frame.shape)
    assert product['positions'] == arrays['positions'] == 49
    assert product['probe']['modes'] == 1


def _zip(path, names):
    with zipfile.ZipFile(path, 'w') as archive:
        for name in names:
            archive.writestr(name, b'{}')


@pytest.mark.parametrize(
    'name',
    ['missing.h5', 'folder', 'text.json', 'empty.h5', 'cut.h5', 'cut.npz', 'cut.zip', 'other.zip'],
)
def test_whatever_it_is_there_is_one_line(here, fail, scan_file, trained, name):
    (here / 'folder').mkdir()
    (here / 'text.json').write_text('{"a": 1}')
    (here / 'empty.h5').write_bytes(b'')
    (here / 'cut.h5').write_bytes(scan_file.read_bytes()[:3000])
    (here / 'cut.zip').write_bytes((trained / 'wts.h5.zip').read_bytes()[:-9])
    np.savez('whole.npz', diff3d=np.ones((3, 16, 16)))
    (here / 'cut.npz').write_bytes((here / 'whole.npz').read_bytes()[:-30])
    _zip(here / 'other.zip', ['a.txt'])
    assert name in fail('inspect', name).last


def test_the_overlap_is_that_of_step_and_beam():
    scan = simulate_scan(SimulationConfig(N=32, n_positions=100, step_px=3, jitter=0))
    assert typical_step_px(scan) == pytest.approx(3)
    assert overlap(scan) == pytest.approx(1 - 3 / beam_diameter_px(scan.probe))
    assert overlap(simulate_scan(SimulationConfig(N=32, n_positions=1))) is None


def test_the_diameter_is_that_of_a_disc_off_centre():
    y, x = np.indices((64, 64))
    disc = (np.hypot(y - 40, x - 21) <= 12.5).astype(np.complex64)
    # 90 % of a disc's area lies within the root of 0.9 of its radius.
    assert beam_diameter_px(disc[None]) == pytest.approx(25 * np.sqrt(0.9), abs=0.6)
