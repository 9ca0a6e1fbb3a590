from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychodus_torch_plugin.errors import ScanFileError, ShapeError
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.product import read_product, write_object_npz, write_product
from ptychodus_torch_plugin.files.reading import identify, read_scan
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.scan import ScanData

N = 16
FRAME = ObjectFrame((-41, 288), (45, 74))


@pytest.fixture
def scan():
    rng = np.random.default_rng(31)
    return ScanData(
        patterns=rng.poisson(30, size=(6, N, N)).astype(np.float32),
        positions_px=np.stack([rng.uniform(-30, -10, 6), rng.uniform(300, 350, 6)], axis=1),
        probe=(rng.normal(size=(3, N, N)) + 1j).astype(np.complex64),
        bad_pixels=np.zeros((N, N), dtype=bool),
        optics=Optics((4e-9, 7e-9), 8500.0, 1.25, (1e-6, -2e-6)),
    )


@pytest.fixture
def object_():
    rng = np.random.default_rng(32)
    return (rng.normal(size=FRAME.shape) + 1j * rng.normal(size=FRAME.shape)).astype(np.complex64)


def write(path, scan, object_, **changes):
    arguments = {
        'object_': object_,
        'frame': FRAME,
        'scan': scan,
        'probe': scan.probe,
        'losses': [(0, 2.5), (5, 1.25)],
        'name': 'gold',
        'comments': 'by hand',
    }
    write_product(path, **(arguments | changes))


class TestWritten:
    def test_positions_lie_on_the_object_as_ptychodus_computes_them(self, scan, object_, tmp_path):
        write(tmp_path / 'product.h5', scan, object_)
        with h5py.File(tmp_path / 'product.h5') as file:
            for axis, (letter, side) in enumerate([('y', 'height'), ('x', 'width')]):
                attributes = file['object'].attrs
                meters = file[f'probe_position_{letter}_m'][()]
                expected = (
                    scan.optics.origin_m[axis] + scan.positions_px[:, axis] * (4e-9, 7e-9)[axis]
                )
                np.testing.assert_allclose(meters, expected, rtol=1e-12)
                pixels = (meters - attributes[f'center_{letter}_m']) / attributes[
                    f'pixel_{side}_m'
                ] + (file['object'].shape[axis + 1] - 1) / 2
                expected = scan.positions_px[:, axis] - FRAME.origin_px[axis]
                np.testing.assert_allclose(pixels, expected, atol=1e-6)

    def test_layout(self, scan, object_, tmp_path):
        write(tmp_path / 'product.h5', scan, object_)
        with h5py.File(tmp_path / 'product.h5') as file:
            np.testing.assert_array_equal(file['object'][0], object_)
            assert (file['object'].ndim, file['object'].dtype) == (3, np.complex128)
            assert (file['probe'].shape, file['probe'].dtype) == ((1, 3, N, N), np.complex128)
            assert file['probe'].attrs['pixel_width_m'] == 7e-9
            assert file['probe_position_indexes'][()].tolist() == [0, 1, 2, 3, 4, 5]
            assert file['object_layer_spacing_m'].shape == (0,)
            assert file['loss_epochs'][()].tolist() == [0, 5]
            assert file['loss_values'][()].tolist() == [2.5, 1.25]
            attributes = dict(file.attrs)
        assert attributes.pop('far_field')
        assert attributes.pop('probe_photon_count') == pytest.approx(scan.mean_counts())
        assert attributes == {
            'name': 'gold',
            'comments': 'by hand',
            'detector_object_distance_m': 1.25,
            'photon_energy_eV': 8500.0,
            'focus_object_distance_m': 0.0,
            'exposure_time_s': 0.0,
            'mass_attenuation_m2_per_kg': 0.0,
            'tomography_angle_deg': 0.0,
            'tilt_angle_deg': 0.0,
        }

    def test_unknown_optics(self, scan, object_, tmp_path):
        scan = replace(scan, optics=Optics())
        write(tmp_path / 'product.h5', scan, object_)
        with h5py.File(tmp_path / 'product.h5') as file:
            assert file['object'].attrs['pixel_height_m'] == 1
            assert file.attrs['photon_energy_eV'] == 0
            assert (
                'the unit of every length in the object plane is the pixel'
                in (file.attrs['comments'])
            )
        product = read_product(tmp_path / 'product.h5')
        assert product.optics == Optics(origin_m=(-41.0, 288.0))
        expected = scan.positions_px - np.asarray(FRAME.origin_px)
        np.testing.assert_allclose(product.positions_px, expected, atol=1e-9)

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'frame': ObjectFrame((0, 0), (45, 75))}, r'object_ has shape \(45, 74\).*w = 75'),
            ({'probe': np.ones((1, 8, 8), np.complex64)}, r'probe has shape \(1, 8, 8\)'),
        ],
    )
    def test_shapes_are_checked_before_the_old_file_goes(
        self, scan, object_, tmp_path, changes, message
    ):
        (tmp_path / 'product.h5').write_text('old')
        with pytest.raises(ShapeError, match=message):
            write(tmp_path / 'product.h5', scan, object_, **changes)
        assert (tmp_path / 'product.h5').read_text() == 'old'


