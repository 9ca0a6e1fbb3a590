import math

import pytest

from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.files.options import ReadOptions


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('file_kind', 'npz'),
        ('diffraction_kind', 'counts'),
        ('beam_center', 'middle'),
        ('position_anchor', 'corner'),
        ('crop_px', 60),
        ('crop_px', 8),
        ('crop_px', 2048),
        ('crop_px', True),
        ('crop_px', 64.0),
        ('photons', 0),
        ('photons', math.inf),
        ('photons', '1e5'),
        ('pixel_size_m', -1e-9),
        ('photon_energy_eV', math.nan),
        ('detector_distance_m', True),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(field, value):
    with pytest.raises(ConfigError, match=rf'^{field} is .*; expected '):
        ReadOptions(**{field: value})


def test_good_values_are_taken():
    options = ReadOptions(crop_px=64, photons=100_000, beam_center='corner', pixel_size_m=1e-8)
    assert (options.crop_px, options.photons, options.file_kind) == (64, 100_000, 'auto')
