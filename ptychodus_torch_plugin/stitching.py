"""Patches onto a canvas and back: the only place where patches are weighted, merged and read.

The centre of a patch, pixel (N - 1) / 2, lies at its position.  Sub-pixel parts are honoured
by bilinear interpolation, whose weights are never negative: nothing rings.  Placing spreads the
weighted patch w p and the weight w alike and divides afterwards, so that a constant stays what it
is.  Inside the canvas, reading is the adjoint of spreading.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import (
    ComplexArray,
    FloatArray,
    IndexArray,
    PositionArray,
    check_array,
    check_finite,
)
from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.frame import ObjectFrame

NEGLIGIBLE_WEIGHT = 1e-6
"""Total weight, relative to the largest weight of a patch, up to which a pixel is uncovered."""

CHUNK_VALUES = 2**14
"""Pixels of patches that are interpolated together: what a cache holds."""

RIM_PX = 1
"""Interpolation reaches so many pixels beyond the frame."""

PARTS = 2
"""Real numbers of a complex one: shifts and real weights treat both alike."""


def canvas_px(n_px: int, reach_px: float) -> int:
    """Return the side M of a canvas that holds patches of N pixels up to `reach_px` off its centre.

    M - N is even, so that a patch without offset lies on whole pixels, and one pixel is spare on
    each side for interpolation.
    """
    return n_px + 2 * ceil(reach_px) + 2


def uniform_weight(n_px: int) -> FloatArray:
    """Return the weight 1 for every pixel of a patch, (N, N) float32."""
    return np.ones((n_px, n_px), dtype=np.float32)


def probe_weight(probe: ComplexArray) -> FloatArray:
    """Return the total intensity of the modes (m, N, N) over its largest value, (N, N) float32.

    Raises
    ------
    ScanValueError
        If the probe is zero everywhere.
    """
    modes = check_array(probe, 'm N N', name='probe')
    intensity = np.sum(np.abs(modes.astype(np.complex128)) ** 2, axis=0)
    if not intensity.any():
        raise ScanValueError(
            'probe is zero everywhere and weights nothing; expected light somewhere, or the '
            'uniform weight.'
        )
    return np.asarray(intensity / intensity.max(), dtype=np.float32)


@dataclass(frozen=True)
class CanvasPart:
    """What lies on a part of a canvas: sums that can be added to those of another one.

    Attributes
    ----------
    first
        First pixel [y, x] of the part, the canvas' rim included.
    sum : (h, w) complex128
        Weighted sum of the patches.
    total : (h, w) float64
        Sum of their weights.
    """

    first: tuple[int, int]
    sum: NDArray[np.complex128]
    total: NDArray[np.float64]


class Canvas:
    """Weighted mean of patches that arrive in batches.

    Parameters
    ----------
    frame
        The part of the object grid that is filled.
    weight : (N, N) float32
        Weight of each pixel of a patch, never negative.

    Raises
    ------
    ShapeError, ScanValueError
        If the weight is no such array, or zero everywhere.
    """

    def __init__(self, frame: ObjectFrame, weight: FloatArray) -> None:
        self.frame = frame
        self._weight = check_array(weight, 'N N', name='weight', dtype=np.float32)
        check_finite(self._weight, name='weight')
        low, high = float(self._weight.min()), float(self._weight.max())
        if low < 0 or high == 0:
            raise ScanValueError(
                f'weight has values from {low:g} to {high:g}; expected none below 0, some above.'
            )
        # Thousands of patches may overlap: sums in single precision would lose digits.
        shape = (frame.shape[0] + 2 * RIM_PX, frame.shape[1] + 2 * RIM_PX)
        self._sum = np.zeros(shape, dtype=np.complex128)
        self._total = np.zeros(shape, dtype=np.float64)
        self._weight_of_parts = np.repeat(self._weight, PARTS, axis=1)

    def add(self, patches: ComplexArray, positions_px: PositionArray) -> None:
        """Add patches by their centres.

        Parameters
        ----------
        patches : (n, N, N) complex64
        positions_px : (n, 2) float64
            Centres [y, x] on the object grid.

        Raises
        ------
        ShapeError, ScanValueError
            If shapes or dtypes differ, or if a patch leaves the frame by half a pixel or more.
        """
        n_px = len(self._weight)
        check_array(patches, 'n N N', name='patches', dtype=np.complex64, sizes={'N': n_px})
        firsts, fractions = _split(positions_px, n_px, self.frame, len(patches))
        firsts += RIM_PX
        sums = _parts(self._sum)
        for part in _chunks(len(patches), n_px):
            parts = _parts(np.ascontiguousarray(patches[part]))
            values = _spread(parts * self._weight_of_parts, fractions[part], PARTS)
            weights = _spread(self._weight[None], fractions[part])
            for value, weight, (y, x) in zip(values, weights, firsts[part].tolist(), strict=True):
                rows = slice(y, y + n_px + 1)
                sums[rows, PARTS * x : PARTS * (x + n_px + 1)] += value
                self._total[rows, x : x + n_px + 1] += weight

    def onto(self, frame: ObjectFrame) -> Canvas:
        """Return a canvas with the same patches, as far as they lie on another frame."""
        moved = Canvas(frame, self._weight)
        shift = np.subtract(self.frame.origin_px, frame.origin_px)
        low = np.maximum(shift, 0)
        high = np.minimum(shift + self._total.shape, moved._total.shape)
        there = tuple(slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))
        here = tuple(
            slice(part.start - int(by), part.stop - int(by))
            for part, by in zip(there, shift, strict=True)
        )
        moved._sum[there] = self._sum[here]
        moved._total[there] = self._total[here]
        return moved

    def part(self) -> CanvasPart:
        """Return the smallest part of the canvas on which anything lies."""
        rows, columns = (np.flatnonzero(self._total.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return CanvasPart((0, 0), self._sum[:0, :0], self._total[:0, :0])
        here = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return CanvasPart((int(rows[0]), int(columns[0])), self._sum[here], self._total[here])

    def absorb(self, part: CanvasPart) -> None:
        """Add what lies on a part of another canvas, of the same frame and weight."""
        (y, x), (height, width) = part.first, part.total.shape
        here = np.s_[y : y + height, x : x + width]
        self._sum[here] += part.sum
        self._total[here] += part.total

    def finish(self) -> tuple[ComplexArray, FloatArray]:
        """Return the weighted mean of all patches so far, and where they lie.

        Returns
        -------
        object_ : (h, w) complex64
            Zero where the coverage is.
        coverage : (h, w) float32
            Total weight; zero also where it is less than a millionth of the largest weight of a
            patch.
        """
        inside = np.s_[RIM_PX:-RIM_PX, RIM_PX:-RIM_PX]
        total = self._total[inside]
        covered = total > NEGLIGIBLE_WEIGHT * float(self._weight.max())
        object_ = np.zeros(total.shape, dtype=np.complex64)
        np.divide(self._sum[inside], total, out=object_, where=covered, casting='same_kind')
        return object_, np.multiply(total, covered, dtype=np.float32, casting='same_kind')


def stitch(
    patches: ComplexArray, positions_px: PositionArray, frame: ObjectFrame, weight: FloatArray
) -> tuple[ComplexArray, FloatArray]:
    """Place patches (n, N, N) on a canvas at once; see `Canvas`."""
    canvas = Canvas(frame, weight)
    canvas.add(patches, positions_px)
    return canvas.finish()


def read_patches(
    object_: ComplexArray, positions_px: PositionArray, n_px: int, frame: ObjectFrame
) -> ComplexArray:
    """Read patches of an object, bilinearly.

    Parameters
    ----------
    object_ : (h, w) complex64
        On the whole `frame`.
    positions_px : (n, 2) float64
        Centres [y, x] of the patches.
    n_px
        Side N of a patch.

    Returns
    -------
    (n, N, N) complex64
        Up to half a pixel beyond the frame the value is that of the rim.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes or dtypes differ, or if a patch leaves the frame by half a pixel or more.
    """
    sizes = {'h': frame.shape[0], 'w': frame.shape[1]}
    check_array(object_, 'h w', name='object_', dtype=np.complex64, sizes=sizes)
    firsts, fractions = _split(positions_px, n_px, frame)
    patches = np.empty((len(firsts), n_px, n_px), dtype=np.complex64)
    for part in _chunks(len(firsts), n_px):
        windows = _windows(object_, firsts[part], n_px + 1)
        _interpolate(_parts(windows), fractions[part], out=_parts(patches[part]))
    return patches


def merge_group(
    patches: ComplexArray, offsets_px: FloatArray, weight: FloatArray, side_px: int
) -> tuple[ComplexArray, FloatArray]:
    """Merge the patches of one group; the oracle of what backends do within a group.

    Parameters
    ----------
    patches : (c, N, N) complex64
    offsets_px : (c, 2)
        Places [dy, dx] of the patches relative to the group's centre, which is the canvas'
        centre (M - 1) / 2.
    weight : (N, N) float32
    side_px
        Side M of the canvas, `canvas_px`.

    Returns
    -------
    canvas : (M, M) complex64
    coverage : (M, M) float32
    """
    return stitch(patches, *_on_canvas(offsets_px, side_px), weight)


def read_group(canvas: ComplexArray, offsets_px: FloatArray, n_px: int) -> ComplexArray:
    """Read the patches (c, N, N) complex64 at `offsets_px` (c, 2) from a group's canvas (M, M)."""
    positions, frame = _on_canvas(offsets_px, len(canvas))
    return read_patches(canvas, positions, n_px, frame)


