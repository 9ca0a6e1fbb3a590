"""The dark background that a user gives with a scan: a number, or a pattern in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.errors import InputNotFoundError, ScanValueError, ShapeError
from ptychodus_torch_plugin.files import layout
from ptychodus_torch_plugin.files.containers import errors_named, open_container
from ptychodus_torch_plugin.files.damage import damage_reported
from ptychodus_torch_plugin.files.options import as_number


def load_background(background: float | str | Path, shape: tuple[int, int]) -> FloatArray:
    """Return a background (N, N) float32 in counts per pixel and pattern.

    Parameters
    ----------
    background
        A number for all pixels, or a file: `.npy` with one array (N, N), or an NPZ or HDF5 file
        with such an array under `background`, like our own scan file.
    shape
        (N, N) of the patterns as they are stored.

    Raises
    ------
    InputNotFoundError, ScanFileError, ShapeError, ScanValueError
        If there is no such file, it is damaged or has no such array, or the array does not fit.
    """
    number = as_number(background)
    if number is not None:
        return np.full(shape, number, np.float32)
    path = Path(background)  # type: ignore[arg-type]  # it is no number
    with errors_named(path):
        array = _stored(path)
        if array.shape != shape or array.dtype.kind not in 'iuf':
            raise ShapeError(
                f'the background has shape {array.shape} and dtype {array.dtype}; expected real '
                f'numbers of the shape {shape} of a pattern in the file.'
            )
        if not np.isfinite(array).all() or array.min() < 0:
            raise ScanValueError(
                f'the background reaches from {array.min():g} to {array.max():g}; expected finite '
                'counts, 0 or more. Set dead pixels of it to 0, and mark them as bad.'
            )
    return array.astype(np.float32)


def _stored(path: Path) -> NDArray[np.generic]:
    if not path.is_file():
        raise InputNotFoundError(
            'there is no such file; expected counts per pixel, or a .npy, NPZ or HDF5 file.'
        )
    if path.suffix == '.npy':
        with damage_reported('the background'):
            return np.asarray(np.load(path, allow_pickle=False))
    with open_container(path) as container:
        return container.array(layout.BACKGROUND)
