"""Cropping the detector: what becomes of patterns, probe, positions and the object's pixel.

A smaller detector sees lower frequencies only, so the object pixel grows by N / n.  The beam stays
at pixel [N//2, N//2], and the probe's pixel N//2 marks the same point of the object before and
after.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.physics import far_field, near_field


def crop_center(patterns: NDArray[Any], n_px: int) -> NDArray[Any]:
    """Return the central (..., n_px, n_px) of patterns (..., N, N), contiguous."""
    size = patterns.shape[-1]
    if not 0 < n_px <= size:
        raise ShapeError(f'cannot crop patterns of {size} px to {n_px}; expected fewer pixels.')
    first = size // 2 - n_px // 2
    window = slice(first, first + n_px)
    return np.ascontiguousarray(patterns[..., window, window])


def crop_probe(probe: ComplexArray, n_px: int) -> ComplexArray:
    """Return the modes (m, n_px, n_px) complex64 with only the frequencies that still are seen."""
    return np.asarray(near_field(crop_center(far_field(probe), n_px)), dtype=np.complex64)


def crop_positions(positions_px: PositionArray, size: int, n_px: int) -> PositionArray:
    """Return patch centres (n, 2) on the coarser grid, for a detector cut from `size` to `n_px`."""
    marked = positions_px + _past_middle(size)
    return np.asarray(marked * (n_px / size) - _past_middle(n_px))


def crop_optics(optics: Optics, size: int, n_px: int) -> Optics:
    """Return the optics with the larger object pixel."""
    if optics.pixel_size_m is None:
        return optics
    height, width = optics.pixel_size_m
    return replace(optics, pixel_size_m=(height * size / n_px, width * size / n_px))


def _past_middle(n_px: int) -> float:
    """Return how far pixel N//2 lies past the centre (N - 1) / 2 of a patch."""
    return n_px // 2 - (n_px - 1) / 2
