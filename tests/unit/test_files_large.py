"""Large scan files are never in memory as a whole, whatever their layout; the scan is the same."""

import zipfile
from dataclasses import replace

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptychodus_torch_plugin import pattern_store
from ptychodus_torch_plugin.config import TrainingConfig
from ptychodus_torch_plugin.errors import OutputError, ScanFileError, ScanValueError, TrainingError
from ptychodus_torch_plugin.files import pattern_reading
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import (
    write_ptychodus_npz,
    write_ptychopinn_npz,
    write_scan,
)
from ptychodus_torch_plugin.pattern_store import PatternFile, Storage
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.training_plan import TrainingPlan, check_integer_counts

N = 32


@pytest.fixture(scope='module')
def scan():
    made = simulate_scan(SimulationConfig(N=N, n_positions=23, photons=2000.0, seed=3))
    bad = np.zeros((N, N), bool)
    bad[3, 5] = True
    return replace(made, bad_pixels=bad, patterns=made.patterns * ~bad)


@pytest.fixture
def large(monkeypatch):
    """Make every stack a large one, in blocks of three patterns or so."""
    monkeypatch.setattr(pattern_store, 'RESIDENT_BYTES', 1)
    monkeypatch.setattr(pattern_store, 'BLOCK_BYTES', 3 * N * N * 4)


def write_training(path, scan, **storage):
    """Write what Ptychodus does, its patterns stored in one way or another."""
    write_scan(path, scan)
    with h5py.File(path, 'r+') as file:
        patterns = file['patterns'][()]
        del file['patterns']
        file.create_dataset('patterns', data=patterns, **storage)


def write_tike(path, scan):
    """Write counts behind leading axes of length 1."""
    positions = scan.positions_px[None]
    np.savez(path, data=scan.patterns[None, None], scan=positions, probe=scan.probe[None, None])


def write_compressed(path, scan):
    """Write PtychoPINN's file, compressed."""
    write_ptychopinn_npz(path, scan)
    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays)


def write_old(path, scan):
    """Write PtychoPINN's old order (N, N, n)."""
    write_ptychopinn_npz(path, scan)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, 'diff3d': np.moveaxis(arrays['diff3d'], 0, 2)})


