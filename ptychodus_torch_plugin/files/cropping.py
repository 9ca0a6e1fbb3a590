"""Crop detectors whose size `ScanData` refuses: 514 px, 2070 px, odd sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.files.raw import RawScan


def crop_detector(raw: RawScan, n_px: int) -> RawScan:
    """Return the scan with the detector cropped to its central `n_px` pixels.

    The same as `ScanData.cropped`, for scans that cannot become `ScanData` before; the source size
    may be odd, too.  The beam stays at pixel [N//2, N//2], the object pixel grows by N / n_px and
    the probe keeps its low frequencies.

    Raises
    ------
    ShapeError
        If the patterns are smaller than that.
    """
    old = raw.patterns.shape[-1]
    if n_px > old:
        raise ShapeError(f'cannot crop patterns of {old} px to {n_px}; expected fewer pixels.')
    first = old // 2 - n_px // 2
    window = np.s_[..., first : first + n_px, first : first + n_px]
    ratio = n_px / old
    size = raw.optics.pixel_size_m
    pixel_size = None if size is None else (size[0] / ratio, size[1] / ratio)
    spectrum = _centered_transform(raw.probe, np.fft.fft2)[window]
    return raw.changed(
        f'detector cropped from {old} to {n_px} px',
        patterns=np.ascontiguousarray(raw.patterns[window]),
        bad_pixels=None if raw.bad_pixels is None else raw.bad_pixels[window].copy(),
        probe=_centered_transform(spectrum, np.fft.ifft2).astype(np.complex64),
        # The probe's pixel N//2 marks the same point of the object before and after.
        positions_px=(raw.positions_px + _past_middle(old)) * ratio - _past_middle(n_px),
        object_guess=None,
        optics=replace(raw.optics, pixel_size_m=pixel_size),
    )


def _past_middle(n_px: int) -> float:
    """Return how far pixel N//2 lies past the centre (N - 1) / 2 of a patch."""
    return n_px // 2 - (n_px - 1) / 2


def _centered_transform(field: NDArray[Any], transform: Any) -> NDArray[Any]:
    shifted = np.fft.ifftshift(field, axes=(-2, -1))
    return np.fft.fftshift(transform(shifted, norm='ortho'), axes=(-2, -1))
