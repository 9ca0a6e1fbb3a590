"""The Python of the tutorial runs as it stands there, on a small scan and for one epoch."""

import re
from pathlib import Path

import numpy as np

from ptychodus_torch_plugin import SimulationConfig, read_scan, simulate_scan, write_scan
from ptychodus_torch_plugin.config import TrainingConfig

TUTORIAL = Path(__file__).parents[2] / 'docs' / 'tutorial.md'


def blocks():
    return re.findall(r'^```python\n(.*?)^```', TUTORIAL.read_text(), re.M | re.S)


def small_scan():
    return simulate_scan(SimulationConfig(N=32, n_positions=49, step_px=5, photons=2e4, seed=2))


def write_tike(path, scan):
    """Write a tike file with the conventions that the tutorial reads: beam and positions."""
    np.savez(
        path,
        data=np.fft.ifftshift(scan.patterns, axes=(-2, -1))[np.newaxis],
        probe=scan.probe[np.newaxis],
        scan=(scan.positions_px - (scan.n_px - 1) / 2)[np.newaxis],
    )


def test_there_are_three_programs():
    assert len(blocks()) == 3


def test_training_and_reconstructing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_scan('star.h5', small_scan())
    assert 'TrainingConfig(epochs=12, seed=1)' in blocks()[0]
    assert TrainingConfig().epochs == 12
    scope = {}
    exec(blocks()[0].replace('epochs=12', 'epochs=1, thinnings=1'), scope)
    printed = capsys.readouterr().out
    assert 'pytorch torch ' in printed
    assert '49 patterns of 32 px, ' in printed
    assert re.search(r'\rtrain (\d+)/\1, loss 0\.\d{4} $', printed, re.M)
    assert printed.count('R held out 0.') == 3
    assert (tmp_path / 'wts.h5.zip').is_file()
    assert scope['result'].object_.shape == scope['result'].occupancy.shape


def test_reading_and_writing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scan = small_scan()
    write_tike('star.npz', scan)
    program = blocks()[1].replace('siemens-star-small.npz.bz2', 'star.npz')
    exec(program.replace('crop_px=64', 'crop_px=16'), {})
    assert 'detector cropped from 32 to 16 px' in capsys.readouterr().out
    written = read_scan('star-64.h5')
    np.testing.assert_array_equal(written.patterns, scan.cropped(16).patterns)
    np.testing.assert_allclose(written.positions_px, scan.cropped(16).positions_px, atol=1e-5)


def test_a_scan_of_own_arrays():
    scan = small_scan()
    own = {
        'counts': scan.patterns.astype(np.uint16),
        'positions': scan.positions_px,
        'probe': scan.probe,
    }
    exec(blocks()[2], own)
    assert own['scan'].fingerprint() == scan.fingerprint()
