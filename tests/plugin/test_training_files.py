"""Which files of a folder are trained on."""

import numpy as np
import pytest

from ptychodus_torch_plugin.errors import InputNotFoundError
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import write_ptychodus_npz
from ptychodus_torch_plugin.integration.training_files import training_files

from .scene import measured, write_files


def test_every_npz_but_the_test_scan(tmp_path):
    for name in ('b.npz', 'a.npz', 'test_data.npz', 'notes.txt', 'product.h5'):
        (tmp_path / name).touch()
    assert training_files(tmp_path) == (
        [tmp_path / 'a.npz', tmp_path / 'b.npz'],
        tmp_path / 'test_data.npz',
    )


def test_without_any_the_files_of_ptychodus_are_the_scan(tmp_path):
    write_files(tmp_path, measured())
    files, test = training_files(tmp_path)
    assert (files, test) == ([tmp_path], None)
    assert read_scan(files[0]).n_patterns == 49


@pytest.mark.parametrize('present', [(), ('test_data.npz',), ('product.h5',)])
def test_nothing_to_train_on_is_refused(tmp_path, present):
    for name in present:
        (tmp_path / name).touch()
    with pytest.raises(InputNotFoundError, match='no training scans'):
        training_files(tmp_path)


def test_an_export_gives_the_scan_back_with_its_optics(tmp_path):
    scan = measured()
    write_ptychodus_npz(tmp_path / 'scan.npz', scan)
    read = read_scan(tmp_path / 'scan.npz')
    good = scan.valid_pixels
    np.testing.assert_array_equal(read.patterns[:, good], scan.patterns[:, good])
    for name in ('positions_px', 'probe', 'bad_pixels'):
        np.testing.assert_array_equal(getattr(read, name), getattr(scan, name))
    assert read.optics == scan.optics
    with np.load(tmp_path / 'scan.npz') as archive:
        assert str(archive['diffraction_kind']) == 'intensity'
        assert archive['diff3d'].dtype == np.uint16