LAYOUTS = {
    'own': ('scan.h5', write_scan),
    'one block': ('scan.h5', write_training),
    'bitshuffle': (
        'scan.h5',
        lambda path, scan: write_training(
            path, scan, chunks=(5, N, N // 2), **hdf5plugin.Bitshuffle()
        ),
    ),
    'one chunk': (
        'scan.h5',
        lambda path, scan: write_training(
            path, scan, chunks=(scan.n_patterns, N, N), compression='gzip'
        ),
    ),
    'ptychodus-npz': ('scan.npz', write_ptychodus_npz),
    'ptychopinn': ('scan.npz', write_ptychopinn_npz),
    'compressed': ('scan.npz', write_compressed),
    'tike': ('scan.npz', write_tike),
}


OPTIONS = {
    'plain': ReadOptions(),
    'cropped and scaled': ReadOptions(crop_px=16, photons=321.0),
    'corner': ReadOptions(beam_center='corner'),
}
CASES = [
    (layout, options)
    for layout, (name, _) in LAYOUTS.items()
    for options in OPTIONS
    # A file that states where its beam is refuses to be told otherwise.
    if not (name == 'scan.h5' and options == 'corner')
]


@pytest.mark.parametrize(('layout', 'how'), CASES)
def test_a_large_file_gives_the_scan_that_a_small_one_gives(tmp_path, scan, layout, how, request):
    (name, write), options = LAYOUTS[layout], OPTIONS[how]
    write(tmp_path / name, scan)
    small = read_scan(tmp_path / name, options)
    request.getfixturevalue('large')
    found = read_scan(tmp_path / name, options)

    assert isinstance(small.patterns, np.ndarray)
    assert isinstance(found.patterns, PatternFile)
    assert found.patterns.dtype == np.float32
    np.testing.assert_array_equal(found.patterns[:], small.patterns)
    np.testing.assert_array_equal(found.bad_pixels, small.bad_pixels)
    assert found.provenance == small.provenance
    assert found.mean_counts() == small.mean_counts()
    np.testing.assert_array_equal(found.mean_pattern(), small.mean_pattern())
    assert found.fingerprint() == small.fingerprint()
    chosen = np.array([7, 2, 11])
    np.testing.assert_array_equal(found.subset(chosen).patterns[:], small.patterns[chosen])
    np.testing.assert_array_equal(found.cropped(16).patterns[1], small.cropped(16).patterns[1])


def test_a_block_is_read_where_it_lies(tmp_path, scan, large, monkeypatch):
    monkeypatch.setattr(Storage, 'temporary', lambda _: pytest.fail('was unpacked'))
    write_training(tmp_path / 'scan.h5', scan)

    found = read_scan(tmp_path / 'scan.h5')

    np.testing.assert_array_equal(found.patterns[5], scan.patterns[5])


def test_a_block_behind_a_link_is_read_in_its_own_file(tmp_path, scan, large):
    write_training(tmp_path / 'scan.h5', scan)
    with h5py.File(tmp_path / 'scan.h5') as whole, h5py.File(tmp_path / 'links.h5', 'w') as links:
        links['padding'] = np.full((300, N, N), 7.0)
        links.attrs.update(whole.attrs)
        for key in whole:
            links[key] = h5py.ExternalLink('scan.h5', f'/{key}')

    found = read_scan(tmp_path / 'links.h5')

    np.testing.assert_array_equal(found.patterns[:], scan.patterns)


def test_no_more_than_a_block_is_unpacked_at_once(tmp_path, scan, large, monkeypatch):
    sizes = []
    append = Storage.append
    monkeypatch.setattr(
        Storage, 'append', lambda self, block: (sizes.append(len(block)), append(self, block))
    )
    write_training(tmp_path / 'scan.h5', scan, chunks=(2, N, N), compression='gzip')
    read_scan(tmp_path / 'scan.h5')

    assert sum(sizes) == scan.n_patterns
    assert max(sizes) <= 6  # three patterns of float32, or six of uint16
    assert all(size % 2 == 0 for size in sizes[:-1])  # whole chunks


def test_the_order_of_old_files_is_understood(tmp_path, scan, large):
    write_old(tmp_path / 'scan.npz', scan)

    found = read_scan(tmp_path / 'scan.npz')

    np.testing.assert_allclose(found.patterns[4], scan.patterns[4], rtol=1e-6)


def test_what_is_written_again_is_the_same_file(tmp_path, scan, large):
    write_scan(tmp_path / 'first.h5', scan)
    found = read_scan(tmp_path / 'first.h5')
    for number, (name, write) in enumerate(
        [('a.h5', write_scan), ('a.npz', write_ptychopinn_npz), ('b.npz', write_ptychodus_npz)]
    ):
        path = tmp_path / f'{number}-{name}'
        write(path, found)
        np.testing.assert_allclose(read_scan(path).patterns[:], scan.patterns, rtol=1e-6)


@pytest.mark.parametrize('value', [np.nan, -3.0])
def test_values_are_checked_all_the_same(tmp_path, scan, large, value):
    patterns = scan.patterns.copy()
    patterns[17, 4, 2] = value
    write_scan(tmp_path / 'scan.h5', scan)
    with h5py.File(tmp_path / 'scan.h5', 'r+') as file:
        del file['patterns']
        file['patterns'] = patterns

    with pytest.raises(ScanValueError, match=r'at index \(17, 4, 2\)'):
        read_scan(tmp_path / 'scan.h5')


def test_negative_amplitudes_are_found(tmp_path, scan, large):
    write_ptychopinn_npz(tmp_path / 'scan.npz', scan)
    with np.load(tmp_path / 'scan.npz') as arrays:
        changed = {**arrays}
    changed['diff3d'][20, 1, 1] = -2
    np.savez(tmp_path / 'scan.npz', **changed)

    with pytest.raises(ScanValueError, match='lowest -2'):
        read_scan(tmp_path / 'scan.npz')


def test_a_flipped_byte_is_found_in_npz_and_hdf5(tmp_path, scan, large):
    for name, write in (('scan.npz', write_ptychopinn_npz), ('scan.h5', write_scan)):
        path = tmp_path / name
        write(path, scan)
        content = bytearray(path.read_bytes())
        content[_inside_patterns(path)] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(ScanFileError, match=r"'diff3d'|'patterns'"):
            read_scan(path)


def _inside_patterns(path):
    if path.suffix == '.npz':
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo('diff3d.npy')
        return member.header_offset + member.compress_size // 2
    with h5py.File(path) as file:
        chunk = file['patterns'].id.get_chunk_info(0)
    return chunk.byte_offset + chunk.size // 2


def test_a_header_that_promises_more_than_there_is(tmp_path, scan, large):
    write_ptychopinn_npz(tmp_path / 'scan.npz', scan)
    with zipfile.ZipFile(tmp_path / 'scan.npz') as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members['diff3d.npy'] = members['diff3d.npy'][: -N * N * 4 * 2]
    with zipfile.ZipFile(tmp_path / 'scan.npz', 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)

    with pytest.raises(ScanFileError, match='23 of 25 patterns'):
        read_scan(tmp_path / 'scan.npz')


def test_a_header_that_promises_more_than_the_disk_has(tmp_path, scan):
    write_scan(tmp_path / 'scan.h5', scan)
    with h5py.File(tmp_path / 'scan.h5', 'r+') as file:
        del file['patterns']
        file.create_dataset('patterns', (2**30, N, N), np.float32, chunks=(1, N, N))

    with pytest.raises((OutputError, ScanFileError), match='TMPDIR'):
        read_scan(tmp_path / 'scan.h5')


def test_thinned_views_of_a_large_scan_lie_on_disk_too(tmp_path, scan, request):
    training = TrainingConfig(objective='thinned', thinnings=1, thinning_fraction=0.5)
    write_scan(tmp_path / 'scan.h5', scan)
    small = TrainingPlan([read_scan(tmp_path / 'scan.h5')], training)
    request.getfixturevalue('large')
    found = TrainingPlan([read_scan(tmp_path / 'scan.h5')], training)
    view = found.views[1]
    seen = found.seen_counts(view)

    assert isinstance(seen, PatternFile)
    np.testing.assert_array_equal(seen[:], small.seen_counts(view))
    chosen = np.array([3, 19, 4])
    np.testing.assert_array_equal(
        found.scored_counts(view, chosen), small.scored_counts(view, chosen)
    )


def test_fractions_of_counts_are_found_anywhere(tmp_path, scan, large):
    write_training(tmp_path / 'scan.h5', scan)
    found = read_scan(tmp_path / 'scan.h5')
    check_integer_counts(found)
    halves = replace(found, patterns=found.patterns.mapped(lambda p: p * np.float32(0.5)))

    with pytest.raises(TrainingError, match=r'deviation up to 0\.5'):
        check_integer_counts(halves)


def test_small_stacks_are_read_as_ever(tmp_path, scan, monkeypatch):
    monkeypatch.setattr(pattern_reading, 'stored', lambda *_: pytest.fail('was stored'))
    write_scan(tmp_path / 'scan.h5', scan)

    assert isinstance(read_scan(tmp_path / 'scan.h5').patterns, np.ndarray)
