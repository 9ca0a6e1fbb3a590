"""Files of Ptychodus 1.7, written here by their list of keys."""

import h5py
import numpy as np
import pytest

from ptychodus_torch_plugin.errors import (
    InputNotFoundError,
    ScanFileError,
    ScanValueError,
    ShapeError,
)
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.reading import identify, read_scan

N = 16
H, W = 37, 52
PIXEL = (5e-9, 3e-9)
CENTER = (-2.3e-6, 1.1e-6)
INDEXES = np.array([3, 4, 5, 6, 8, 8, 20])


@pytest.fixture
def parts():
    rng = np.random.default_rng(11)
    complex_noise = rng.normal(size=(4, 3, 60, 60)) + 1j * rng.normal(size=(4, 3, 60, 60))
    positions_px = np.stack([rng.uniform(8, 28, 7), rng.uniform(8, 43, 7)], axis=1)
    return {
        'patterns': rng.poisson(20, size=(6, N, N)).astype(np.uint16),
        'indexes': np.array([8, 4, -1, 30, 3, 6]),
        'bad_pixels': np.zeros((N, N), dtype=bool),
        'positions_px': positions_px,
        'positions_m': (positions_px - [(H - 1) / 2, (W - 1) / 2]) * PIXEL + CENTER,
        'object': complex_noise[0, :2, :H, :W],
        'probe': complex_noise[1:3, :, :N, :N] * np.array([3, 2, 1])[:, None, None],
    }


def write_product(path, parts):
    with h5py.File(path, 'w') as file:
        file.attrs.update(
            name='gold', comments='', detector_object_distance_m=1.5, photon_energy_eV=8000.0
        )
        file['probe_position_indexes'] = INDEXES
        file['probe_position_y_m'] = parts['positions_m'][:, 0]
        file['probe_position_x_m'] = parts['positions_m'][:, 1]
        file['probe'] = parts['probe']
        file['object'] = parts['object']
        file['object'].attrs.update(
            center_y_m=CENTER[0],
            center_x_m=CENTER[1],
            pixel_height_m=PIXEL[0],
            pixel_width_m=PIXEL[1],
        )
        file['loss_epochs'] = [0, 1]
        file['loss_values'] = [2.5, 1.5]


def write_diffraction(path, parts):
    with h5py.File(path, 'w') as file:
        for key in ('indexes', 'patterns', 'bad_pixels'):
            file.create_dataset(key, data=parts[key], compression='lzf')


def write_training(path, parts):
    with h5py.File(path, 'w') as file:
        file['patterns'] = parts['patterns']
        file['bad_pixels'] = parts['bad_pixels']
        file['probe'] = parts['probe'][0]
        file['object'] = parts['object'][0]
        file['probe_position_y_px'] = parts['positions_px'][:6, 0]
        file['probe_position_x_px'] = parts['positions_px'][:6, 1]
        file['object_pixel_height_m'], file['object_pixel_width_m'] = PIXEL
        file['detector_object_distance_m'] = 1.5
        file['photon_energy_eV'] = 8000.0


@pytest.fixture
def folder(tmp_path, parts):
    write_product(tmp_path / 'product.h5', parts)
    write_diffraction(tmp_path / 'diffraction.h5', parts)
    return tmp_path


