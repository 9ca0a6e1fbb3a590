"""`infer --follow`: a scan in a file that grows, and what goes wrong."""

import json
import signal
import threading
import time

import h5py
import numpy as np
import pytest

from ptychodus_torch_plugin.cli.app import run
from ptychodus_torch_plugin.files.product import read_product
from ptychodus_torch_plugin.files.writing import write_ptychodus_npz, write_scan
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

SWEEPS = ['--architecture', 'none', '--sweeps', '3', '--held-out', '0']
LIVE = {'live.png', 'live.npz'}
PATIENCE_S = 120.0
"""How long to wait for a preview: frameworks are loaded first."""
PATIENTLY = ['--idle', '300']
"""Whoever follows waits longer than whoever waits for a preview."""


@pytest.fixture(scope='module')
def scan():
    return simulate_scan(SimulationConfig(N=32, n_positions=49, photons=2000.0, seed=3))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'parts'
    path.mkdir()
    return path


def put(folder, scan, first, last):
    """Let a part appear at once under its name."""
    write_ptychodus_npz(folder / 'new', scan.subset(np.arange(first, last)))
    (folder / 'new').rename(folder / f'part-{first:03}.npz')


def previews(out):
    """Return which previews there are, as soon as there are all, or when patience ends."""
    end = time.monotonic() + PATIENCE_S
    while True:
        there = {name for name in LIVE if (out / name).exists()}
        if there == LIVE or time.monotonic() > end:
            return there
        time.sleep(0.02)


def follow(folder, out, *options):
    return run(
        ['infer', '--test_data', str(folder), '--follow', '--output_dir', str(out), *options]
    )


def test_it_shows_previews_and_ends_as_infer_does(tmp_path, folder, scan, capsys):
    seen = set()

    def write():
        for first in range(0, 42, 7):
            put(folder, scan, first, first + 7)
        seen.update(previews(tmp_path / 'out'))
        put(folder, scan, 42, 49)

    writer = threading.Thread(target=write)
    writer.start()
    code = follow(folder, tmp_path / 'out', *SWEEPS, '--expected-patterns', '49', *PATIENTLY)
    writer.join()
    assert code == 0
    assert seen == LIVE
    assert 'Following' in capsys.readouterr().err
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'object.h5', 'object.npz', 'object.png', 'metrics.json'}
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert metrics['patterns'] == 49

    assert (
        run(['infer', '--test_data', str(folder), '--output_dir', str(tmp_path / 'b'), *SWEEPS])
        == 0
    )
    followed, read = (read_product(tmp_path / name / 'object.h5').object_ for name in ('out', 'b'))
    np.testing.assert_allclose(followed, read, atol=1e-5)


def test_a_file_is_complete_when_nothing_comes_any_more(tmp_path, scan):
    write_scan(tmp_path / 'scan.h5', scan)

    assert follow(tmp_path / 'scan.h5', tmp_path / 'out', *SWEEPS, '--idle', '0.3') == 0
    assert json.loads((tmp_path / 'out' / 'metrics.json').read_text())['patterns'] == 49


def test_ctrl_c_ends_the_scan_and_keeps_what_has_arrived(tmp_path, folder, scan, capsys):
    put(folder, scan, 0, 21)
    seen = set()

    def press():
        seen.update(previews(tmp_path / 'out'))
        signal.raise_signal(signal.SIGINT)

    user = threading.Thread(target=press)
    user.start()
    code = follow(folder, tmp_path / 'out', *SWEEPS, *PATIENTLY)
    user.join()

    assert code == 0
    assert seen == LIVE
    assert 'The scan ends here.' in capsys.readouterr().err
    assert json.loads((tmp_path / 'out' / 'metrics.json').read_text())['patterns'] == 21


def test_nothing_that_arrives_is_an_error(tmp_path, folder, capsys):
    assert follow(folder, tmp_path / 'out', *SWEEPS, '--idle', '0.3') == 2
    assert 'no pattern arrived in 0.3 s' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_part_that_stays_damaged_is_named(tmp_path, folder, scan, capsys):
    put(folder, scan, 0, 9)
    (folder / 'part-100.npz').write_bytes(b'PK but no archive')

    assert follow(folder, tmp_path / 'out', *SWEEPS, '--idle', '0.3') == 2
    assert 'part-100.npz' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--follow', '--photons', '100'], 'photons = 100'),
        (['--follow', '--idle', '-1'], '--idle is -1'),
        (['--follow', '--expected-patterns', '0'], '--expected-patterns is 0'),
        (['--follow', '--part', '1/2'], '--follow is the work of one process'),
        (['--follow', '--diffraction', 'd.h5'], '--diffraction d.h5'),
        (['--idle', '3'], 'expected --follow with them'),
    ],
)
def test_contradictions(tmp_path, scan, capsys, options, said):
    write_scan(tmp_path / 'scan.h5', scan)
    out = ['--output_dir', str(tmp_path / 'out')]

    assert run(['infer', '--test_data', str(tmp_path / 'scan.h5'), *out, *SWEEPS, *options]) == 2
    assert said in capsys.readouterr().err


def opened_between_two_looks(path):
    """Open a file for writing that this very process reads now and then."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return h5py.File(path, 'r+', libver='latest')
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def test_the_planned_positions_end_a_file(tmp_path, scan):
    write_scan(tmp_path / 'whole.h5', scan)
    with h5py.File(tmp_path / 'whole.h5') as whole, h5py.File(tmp_path / 'a.h5', 'w') as file:
        for key in set(whole) - {'patterns', 'positions_px'}:
            file[key] = whole[key][()]
        shape = (0, 32, 32)
        file.create_dataset('patterns', shape, 'u2', maxshape=(None, 32, 32), chunks=(7, 32, 32))

    def write():
        for last in range(7, 50, 7):
            if last == 49:
                seen.update(previews(tmp_path / 'out'))
            with opened_between_two_looks(tmp_path / 'a.h5') as file:
                file['patterns'].resize(last, axis=0)
                file['patterns'][last - 7 :] = scan.patterns[last - 7 : last]

    seen = set()
    writer = threading.Thread(target=write)
    writer.start()
    assert follow(tmp_path / 'a.h5', tmp_path / 'out', *SWEEPS, *PATIENTLY) == 0
    writer.join()
    assert seen == LIVE
    assert json.loads((tmp_path / 'out' / 'metrics.json').read_text())['patterns'] == 49