def _on_canvas(offsets_px: FloatArray, side_px: int) -> tuple[PositionArray, ObjectFrame]:
    offsets = check_array(offsets_px, 'c 2', name='offsets_px').astype(np.float64)
    return (side_px - 1) / 2 + offsets, ObjectFrame((0, 0), (side_px, side_px))


def _split(
    positions_px: PositionArray, n_px: int, frame: ObjectFrame, n: int | None = None
) -> tuple[IndexArray, FloatArray]:
    """Return first pixels in the frame, rounded down, from -1 on, and fractions in [0, 1)."""
    sizes = {} if n is None else {'n': n}
    positions = check_array(positions_px, 'n 2', name='positions_px', dtype=np.float64, sizes=sizes)
    check_finite(positions, name='positions_px')
    corners, remainders = frame.corners(positions, n_px)
    below = remainders < 0
    return corners - below, (remainders + below).astype(np.float32)


def _chunks(n: int, n_px: int) -> list[slice]:
    size = max(1, CHUNK_VALUES // n_px**2)
    return [slice(i, i + size) for i in range(0, n, size)]


def _parts(values: NDArray[Any]) -> NDArray[Any]:
    """Return complex values (..., N) as their real and imaginary parts in turn, (..., 2 N)."""
    return values.view(values.real.dtype)


def _spread(patches: FloatArray, fractions: FloatArray, step: int = 1) -> FloatArray:
    """Move patches (n | 1, N, s N) by fractions (n, 2) of a pixel: (n, N + 1, s (N + 1)), same sum.

    A pixel is `step` = s numbers along a row.
    """
    down, right = fractions[:, 0, None, None], fractions[:, 1, None, None]
    n, (rows, columns) = len(fractions), patches.shape[1:]
    moved = np.empty((n, rows + 1, columns), dtype=np.float32)
    np.multiply(patches, 1 - down, out=moved[:, :-1])
    moved[:, -1] = 0
    moved[:, 1:] += patches * down
    spread = np.empty((n, rows + 1, columns + step), dtype=np.float32)
    np.multiply(moved, 1 - right, out=spread[:, :, :-step])
    spread[:, :, -step:] = 0
    spread[:, :, step:] += moved * right
    return spread


def _windows(object_: ComplexArray, firsts: IndexArray, side_px: int) -> ComplexArray:
    """Return the windows (n, side, side) from pixels `firsts` (n, 2) on, beyond the rim its values.

    The object is not copied for it: batch after batch may be read from a large one.
    """
    last = np.asarray(object_.shape) - side_px
    if (firsts >= 0).all() and (firsts <= last).all():
        windows = sliding_window_view(object_, (side_px, side_px))
        return np.ascontiguousarray(windows[tuple(firsts.T)])
    pixels = firsts[:, :, None] + np.arange(side_px)
    rows, columns = (
        np.clip(pixels[:, axis], 0, length - 1) for axis, length in enumerate(object_.shape)
    )
    return np.ascontiguousarray(object_[rows[:, :, None], columns[:, None, :]])


def _interpolate(windows: FloatArray, fractions: FloatArray, out: FloatArray) -> None:
    """Read `out` (n, N, 2 N) from windows (n, N + 1, 2 (N + 1)), `fractions` (n, 2) further on."""
    down, right = fractions[:, 0, None, None], fractions[:, 1, None, None]
    rows = windows[:, :-1] * (1 - down)
    rows += windows[:, 1:] * down
    np.multiply(rows[:, :, :-PARTS], 1 - right, out=out)
    out += rows[:, :, PARTS:] * right
