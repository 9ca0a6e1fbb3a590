"""A measured scan, where it is at hand: the Siemens star of the public tike test data."""

import numpy as np
import pytest

from ptychodus_torch_plugin.errors import ScanFileError
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.files.writing import write_scan


def test_the_beam_must_be_told(star_path):
    with pytest.raises(ScanFileError, match='--beam-center corner'):
        read_scan(star_path)


def test_the_star_is_read_and_written(star_path, tmp_path):
    options = ReadOptions(beam_center='corner', position_anchor='first-pixel')
    scan = read_scan(star_path, options)
    assert scan.patterns.shape == (516, 128, 128)
    assert scan.mean_counts() == pytest.approx(461212.9, abs=0.1)
    mean = scan.patterns.mean(axis=0)
    center = [(mean * axis).sum() / mean.sum() for axis in np.indices(mean.shape)]
    np.testing.assert_allclose(center, [64, 64], atol=3)
    write_scan(tmp_path / 'star.h5', scan)
    assert read_scan(tmp_path / 'star.h5').fingerprint() == scan.fingerprint()
