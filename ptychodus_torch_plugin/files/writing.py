"""Write scans: our own scan file, which Ptychodus reads too, and the PtychoPINN NPZ."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychodus_torch_plugin.files import layout
from ptychodus_torch_plugin.files.atomic import atomic_path
from ptychodus_torch_plugin.scan import ScanData

__all__ = ['atomic_path', 'write_ptychodus_npz', 'write_ptychopinn_npz', 'write_scan']

logger = logging.getLogger('ptychodus_torch_plugin.files')

_CHUNK_BYTES = 2**20


def write_scan(path: str | Path, scan: ScanData) -> None:
    """Write our scan file (HDF5), which `read_scan` gives back as it was.

    Its datasets are those of a training data file of Ptychodus 1.7, so that Ptychodus reads it,
    too.  What Ptychodus needs and the scan does not know is a placeholder and marked as one: an
    object of ones on the scan's frame, a pixel of 1 m, an energy and a distance of 0.

    Raises
    ------
    OutputError
        If the file cannot be written; whatever stood there before is untouched.
    """
    guess, origin_px, placeholders = scan.object_guess, (0, 0), []
    if guess is None:
        # Ptychodus wants positions on the array it is given, from pixel [0, 0] on.
        guess, origin_px = np.ones(scan.frame.shape, np.complex64), scan.frame.origin_px
        placeholders.append(layout.OBJECT)
    if scan.optics.pixel_size_m is None:
        placeholders.append(layout.PIXEL_HEIGHT)
        placeholders.append(layout.PIXEL_WIDTH)
    pixel = scan.optics.pixel_size_m or (1.0, 1.0)
    stored_positions = scan.positions_px - np.asarray(origin_px)
    with atomic_path(path) as temporary, h5py.File(temporary, 'w') as file:
        _write_patterns(file, scan)
        file.create_dataset(layout.BAD_PIXELS, data=scan.bad_pixels, compression='lzf')
        if scan.background is not None:
            file.create_dataset(layout.BACKGROUND, data=scan.background, compression='lzf')
        if scan.indexes is not None:
            file[layout.INDEXES] = scan.indexes
        file.create_dataset(layout.PROBE, data=scan.probe, compression='lzf')
        file.create_dataset(layout.OBJECT, data=guess, compression='lzf')
        file[layout.POSITION_Y_PX] = stored_positions[:, 0]
        file[layout.POSITION_X_PX] = stored_positions[:, 1]
        file[layout.POSITIONS] = scan.positions_px
        file[layout.PIXEL_HEIGHT], file[layout.PIXEL_WIDTH] = pixel
        file[layout.DISTANCE] = scan.optics.detector_distance_m or 0.0
        file[layout.ENERGY] = scan.optics.photon_energy_eV or 0.0
        _write_tags(file, scan, origin_px, placeholders)


def _write_tags(
    file: Any, scan: ScanData, origin_px: tuple[int, int], placeholders: list[str]
) -> None:
    file.attrs[layout.FORMAT_ATTRIBUTE] = layout.SCAN_FORMAT
    file.attrs[layout.VERSION_ATTRIBUTE] = layout.SCAN_FORMAT_VERSION
    file.attrs[layout.KIND_ATTRIBUTE] = 'intensity'
    file.attrs[layout.ORIGIN_M_ATTRIBUTE] = np.asarray(scan.optics.origin_m, dtype=np.float64)
    file.attrs[layout.GRID_ORIGIN_ATTRIBUTE] = np.asarray(origin_px, dtype=np.int64)
    file.attrs[layout.NAME_ATTRIBUTE] = scan.name
    file.attrs[layout.PROVENANCE_ATTRIBUTE] = json.dumps(scan.provenance)
    file.attrs[layout.PLACEHOLDERS_ATTRIBUTE] = json.dumps(placeholders)


def _write_patterns(file: Any, scan: ScanData) -> None:
    dtype, shape = _smallest_dtype(scan), scan.patterns.shape
    per_chunk = max(1, min(shape[0], _CHUNK_BYTES // (shape[1] * shape[2] * dtype.itemsize)))
    dataset = file.create_dataset(
        layout.PATTERNS,
        shape=shape,
        dtype=dtype,
        chunks=(per_chunk, *shape[1:]),
        compression='gzip',
        compression_opts=1,
        shuffle=True,
        fletcher32=True,  # a flipped bit is an error, not a count
    )
    for first in range(0, len(scan.patterns), per_chunk):
        dataset[first : first + per_chunk] = scan.patterns[first : first + per_chunk].astype(dtype)


def _smallest_dtype(scan: ScanData) -> np.dtype[Any]:
    """Return the smallest unsigned type that gives whole counts back as float32, else float32."""
    if scan.summary.whole:
        for dtype in (np.dtype(np.uint16), np.dtype(np.uint32)):
            if scan.summary.highest <= np.iinfo(dtype).max:
                return dtype
    return np.dtype(np.float32)


def write_ptychopinn_npz(path: str | Path, scan: ScanData) -> None:
    """Write the NPZ of the PtychoPINN contract: amplitudes (n, N, N), positions in pixels.

    A single probe mode is written as (N, N), several as (m, N, N).  The contract has no bad pixels:
    they are written as 0, and a warning in the log says how many; another one says that a
    background is lost.  It has no optics either.

    Raises
    ------
    OutputError
        If the file cannot be written; whatever stood there before is untouched.
    """
    bad = int(scan.bad_pixels.sum())
    if bad:
        logger.warning(
            '%s: PtychoPINN files know no bad pixels; %d are written as measured zeros.', path, bad
        )
    if scan.background is not None:
        logger.warning(
            '%s: PtychoPINN files know no background; it stays in the patterns, unmarked.', path
        )
    y, x = scan.positions_px.T
    arrays: dict[str, Any] = {
        'xcoords': x,
        'ycoords': y,
        'xcoords_start': x,
        'ycoords_start': y,
        'diff3d': np.sqrt(np.asarray(scan.patterns) * scan.valid_pixels),
        'probeGuess': scan.probe[0] if len(scan.probe) == 1 else scan.probe,
        'scan_index': np.zeros(scan.n_patterns, dtype=np.int64),
    }
    if scan.object_guess is not None:
        arrays['objectGuess'] = scan.object_guess
    with atomic_path(path) as temporary, temporary.open('wb') as stream:
        np.savez(stream, **arrays)


def write_ptychodus_npz(path: str | Path, scan: ScanData) -> None:
    """Write the NPZ that Ptychodus 1.7 exports for training: counts (n, N, N), bad pixels.

    It also says what Ptychodus leaves out: that the patterns are intensities, the photon energy,
    the distance, the object pixel and its origin, and the background, as far as they are known,
    and the name.

    Raises
    ------
    OutputError
        If the file cannot be written; whatever stood there before is untouched.
    """
    y, x = scan.positions_px.T
    known = {
        layout.ENERGY: scan.optics.photon_energy_eV,
        layout.DISTANCE: scan.optics.detector_distance_m,
    }
    if scan.optics.pixel_size_m is not None:
        height, width = scan.optics.pixel_size_m
        known |= {layout.PIXEL_HEIGHT: height, layout.PIXEL_WIDTH: width}
    arrays: dict[str, Any] = {
        'xcoords': x,
        'ycoords': y,
        'xcoords_start': x,
        'ycoords_start': y,
        'diff3d': np.asarray(scan.patterns, dtype=_smallest_dtype(scan)),
        'bad_pixels': scan.bad_pixels,
        'probeGuess': scan.probe,
        'scan_index': np.zeros(scan.n_patterns, dtype=np.int64),
        layout.KIND_ATTRIBUTE: np.asarray('intensity'),
        layout.ORIGIN_M_ATTRIBUTE: np.asarray(scan.optics.origin_m, dtype=np.float64),
        layout.NAME_ATTRIBUTE: np.asarray(scan.name),
        **{key: np.asarray(value) for key, value in known.items() if value is not None},
    }
    if scan.object_guess is not None:
        arrays['objectGuess'] = scan.object_guess
    if scan.background is not None:
        arrays[layout.BACKGROUND] = scan.background
    with atomic_path(path) as temporary, temporary.open('wb') as stream:
        np.savez(stream, **arrays)
