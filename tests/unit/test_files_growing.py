"""Scans that grow: HDF5 files that another process writes, folders that fill, and mishaps."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ptychodus_torch_plugin.errors import (
    ConfigError,
    InputNotFoundError,
    ScanFileError,
    ScanValueError,
)
from ptychodus_torch_plugin.files.growing import ScanSoFar, open_growing
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import (
    write_ptychodus_npz,
    write_ptychopinn_npz,
    write_scan,
)
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

GROWING = ('patterns', 'probe_position_y_px', 'probe_position_x_px')


@pytest.fixture(scope='module')
def scan():
    made = simulate_scan(SimulationConfig(N=32, n_positions=25, photons=2000.0, seed=3))
    bad = np.zeros((32, 32), bool)
    bad[3, 5] = True
    return replace(made, bad_pixels=bad, patterns=made.patterns * ~bad)


@pytest.fixture
def file(tmp_path, scan):
    """What Ptychodus calls training data, with a scan that is to grow in it."""
    write_scan(tmp_path / 'whole.h5', scan)
    with (
        h5py.File(tmp_path / 'whole.h5') as whole,
        h5py.File(tmp_path / 'growing.h5', 'w', libver='latest') as growing,
    ):
        for key in set(whole) - {'positions_px'}:
            array = whole[key][()]
            if key in GROWING:
                growing.create_dataset(
                    key,
                    shape=(0, *array.shape[1:]),
                    maxshape=(None, *array.shape[1:]),
                    dtype=array.dtype,
                    chunks=(4, *array.shape[1:]),
                    compression='gzip',
                )
            else:
                growing[key] = array
    return tmp_path / 'growing.h5'


def append(path, scan, rows, keys=GROWING):
    y, x = scan.positions_px[rows].T
    parts = dict(zip(GROWING, (scan.patterns[rows], y, x), strict=True))
    with h5py.File(path, 'r+', libver='latest') as growing:
        for key in keys:
            growing[key].resize(rows.stop, axis=0)
            growing[key][rows] = parts[key]


def test_a_file_is_read_as_far_as_it_goes(file, scan):
    so_far = ScanSoFar(open_growing(file, ReadOptions()))

    assert so_far.read() == 0
    append(file, scan, slice(0, 3))
    assert so_far.read() == 3
    early = so_far.scan()
    assert so_far.read() == 0
    append(file, scan, slice(3, 25))
    assert so_far.read() == 22

    late = so_far.scan()
    np.testing.assert_array_equal(early.patterns[:], scan.patterns[:3])
    np.testing.assert_array_equal(late.patterns[:], scan.patterns)
    np.testing.assert_allclose(late.positions_px, scan.positions_px)
    np.testing.assert_array_equal(late.bad_pixels, scan.bad_pixels)
    assert late.mean_counts() == pytest.approx(scan.mean_counts())
    assert late.object_guess.shape == scan.object_guess.shape
    assert 'followed in growing.h5' in ' '.join(late.provenance)
    assert not so_far.complete


def test_what_has_no_position_yet_has_to_wait(file, scan):
    so_far = ScanSoFar(open_growing(file, ReadOptions()))
    append(file, scan, slice(0, 9), keys=['patterns', 'probe_position_y_px'])

    assert so_far.read() == 0
    append(file, scan, slice(0, 9), keys=['probe_position_x_px'])
    assert so_far.read() == 9


def test_planned_positions_say_when_it_is_complete(file, scan):
    y, x = scan.positions_px.T
    with h5py.File(file, 'r+') as growing:
        for key, values in (('probe_position_y_px', y), ('probe_position_x_px', x)):
            del growing[key]
            growing[key] = values  # of a length that cannot change
    so_far = ScanSoFar(open_growing(file, ReadOptions()))
    so_far.read()
    assert not so_far.complete
    append(file, scan, slice(0, 24), keys=['patterns'])
    so_far.read()
    assert not so_far.complete
    append(file, scan, slice(24, 25), keys=['patterns'])
    so_far.read()
    assert so_far.complete


def test_positions_that_come_a_little_earlier_are_no_plan(file, scan):
    so_far = ScanSoFar(open_growing(file, ReadOptions()))
    for first in range(0, 25, 5):
        rows = slice(first, first + 5)
        append(file, scan, rows, keys=['probe_position_y_px', 'probe_position_x_px'])
        so_far.read()
        append(file, scan, rows, keys=['patterns'])
        so_far.read()
        assert not so_far.complete


def test_files_on_their_way_to_another_name_are_no_parts(tmp_path, scan):
    write_ptychodus_npz(tmp_path / 'a.npz', scan)
    (tmp_path / 'a.npz').rename(tmp_path / '.a00-x.npz')
    so_far = ScanSoFar(open_growing(tmp_path, ReadOptions()))

    assert so_far.read() == 0
    (tmp_path / '.a00-x.npz').rename(tmp_path / 'a.npz')
    assert so_far.read() == scan.n_patterns
    assert read_scan(tmp_path).n_patterns == scan.n_patterns


def test_a_dark_part_is_a_part(tmp_path, scan):
    dark = simulated_dark(scan)
    for name, part in (('a.npz', dark), ('b.npz', scan)):
        y, x = part.positions_px.T
        np.savez(
            tmp_path / name,
            diff3d=part.patterns.astype(np.uint16),
            bad_pixels=scan.bad_pixels,
            probeGuess=scan.probe,
            xcoords=x,
            ycoords=y,
        )
        so_far = ScanSoFar(open_growing(tmp_path, ReadOptions()))
        so_far.read()
        if name == 'a.npz':
            with pytest.raises(ScanValueError, match='zero in every good pixel'):
                so_far.scan()

    assert so_far.scan().n_patterns == 3 + scan.n_patterns


def simulated_dark(scan):
    return SimpleNamespace(patterns=0 * scan.patterns[:3], positions_px=scan.positions_px[:3])


def test_a_number_of_patterns_says_it_too(file, scan):
    so_far = ScanSoFar(open_growing(file, ReadOptions()), n_patterns=7)
    append(file, scan, slice(0, 6))
    so_far.read()
    assert not so_far.complete
    append(file, scan, slice(6, 7))
    so_far.read()
    assert so_far.complete


WRITER = """
import sys
import h5py, numpy as np
path, source = sys.argv[1:]
with np.load(source) as arrays:
    parts = {key: arrays[key] for key in arrays.files}
