"""Where patches lie on the object canvas: the only place that turns positions into pixels.

Positions are the centres of N x N patches in the centred-pixel convention: the centre of an axis of
N pixels is (N - 1) / 2, so the patch that starts at pixel 0 has its centre at (N - 1) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychodus_torch_plugin.arrays import IndexArray, PositionArray, check_array
from ptychodus_torch_plugin.errors import ScanValueError


def patch_corners(positions_px: PositionArray, n_px: int) -> tuple[IndexArray, PositionArray]:
    """Split patch centres into first pixels and sub-pixel remainders.

    Parameters
    ----------
    positions_px : (n, 2) float64
        Patch centres [y, x] in pixels.
    n_px
        Side N of a patch.

    Returns
    -------
    corners : (n, 2) int64
        First pixel [y, x] of each patch, rounded to the nearest whole pixel.
    remainders_px : (n, 2) float64
        position - (corner + (N - 1) / 2), each in [-0.5, 0.5).  The probe is shifted by it.
    """
    first = np.asarray(positions_px, dtype=np.float64) - (n_px - 1) / 2
    corners = np.floor(first + 0.5).astype(np.int64)
    return corners, first - corners


@dataclass(frozen=True)
class ObjectFrame:
    """A canvas in the coordinates of the object grid.

    Attributes
    ----------
    origin_px
        Object-grid coordinates [y, x] of the canvas' pixel [0, 0], whole numbers.
    shape
        Height and width of the canvas in pixels.
    """

    origin_px: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def around(
        cls,
        positions_px: PositionArray,
        n_px: int,
        object_shape: tuple[int, int] | None = None,
    ) -> ObjectFrame:
        """Return the object's own grid if it holds every patch, else the smallest canvas."""
        positions = check_array(positions_px, 'n 2', name='positions_px')
        if len(positions) == 0:
            raise ScanValueError('positions_px is empty; expected at least one scan position.')
        corners, _ = patch_corners(positions, n_px)
        low, high = corners.min(axis=0), corners.max(axis=0) + n_px
        if object_shape is not None and (low >= 0).all() and (high <= object_shape).all():
            return cls((0, 0), (int(object_shape[0]), int(object_shape[1])))
        return cls((int(low[0]), int(low[1])), (int(high[0] - low[0]), int(high[1] - low[1])))

    def corners(self, positions_px: PositionArray, n_px: int) -> tuple[IndexArray, PositionArray]:
        """Return `patch_corners` relative to this canvas; refuse patches that leave it."""
        corners, remainders = patch_corners(positions_px, n_px)
        corners = corners - np.asarray(self.origin_px)
        outside = ((corners < 0) | (corners + n_px > np.asarray(self.shape))).any(axis=1)
        if outside.any():
            index = int(np.flatnonzero(outside)[0])
            raise ScanValueError(
                f'{int(outside.sum())} of {len(corners)} patches leave the {self.shape} px canvas, '
                f'the first at index {index} (first pixel {corners[index].tolist()}, side {n_px}); '
                'expected every patch inside. Use ObjectFrame.around to make a canvas that fits.'
            )
        return corners, remainders

    def center_px(self) -> tuple[float, float]:
        """Return the canvas' centre [y, x] in object-grid pixels (centred-pixel convention)."""
        return (
            self.origin_px[0] + (self.shape[0] - 1) / 2,
            self.origin_px[1] + (self.shape[1] - 1) / 2,
        )
