"""Where objects are compared: the part of the sample that the beam has scanned."""

from __future__ import annotations

import numpy as np

from ptychodus_torch_plugin.arrays import (
    BoolArray,
    FloatArray,
    IndexArray,
    check_array,
    check_finite,
)
from ptychodus_torch_plugin.errors import ScanValueError


def scanned_region(
    frame_shape: tuple[int, int],
    corners: IndexArray,
    n_px: int,
    probe_intensity: FloatArray,
    level: float = 0.1,
) -> BoolArray:
    """Return where the beam has been: the accumulated illumination exceeds `level` of its typical.

    The illumination is the sum of the probe's intensity over all positions.  Typical is its
    photon-weighted median: half of all photons fell on pixels with more.  Unlike the maximum, it
    does not rise when a few positions lie on top of each other, nor fall in a wide empty frame.

    Parameters
    ----------
    frame_shape
        Height and width of the canvas in pixels.
    corners : (n, 2) int64
        First pixel [y, x] of each patch on the canvas, from `ObjectFrame.corners`.
    n_px
        Side N of a patch.
    probe_intensity : (N, N) float
        Intensity of the probe, summed over its modes, on any scale.
    level
        Fraction of the typical illumination, above 0 and below 1.

    Returns
    -------
    region : (h, w) bool

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, a patch leaves the frame, or the probe is dark.
    """
    from scipy import fft

    check_array(corners, 'n 2', name='corners')
    check_array(probe_intensity, 'N N', name='probe_intensity', sizes={'N': n_px})
    check_finite(probe_intensity, name='probe_intensity')
    if not 0 < level < 1:
        raise ScanValueError(f'level is {level:g}; expected a fraction between 0 and 1.')
    room = np.asarray(frame_shape) - n_px
    if len(corners) == 0 or (corners < 0).any() or (corners > room).any():
        raise ScanValueError(
            f'{len(corners)} patches of {n_px} px do not lie inside the {tuple(frame_shape)} px '
            'frame; expected at least one patch, and every patch inside. Use ObjectFrame.corners.'
        )
    if not probe_intensity.any() or probe_intensity.min() < 0:
        raise ScanValueError('probe_intensity is dark or negative; expected |probe|^2 of a beam.')
    visits = np.zeros(room + 1)
    np.add.at(visits, tuple(np.asarray(corners).T), 1.0)
    # As `scipy.signal.fftconvolve` does, which takes half a second to import.
    fast = [fft.next_fast_len(int(side), real=True) for side in frame_shape]
    spectrum = fft.rfft2(visits, fast) * fft.rfft2(np.asarray(probe_intensity, np.float64), fast)
    illumination = fft.irfft2(spectrum, fast)[: frame_shape[0], : frame_shape[1]]
    ordered = np.sort(illumination, axis=None)
    photons = np.cumsum(ordered)
    typical = ordered[np.searchsorted(photons, photons[-1] / 2)]
    region: BoolArray = illumination > level * typical
    return region


def largest_square(region: BoolArray) -> tuple[slice, slice]:
    """Return the largest square of odd side that lies inside the region."""
    from scipy import ndimage

    depth = ndimage.distance_transform_cdt(np.pad(region, 1), metric='chessboard')[1:-1, 1:-1]
    y, x = (int(i) for i in np.unravel_index(int(depth.argmax()), depth.shape))
    reach = int(depth[y, x])
    return slice(y - reach + 1, y + reach), slice(x - reach + 1, x + reach)