class TestProductWithDiffraction:
    def test_patterns_and_positions_meet_by_index(self, folder, parts):
        scan = read_scan(folder)
        assert identify(folder) == 'ptychodus-product'
        np.testing.assert_array_equal(scan.patterns, parts['patterns'][[0, 1, 4, 5]])
        px = parts['positions_px']
        expected = [(px[4] + px[5]) / 2, px[1], px[0], px[3]]
        np.testing.assert_allclose(scan.positions_px, expected, atol=1e-6)
        assert scan.frame.shape == (H, W)

    def test_what_was_left_out_is_told(self, folder):
        provenance = read_scan(folder).provenance
        assert '1 positions repeat an index: averaged' in provenance
        assert '2 patterns have no position: left out' in provenance
        assert '2 positions have no pattern: left out' in provenance

    def test_probe_object_and_optics(self, folder, parts):
        scan = read_scan(folder)
        np.testing.assert_allclose(scan.probe, parts['probe'][0].astype(np.complex64))
        np.testing.assert_allclose(scan.object_guess, parts['object'][0].astype(np.complex64))
        assert scan.optics.pixel_size_m == PIXEL
        assert (scan.optics.photon_energy_eV, scan.optics.detector_distance_m) == (8000, 1.5)
        expected = np.asarray(CENTER) - np.asarray(PIXEL) * [(H - 1) / 2, (W - 1) / 2]
        np.testing.assert_allclose(scan.optics.origin_m, expected, rtol=1e-12)
        assert scan.name == 'gold'

    def test_product_and_diffraction_may_be_named_apart(self, folder):
        apart = read_scan(folder / 'product.h5', diffraction_path=folder / 'diffraction.h5')
        assert apart.fingerprint() == read_scan(folder).fingerprint()

    def test_integer_patterns_are_counts_and_bad_pixels_go(self, folder, parts):
        parts['bad_pixels'][3, 5] = True
        parts['patterns'][:, 3, 5] = 65535
        write_diffraction(folder / 'diffraction.h5', parts)
        scan = read_scan(folder)
        assert scan.bad_pixels.sum() == 1
        assert not scan.patterns[:, 3, 5].any()

    def test_no_common_index(self, folder, parts):
        parts['indexes'] += 100
        write_diffraction(folder / 'diffraction.h5', parts)
        with pytest.raises(ScanFileError, match=r'indexes 99 to 130, the 6 positions 3 to 20'):
            read_scan(folder)

    def test_the_pixel_size_of_a_product_cannot_be_replaced(self, folder):
        with pytest.raises(ScanFileError, match='the positions are in metres'):
            read_scan(folder, ReadOptions(pixel_size_m=4e-9))

    def test_energy_may_have_its_old_name(self, folder):
        with h5py.File(folder / 'product.h5', 'a') as file:
            del file.attrs['photon_energy_eV']
            file.attrs['probe_energy_eV'] = 9000.0
        assert read_scan(folder).optics.photon_energy_eV == 9000

    def test_an_empty_object_is_none(self, folder, parts):
        with h5py.File(folder / 'product.h5', 'a') as file:
            attributes = dict(file['object'].attrs)
            del file['object']
            file['object'] = np.zeros((1, 0, 0), dtype=complex)
            file['object'].attrs.update(attributes)
        scan = read_scan(folder)
        assert scan.object_guess is None
        expected = parts['positions_m'][1] / PIXEL
        found = scan.positions_px[1] + np.asarray(scan.optics.origin_m) / PIXEL
        np.testing.assert_allclose(found, expected, rtol=1e-9)

    @pytest.mark.parametrize(
        ('where', 'key', 'message'),
        [
            ('object', 'center_y_m', r"attribute 'center_y_m' is missing; expected a finite"),
            ('object', 'pixel_width_m', "attribute 'pixel_width_m' is missing"),
            ('/', 'photon_energy_eV', "attribute 'probe_energy_eV' is missing"),
        ],
    )
    def test_missing_attributes(self, folder, where, key, message):
        with h5py.File(folder / 'product.h5', 'a') as file:
            del file[where].attrs[key]
        with pytest.raises(ScanFileError, match=message) as caught:
            read_scan(folder)
        assert 'product.h5: ' in str(caught.value)

    @pytest.mark.parametrize('key', ['probe', 'object', 'probe_position_indexes'])
    def test_missing_datasets(self, folder, key):
        with h5py.File(folder / 'product.h5', 'a') as file:
            del file[key]
        with pytest.raises(ScanFileError, match=rf'product\.h5: key {key!r} is missing'):
            read_scan(folder)

    def test_unequal_lengths_in_the_diffraction_file(self, folder, parts):
        parts['indexes'] = np.arange(4)
        write_diffraction(folder / 'diffraction.h5', parts)
        with pytest.raises(ShapeError, match=r'diffraction\.h5: indexes has shape \(4,\)'):
            read_scan(folder)

    def test_a_group_in_place_of_a_dataset(self, folder):
        with h5py.File(folder / 'diffraction.h5', 'a') as file:
            del file['patterns']
            file.create_group('patterns')
        with pytest.raises(ScanFileError, match=r"diffraction\.h5: key 'patterns' cannot be read"):
            read_scan(folder)

    def test_a_product_alone(self, folder):
        with pytest.raises(ScanFileError, match='a Ptychodus product holds no patterns'):
            read_scan(folder / 'product.h5')

    def test_patterns_alone(self, folder):
        with pytest.raises(ScanFileError, match='patterns without positions'):
            read_scan(folder / 'diffraction.h5')

    def test_folders_without_the_two_files(self, folder):
        (folder / 'diffraction.h5').unlink()
        with pytest.raises(InputNotFoundError, match=r'the folder lacks .*diffraction\.h5'):
            read_scan(folder)


