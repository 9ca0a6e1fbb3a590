"""Checks of arrays at public edges: axis letters in, one clear error out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.errors import ScanValueError, ShapeError

ComplexArray = NDArray[np.complex64]
FloatArray = NDArray[np.float32]
PositionArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def check_array(
    array: Any,
    axes: str,
    *,
    name: str,
    dtype: type[np.generic] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> NDArray[Any]:
    """Return `array` as a NumPy array after checking its axes.

    Parameters
    ----------
    array
        Anything that `numpy.asarray` takes.
    axes
        Axis letters separated by spaces, e.g. ``'n h w'``.  A digit is a fixed length (``'n 2'``),
        and a letter that occurs twice must have one length (``'m N N'``).
    name
        What to call the array in an error.
    dtype
        Scalar type that the array must already have; ``None`` accepts any.
    sizes
        Lengths that letters must have, e.g. ``{'n': 516}``.

    Raises
    ------
    ShapeError
        If the number of axes, a length or the dtype differs; the message has both sides.
    """
    result = np.asarray(array)
    letters = axes.split()
    known: dict[str, int] = dict(sizes or {})
    fits = result.ndim == len(letters)
    if fits:
        for letter, length in zip(letters, result.shape, strict=True):
            expected = int(letter) if letter.isdigit() else known.setdefault(letter, length)
            fits = fits and expected == length
    if not fits:
        wanted = ', '.join(letters)
        fixed = ', '.join(f'{k} = {v}' for k, v in (sizes or {}).items())
        hint = f' with {fixed}' if fixed else ''
        repeated = {letter for letter in letters if letters.count(letter) > 1}
        equal = f' ({", ".join(sorted(repeated))} of equal length)' if repeated else ''
        raise ShapeError(f'{name} has shape {result.shape}; expected ({wanted}){equal}{hint}.')
    if dtype is not None and result.dtype != np.dtype(dtype):
        raise ShapeError(f'{name} has dtype {result.dtype}; expected {np.dtype(dtype)}.')
    return result


def check_finite(array: NDArray[Any], *, name: str) -> None:
    """Raise `ScanValueError` if `array` holds NaN or infinite entries; count them."""
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise infinite_values(name, bad, first)


def infinite_values(name: str, count: int, first: tuple[int, ...] | None) -> ScanValueError:
    """Return the error about `count` values that are no finite numbers."""
    return ScanValueError(
        f'{name} has {count} values that are NaN or infinite, the first at index {first}; '
        'expected finite numbers. Mark dead detector pixels in bad_pixels and set them to 0.'
    )