class TestReadBack:
    def test_round_trip(self, scan, object_, tmp_path):
        write(tmp_path / 'product.h5', scan, object_)
        product = read_product(str(tmp_path / 'product.h5'))
        assert identify(tmp_path / 'product.h5') == 'ptychodus-product'
        np.testing.assert_array_equal(product.object_, object_)
        assert product.object_.dtype == np.complex64
        assert product.frame == ObjectFrame((0, 0), FRAME.shape)
        np.testing.assert_array_equal(product.probe, scan.probe)
        expected = scan.positions_px - np.asarray(FRAME.origin_px)
        np.testing.assert_allclose(product.positions_px, expected, atol=1e-6)
        np.testing.assert_allclose(
            product.positions_m, scan.positions_px * (4e-9, 7e-9) + (1e-6, -2e-6), rtol=1e-12
        )
        assert product.optics.pixel_size_m == (4e-9, 7e-9)
        assert product.losses == ((0, 2.5), (5, 1.25))
        assert product.name == 'gold'

    def test_positions_keep_the_numbers_of_their_patterns(self, scan, object_, tmp_path):
        numbers = np.array([8, 4, 30, 3, 6, 11])
        write(tmp_path / 'product.h5', replace(scan, indexes=numbers), object_)
        np.testing.assert_array_equal(read_product(tmp_path / 'product.h5').indexes, numbers)
        with h5py.File(tmp_path / 'diffraction.h5', 'w') as file:
            file['indexes'], file['patterns'] = np.sort(numbers), scan.patterns[np.argsort(numbers)]
        back = read_scan(tmp_path)
        np.testing.assert_array_equal(back.numbers, np.sort(numbers))
        np.testing.assert_allclose(
            back.positions_px - back.positions_px[0],
            (scan.positions_px - scan.positions_px[3])[np.argsort(numbers)],
            atol=1e-6,
        )

    def test_with_the_patterns_it_is_the_same_scan_of_the_same_sample(
        self, scan, object_, tmp_path
    ):
        write(tmp_path / 'product.h5', scan, object_)
        with h5py.File(tmp_path / 'diffraction.h5', 'w') as file:
            file['indexes'], file['patterns'] = np.arange(6), scan.patterns
            file['bad_pixels'] = scan.bad_pixels
        back = read_scan(tmp_path)
        meters = np.asarray(back.optics.origin_m) + back.positions_px * back.optics.pixel_size_m
        np.testing.assert_allclose(meters, scan.positions_px * (4e-9, 7e-9) + (1e-6, -2e-6))
        np.testing.assert_array_equal(back.patterns, scan.patterns)

    def test_an_unknown_pixel_can_be_given_later(self, scan, object_, tmp_path):
        write(tmp_path / 'product.h5', replace(scan, optics=Optics()), object_)
        with h5py.File(tmp_path / 'diffraction.h5', 'w') as file:
            file['indexes'], file['patterns'] = np.arange(6), scan.patterns
            file['bad_pixels'] = scan.bad_pixels
        optics = read_scan(tmp_path, ReadOptions(pixel_size_m=2e-9)).optics
        assert optics.pixel_size_m == (2e-9, 2e-9)
        assert optics.origin_m == pytest.approx((-41 * 2e-9, 288 * 2e-9))

    def test_a_product_of_another_scan_file(self, tmp_path):
        np.savez(tmp_path / 'x.npz', a=1)
        with pytest.raises(ScanFileError, match=r"x\.npz: key 'object' is missing"):
            read_product(tmp_path / 'x.npz')


class TestObjectNpz:
    def test_plain_arrays(self, scan, object_, tmp_path):
        occupancy = np.arange(object_.size, dtype=np.float32).reshape(object_.shape)
        write_object_npz(
            tmp_path / 'object.npz',
            object_=object_,
            occupancy=occupancy,
            frame=FRAME,
            pixel_size_m=(4e-9, 7e-9),
            stage='refined',
            positions_px=scan.positions_px,
        )
        with np.load(tmp_path / 'object.npz', allow_pickle=False) as file:
            np.testing.assert_array_equal(file['object'], object_)
            np.testing.assert_array_equal(file['occupancy'], occupancy)
            assert file['origin_px'].tolist() == [-41, 288]
            assert file['pixel_size_m'].tolist() == [4e-9, 7e-9]
            assert str(file['stage']) == 'refined'
            np.testing.assert_array_equal(file['positions_px'], scan.positions_px)

    def test_unknown_pixel_size_is_nan(self, scan, object_, tmp_path):
        write_object_npz(
            tmp_path / 'object.npz',
            object_=object_,
            occupancy=np.ones(FRAME.shape, dtype=bool),
            frame=FRAME,
            pixel_size_m=None,
            stage='first',
            positions_px=scan.positions_px,
        )
        with np.load(tmp_path / 'object.npz', allow_pickle=False) as file:
            assert np.isnan(file['pixel_size_m']).all()

    def test_shapes_are_checked(self, scan, object_, tmp_path):
        with pytest.raises(ShapeError, match='occupancy has shape'):
            write_object_npz(
                tmp_path / 'object.npz',
                object_=object_,
                occupancy=np.ones((3, 3)),
                frame=FRAME,
                pixel_size_m=None,
                stage='first',
                positions_px=scan.positions_px,
            )
        assert not (tmp_path / 'object.npz').exists()