with h5py.File(path, 'r+', libver='latest') as file:
    file.swmr_mode = True
    for last in (10, 25):
        for key, array in parts.items():
            file[key].resize(last, axis=0)
            file[key][:last] = array[:last]
            file[key].flush()
        print(last, flush=True)
        sys.stdin.readline()
"""


def test_a_file_that_another_process_has_open(file, scan, tmp_path):
    y, x = scan.positions_px.T
    parts = zip(GROWING, (scan.patterns, y, x), strict=True)
    np.savez(tmp_path / 'parts.npz', **dict(parts))
    command = [sys.executable, '-c', WRITER, str(file), str(tmp_path / 'parts.npz')]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        so_far = ScanSoFar(open_growing(file, ReadOptions()))
        for expected, new in ((10, 10), (25, 15)):
            assert writer.stdout.readline() == f'{expected}\n'
            assert so_far.read() == new
            writer.stdin.write('\n')
            writer.stdin.flush()
    np.testing.assert_array_equal(so_far.scan().patterns[:], scan.patterns)


@pytest.mark.parametrize('write', [write_ptychodus_npz, write_ptychopinn_npz])
def test_a_folder_is_read_file_by_file_and_as_one_scan(tmp_path, scan, write):
    so_far = ScanSoFar(open_growing(tmp_path, ReadOptions(diffraction_kind='auto')))
    assert so_far.read() == 0
    known = replace(scan, bad_pixels=np.zeros_like(scan.bad_pixels))
    for number, (first, last) in enumerate([(0, 4), (4, 5), (5, 25)]):
        part = known.subset(np.arange(first, last))
        write(tmp_path / f'part-{number:03}.npz', part)
        if number != 1:
            so_far.read()
    (tmp_path / 'notes.txt').write_text('not a part')
    assert so_far.read() == 0

    found = so_far.scan()
    np.testing.assert_allclose(found.patterns[:], scan.patterns, rtol=1e-6)
    np.testing.assert_allclose(found.positions_px, scan.positions_px)
    assert not so_far.complete
    at_once = read_scan(tmp_path)
    np.testing.assert_array_equal(at_once.patterns[:], found.patterns[:])
    np.testing.assert_array_equal(at_once.positions_px, found.positions_px)


def test_parts_of_another_scan_are_refused(tmp_path, scan):
    write_ptychodus_npz(tmp_path / 'a.npz', scan)
    other = replace(scan, probe=scan.probe * np.complex64(2))
    write_ptychodus_npz(tmp_path / 'b.npz', other)
    so_far = ScanSoFar(open_growing(tmp_path, ReadOptions()))

    with pytest.raises(ScanFileError, match='another probe'):
        so_far.read()


def test_a_damaged_part_is_named_and_tried_again(tmp_path, scan):
    write_ptychodus_npz(tmp_path / 'a.npz', scan)
    content = (tmp_path / 'a.npz').read_bytes()
    (tmp_path / 'a.npz').write_bytes(content[: len(content) // 2])
    so_far = ScanSoFar(open_growing(tmp_path, ReadOptions()))
    with pytest.raises(ScanFileError, match=r'a\.npz'):
        so_far.read()
    (tmp_path / 'a.npz').write_bytes(content)

    assert so_far.read() == scan.n_patterns


def test_what_cannot_be_followed_is_said(tmp_path, file):
    with pytest.raises(InputNotFoundError, match='no such file or folder'):
        open_growing(tmp_path / 'nothing.h5', ReadOptions())
    with pytest.raises(ConfigError, match='photons = 100'):
        open_growing(file, ReadOptions(photons=100.0))
    with h5py.File(file, 'r+') as growing:
        del growing['probe_position_x_px']
    with pytest.raises(ScanFileError, match='no probe_position_x_px'):
        ScanSoFar(open_growing(file, ReadOptions())).read()