class TestTrainingData:
    def test_read(self, tmp_path, parts):
        parts['bad_pixels'][1, 2] = True
        path = tmp_path / 'train.h5'
        write_training(path, parts)
        scan = read_scan(path)
        assert identify(path) == 'ptychodus-training'
        expected = np.where(parts['bad_pixels'], 0, parts['patterns'])
        np.testing.assert_array_equal(scan.patterns, expected)
        np.testing.assert_array_equal(scan.positions_px, parts['positions_px'][:6])
        np.testing.assert_array_equal(scan.bad_pixels, parts['bad_pixels'])
        assert scan.probe.shape == (3, N, N)
        assert scan.optics.pixel_size_m == PIXEL
        # Ptychodus counts metres from the centre of the object in such a file.
        expected = (-PIXEL[0] * (H - 1) / 2, -PIXEL[1] * (W - 1) / 2)
        assert scan.optics.origin_m == pytest.approx(expected)
        assert scan.name == 'train'

    def test_zeros_stand_for_unknown(self, tmp_path, parts):
        path = tmp_path / 'train.h5'
        write_training(path, parts)
        with h5py.File(path, 'a') as file:
            for key in ('object_pixel_width_m', 'photon_energy_eV', 'detector_object_distance_m'):
                file[key][()] = 0
        optics = read_scan(path).optics
        assert (optics.pixel_size_m, optics.photon_energy_eV) == (None, None)
        assert (optics.detector_distance_m, optics.origin_m) == (None, (0.0, 0.0))

    def test_a_replaced_pixel_size_scales_all_lengths(self, tmp_path, parts):
        path = tmp_path / 'train.h5'
        write_training(path, parts)
        optics = read_scan(path, ReadOptions(pixel_size_m=1e-8)).optics
        assert optics.pixel_size_m == (1e-8, 1e-8)
        assert optics.origin_m == pytest.approx((-1e-8 * (H - 1) / 2, -1e-8 * (W - 1) / 2))

    @pytest.mark.parametrize('fraction', [0.01, 0.3, 0.8, 0.99])
    def test_truncated(self, tmp_path, parts, fraction):
        write_training(tmp_path / 'train.h5', parts)
        content = (tmp_path / 'train.h5').read_bytes()
        path = tmp_path / 'part.h5'
        path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(ScanFileError, match=r'part\.h5: '):
            read_scan(path)

    def test_unknown_keys_are_listed(self, tmp_path):
        path = tmp_path / 'other.h5'
        with h5py.File(path, 'w') as file:
            file['frames'] = np.zeros(3)
        with pytest.raises(ScanFileError, match=r'other\.h5: .*fits no known layout; .*frames'):
            identify(path)

    def test_all_zero_patterns(self, tmp_path, parts):
        parts['patterns'][:] = 0
        write_training(tmp_path / 'train.h5', parts)
        with pytest.raises(ScanValueError, match=r'train\.h5: patterns is zero in every good'):
            read_scan(tmp_path / 'train.h5')
