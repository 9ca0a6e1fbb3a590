"""Crop detectors whose size `ScanData` refuses: 514 px, 2070 px, odd sizes."""

from __future__ import annotations

from functools import partial

from ptychodus_torch_plugin.cropping import crop_center, crop_optics, crop_positions, crop_probe
from ptychodus_torch_plugin.files.raw import RawScan
from ptychodus_torch_plugin.pattern_store import mapped


def crop_detector(raw: RawScan, n_px: int) -> RawScan:
    """Return the scan with the detector cropped to its central `n_px` pixels.

    As `ScanData.cropped`, for scans that cannot become `ScanData` before: any size, odd ones, too.

    Raises
    ------
    ShapeError
        If the patterns are smaller than that.
    """
    size = raw.patterns.shape[-1]
    return raw.changed(
        f'detector cropped from {size} to {n_px} px',
        patterns=mapped(raw.patterns, partial(crop_center, n_px=n_px)),
        bad_pixels=None if raw.bad_pixels is None else crop_center(raw.bad_pixels, n_px),
        background=None if raw.background is None else crop_center(raw.background, n_px),
        probe=crop_probe(raw.probe, n_px),
        positions_px=crop_positions(raw.positions_px, size, n_px),
        object_guess=None,
        optics=crop_optics(raw.optics, size, n_px),
    )
