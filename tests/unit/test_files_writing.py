import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychodus_torch_plugin.errors import OutputError, ScanFileError, ScanValueError
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.reading import identify, read_scan
from ptychodus_torch_plugin.files.writing import atomic_path, write_ptychopinn_npz, write_scan
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.scan import ScanData

N = 16


@pytest.fixture
def scan():
    rng = np.random.default_rng(21)
    return ScanData(
        patterns=rng.poisson(30, size=(6, N, N)).astype(np.float32),
        positions_px=np.stack([rng.uniform(-40, -10, 6), rng.uniform(300, 350, 6)], axis=1),
        probe=(rng.normal(size=(2, N, N)) + 1j).astype(np.complex64) * np.float32([[[2]], [[1]]]),
        bad_pixels=np.zeros((N, N), dtype=bool),
        optics=Optics((4e-9, 7e-9), 8500.0, 1.25, (1e-6, -2e-6)),
        name='gold \u2013 3',
        provenance=('simulated', 'seed 21'),
    )


def on_grid(scan):
    """Return the scan with an object guess that holds every patch."""
    rng = np.random.default_rng(22)
    guess = (rng.normal(size=(45, 71)) + 1j * rng.normal(size=(45, 71))).astype(np.complex64)
    return replace(
        scan, positions_px=scan.positions_px + np.array([48.25, -290]), object_guess=guess
    )


