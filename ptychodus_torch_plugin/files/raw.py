"""`RawScan`: what a file holds, in one shape for all layouts, before any value is interpreted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import ComplexArray, IndexArray, PositionArray
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.files.options import DiffractionKind, PositionAnchor
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.pattern_store import PatternFile


@dataclass(frozen=True)
class RawScan:
    """The arrays of one file, not yet checked against each other.

    Attributes
    ----------
    patterns : (n, N, N) real
        Values as stored, beam where the file has it.
    positions_px : (n, 2) float64
        Positions [y, x] as stored, in object pixels.
    probe : (m, N, N) complex
        Incoherent modes.
    contract
        What the layout documents its patterns to be, and `contract_source`, which says so.
    keys
        What the file calls the arrays, for messages.
    bad_pixels, object_guess, background, optics, name, indexes
        As in `ScanData`; `bad_pixels` is `None` if the file has none.
    usual_anchor
        What the positions of this layout usually denote; another choice is warned of.
    tagged
        The file itself states all its conventions (our own scan file): nothing is inferred.
    notes
        Lines for `ScanData.provenance`.
    """

    patterns: NDArray[Any] | PatternFile
    positions_px: PositionArray
    probe: NDArray[Any]
    contract: DiffractionKind
    contract_source: str
    keys: str
    bad_pixels: NDArray[Any] | None = None
    object_guess: NDArray[Any] | None = None
    background: NDArray[Any] | None = None
    optics: Optics = field(default_factory=Optics)
    name: str = 'scan'
    usual_anchor: PositionAnchor = 'center'
    tagged: bool = False
    notes: tuple[str, ...] = ()
    indexes: IndexArray | None = None

    def changed(self, *notes: str, **arrays: Any) -> RawScan:
        """Return the scan with other arrays, and with new lines about why added to its notes."""
        new = tuple(note for note in notes if note not in self.notes)
        return replace(self, notes=(*self.notes, *new), **arrays)


def stacked_positions(y: NDArray[Any], x: NDArray[Any], keys: tuple[str, str]) -> PositionArray:
    """Return (n, 2) float64 [y, x] from two coordinate arrays (n,), whose keys are [y, x]."""
    for array, key in zip((y, x), keys, strict=True):
        if array.ndim != 1 or array.dtype.kind not in 'iuf':
            raise ShapeError(
                f'{key} has shape {array.shape} and dtype {array.dtype}; expected real numbers (n).'
            )
    if len(y) != len(x):
        raise ShapeError(
            f'{keys[0]} has {len(y)} entries and {keys[1]} has {len(x)}; expected equal lengths.'
        )
    return np.stack([y, x], axis=1).astype(np.float64)


def as_complex64(array: NDArray[Any]) -> ComplexArray:
    """Return `array` as complex64; what exceeds it becomes infinite, which `ScanData` reports."""
    with np.errstate(over='ignore', invalid='ignore'):
        return array.astype(np.complex64)


def as_modes(probe: NDArray[Any], key: str) -> NDArray[Any]:
    """Return a probe (h, w) or (m, h, w) as (m, h, w)."""
    if probe.ndim == 2:
        return probe[np.newaxis]
    if probe.ndim == 3:
        return probe
    raise ShapeError(f'{key} has shape {probe.shape}; expected (N, N) or (m, N, N).')


def without_leading_ones(array: NDArray[Any], ndim: int, key: str) -> NDArray[Any]:
    """Return `array` with leading axes of length 1 dropped until it has `ndim` axes."""
    extra = array.ndim - ndim
    if extra < 0 or any(length != 1 for length in array.shape[:extra]):
        raise ShapeError(
            f'{key} has shape {array.shape}; expected {ndim} axes after leading axes of length 1. '
            'A file with several scans must be split.'
        )
    return array.reshape(array.shape[extra:])