class TestScanFile:
    def test_comes_back_as_it_was(self, scan, tmp_path):
        scan = on_grid(scan)
        write_scan(tmp_path / 'scan.h5', scan)
        back = read_scan(tmp_path / 'scan.h5')
        assert identify(tmp_path / 'scan.h5') == 'scan'
        assert back.fingerprint() == scan.fingerprint()
        assert (back.optics, back.name) == (scan.optics, scan.name)
        np.testing.assert_array_equal(back.probe, scan.probe)
        np.testing.assert_array_equal(back.object_guess, scan.object_guess)
        assert back.provenance[:2] == scan.provenance
        assert 'patterns taken as intensity (the tag of the file says so)' in back.provenance

    def test_numbers_come_back_where_there_are_any(self, scan, tmp_path):
        for indexes in (None, np.arange(scan.n_patterns)[::-1] + 3):
            write_scan(tmp_path / 'scan.h5', replace(scan, indexes=indexes))
            np.testing.assert_array_equal(read_scan(tmp_path / 'scan.h5').indexes, indexes)

    def test_provenance_does_not_grow_with_every_copy(self, scan, tmp_path):
        write_scan(tmp_path / 'scan.h5', scan)
        once = read_scan(tmp_path / 'scan.h5')
        write_scan(tmp_path / 'scan.h5', once)
        assert read_scan(tmp_path / 'scan.h5').provenance == once.provenance

    def test_without_an_object_ptychodus_gets_ones_and_positions_on_them(self, scan, tmp_path):
        write_scan(tmp_path / 'scan.h5', scan)
        back = read_scan(tmp_path / 'scan.h5')
        assert back.object_guess is None
        np.testing.assert_array_equal(back.positions_px, scan.positions_px)
        assert back.frame == scan.frame
        assert back.optics == scan.optics
        with h5py.File(tmp_path / 'scan.h5') as file:
            assert (file['object'][()] == 1).all()
            assert file['object'].shape == scan.frame.shape
            first = file['probe_position_x_px'][()] - (N - 1) / 2
            assert first.min() >= -0.5
            assert first.max() + N <= file['object'].shape[1] + 0.5
            shifted = scan.positions_px - np.asarray(scan.frame.origin_px)
            np.testing.assert_allclose(file['probe_position_y_px'][()], shifted[:, 0])

    def test_unknown_optics_come_back_unknown(self, scan, tmp_path):
        write_scan(tmp_path / 'scan.h5', replace(scan, optics=Optics()))
        assert read_scan(tmp_path / 'scan.h5').optics == Optics()

    @pytest.mark.parametrize(
        ('factor', 'dtype'), [(1, np.uint16), (3000, np.uint32), (0.3, np.float32)]
    )
    def test_whole_counts_are_stored_small_and_come_back_exact(self, scan, tmp_path, factor, dtype):
        scan = replace(scan, patterns=scan.patterns * np.float32(factor))
        write_scan(tmp_path / 'scan.h5', scan)
        with h5py.File(tmp_path / 'scan.h5') as file:
            assert file['patterns'].dtype == dtype
        np.testing.assert_array_equal(read_scan(tmp_path / 'scan.h5').patterns, scan.patterns)

    def test_keys_that_ptychodus_reads(self, scan, tmp_path):
        scan = on_grid(scan)
        write_scan(tmp_path / 'scan.h5', scan)
        with h5py.File(tmp_path / 'scan.h5') as file:
            assert file['probe_position_x_px'][()].tolist() == scan.positions_px[:, 1].tolist()
            assert file['object_pixel_height_m'][()] == 4e-9
            assert file['object_pixel_width_m'][()] == 7e-9
            assert file['detector_object_distance_m'][()] == 1.25
            assert file['photon_energy_eV'][()] == 8500
            assert file['bad_pixels'].dtype == np.bool_
            assert file['probe'].shape == (2, N, N)
            assert file.attrs['format_version'] == 1
            assert json.loads(file.attrs['provenance']) == ['simulated', 'seed 21']

    @pytest.mark.parametrize(
        ('option', 'value'),
        [
            ('diffraction_kind', 'amplitude'),
            ('beam_center', 'corner'),
            ('position_anchor', 'first-pixel'),
        ],
    )
    def test_options_cannot_contradict_the_tags(self, scan, tmp_path, option, value):
        write_scan(tmp_path / 'scan.h5', scan)
        with pytest.raises(ScanFileError, match=f"{option} = '{value}' contradicts"):
            read_scan(tmp_path / 'scan.h5', ReadOptions(**{option: value}))

    def test_moved_positions_are_noticed(self, scan, tmp_path):
        write_scan(tmp_path / 'scan.h5', scan)
        with h5py.File(tmp_path / 'scan.h5', 'a') as file:
            file['probe_position_x_px'][2] += 0.5
        with pytest.raises(ScanFileError, match=r'by up to 0\.5 px'):
            read_scan(tmp_path / 'scan.h5')

    def test_a_flipped_bit_in_the_counts_is_noticed(self, scan, tmp_path):
        path = tmp_path / 'scan.h5'
        write_scan(path, scan)
        with h5py.File(path) as file:
            info = file['patterns'].id.get_chunk_info(0)
        content = bytearray(path.read_bytes())
        content[info.byte_offset + info.size // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(ScanFileError, match="key 'patterns' cannot be read"):
            read_scan(path)

    @pytest.mark.parametrize(
        ('attribute', 'value', 'message'),
        [
            ('format_version', 2, "attribute 'format_version' is .*2.*; expected 1"),
            ('diffraction_kind', 'amplitude', "is 'amplitude'; expected 'intensity'"),
            ('provenance', '[', 'the attributes of a scan file cannot be read'),
            ('origin_m', 'x', 'the attributes of a scan file cannot be read'),
            ('grid_origin_px', 1.0, "attribute 'grid_origin_px' cannot be read"),
        ],
    )
    def test_bad_tags(self, scan, tmp_path, attribute, value, message):
        write_scan(tmp_path / 'scan.h5', scan)
        with h5py.File(tmp_path / 'scan.h5', 'a') as file:
            file.attrs[attribute] = value
        with pytest.raises(ScanFileError, match=message):
            read_scan(tmp_path / 'scan.h5')

    def test_the_kind_scan_needs_its_tag(self, scan, tmp_path):
        write_scan(tmp_path / 'scan.h5', scan)
        with h5py.File(tmp_path / 'scan.h5', 'a') as file:
            del file.attrs['format']
        assert identify(tmp_path / 'scan.h5') == 'ptychodus-training'
        with pytest.raises(ScanFileError, match="attribute 'format' is None"):
            read_scan(tmp_path / 'scan.h5', ReadOptions(file_kind='scan'))


class TestPtychoPinnFile:
    @pytest.mark.parametrize('n_modes', [1, 2])
    def test_round_trip(self, scan, tmp_path, n_modes):
        scan = replace(on_grid(scan), probe=scan.probe[:n_modes])
        write_ptychopinn_npz(tmp_path / 'train_data.npz', scan)
        with np.load(tmp_path / 'train_data.npz', allow_pickle=False) as file:
            assert file['probeGuess'].ndim == (2 if n_modes == 1 else 3)
            assert file['xcoords'].tolist() == scan.positions_px[:, 1].tolist()
            assert file['ycoords_start'].tolist() == scan.positions_px[:, 0].tolist()
            np.testing.assert_array_equal(file['diff3d'], np.sqrt(scan.patterns))
            assert file['diff3d'].dtype == np.float32
            assert file['scan_index'].tolist() == [0] * 6
        back = read_scan(tmp_path / 'train_data.npz')
        np.testing.assert_allclose(back.patterns, scan.patterns, rtol=1e-6)
        np.testing.assert_array_equal(back.probe, scan.probe)
        np.testing.assert_array_equal(back.object_guess, scan.object_guess)

    def test_bad_pixels_are_lost_aloud(self, scan, tmp_path, caplog):
        bad = scan.bad_pixels.copy()
        bad[4, 5] = True
        write_ptychopinn_npz(tmp_path / 'x.npz', replace(scan, bad_pixels=bad))
        assert '1 are written as measured zeros' in caplog.text
        with np.load(tmp_path / 'x.npz') as file:
            assert not file['diff3d'][:, 4, 5].any()
            assert {'bad_pixels', 'objectGuess'}.isdisjoint(file.files)


class TestAtomicPath:
    def test_the_new_file_takes_the_place_of_the_old(self, tmp_path):
        target = tmp_path / 'a.h5'
        target.write_text('old')
        with atomic_path(target) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == '.h5'
            temporary.write_text('new')
            assert target.read_text() == 'old'
        assert target.read_text() == 'new'
        assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.parametrize(
        ('error', 'expected'),
        [
            (KeyboardInterrupt, KeyboardInterrupt),
            (ScanValueError, ScanValueError),
            (OSError, OutputError),
        ],
    )
    def test_an_error_leaves_the_old_file_alone(self, tmp_path, error, expected):
        target = tmp_path / 'a.h5'
        target.write_text('old')
        with pytest.raises(expected), atomic_path(target) as temporary:
            temporary.write_text('half of the n')
            raise error('no space left')
        assert target.read_text() == 'old'
        assert list(tmp_path.iterdir()) == [target]

    def test_missing_folder(self, tmp_path):
        with (
            pytest.raises(OutputError, match=r'there is no folder .*none; make it first'),
            atomic_path(tmp_path / 'none' / 'a.h5'),
        ):
            pass

    def test_folder_that_cannot_be_written(self, scan, tmp_path, monkeypatch):
        def refuse(*args):
            raise PermissionError(13, 'Permission denied')

        monkeypatch.setattr('os.open', refuse)
        with pytest.raises(OutputError, match=f'Permission denied.*{tmp_path} is writable'):
            write_scan(tmp_path / 'a.h5', scan)

    def test_only_plain_files_are_replaced(self, tmp_path):
        with pytest.raises(OutputError, match='not a plain file'), atomic_path(tmp_path):
            pass

    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / 'real').mkdir()
        (tmp_path / 'link.h5').symlink_to(tmp_path / 'real' / 'a.h5')
        with atomic_path(tmp_path / 'link.h5') as temporary:
            temporary.write_text('new')
        assert (tmp_path / 'real' / 'a.h5').read_text() == 'new'
        assert (tmp_path / 'link.h5').is_symlink()
