"""Readers of the NPZ layouts: PtychoPINN, the NPZ export of Ptychodus, and tike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import check_array
from ptychodus_torch_plugin.errors import ScanFileError, ShapeError
from ptychodus_torch_plugin.files import layout
from ptychodus_torch_plugin.files.containers import Container
from ptychodus_torch_plugin.files.raw import (
    RawScan,
    as_modes,
    stacked_positions,
    without_leading_ones,
)
from ptychodus_torch_plugin.files.training_layout import stored_optics
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.pattern_store import PatternFile, Patterns

_PINN_KEYS = (
    "patterns is 'diff3d', positions_px is 'ycoords' and 'xcoords', probe is 'probeGuess', "
    "object_guess is 'objectGuess'"
)


def read_ptychopinn(container: Container) -> RawScan:
    """Read a PtychoPINN file: amplitudes (n, N, N), in old files (N, N, n)."""
    positions = _pinn_positions(container)
    patterns, note = _pattern_first(container.patterns('diff3d'), len(positions))
    return RawScan(
        patterns=patterns,
        positions_px=positions,
        probe=as_modes(container.array('probeGuess'), 'probeGuess'),
        object_guess=_object_guess(container),
        bad_pixels=container.optional('bad_pixels'),
        contract='amplitude',
        contract_source='PtychoPINN files are documented to hold amplitudes',
        keys=_PINN_KEYS,
        notes=(*note, *_scan_index_note(container)),
    )


def read_ptychodus_npz(container: Container) -> RawScan:
    """Read what Ptychodus 1.7 exports for PtychoPINN: intensities (n, N, N) and bad pixels.

    Our own export has the optics and a background besides (`writing.write_ptychodus_npz`).
    """
    return RawScan(
        patterns=container.patterns('diff3d'),
        positions_px=_pinn_positions(container),
        probe=as_modes(container.array('probeGuess'), 'probeGuess'),
        object_guess=_object_guess(container),
        bad_pixels=container.optional('bad_pixels'),
        background=container.optional(layout.BACKGROUND),
        optics=_optics(container),
        contract='intensity',
        contract_source='Ptychodus 1.7 exports intensities',
        keys=_PINN_KEYS,
        notes=_scan_index_note(container),
    )


def read_tike(container: Container) -> RawScan:
    """Read a tike file: counts, and positions [row, column]; leading axes of length 1 go."""
    scan = without_leading_ones(container.array('scan'), 2, 'scan')
    if scan.shape[1] != 2:
        raise ShapeError(f'scan has shape {scan.shape}; expected (n, 2) [row, column].')
    probe = container.array('probe')
    return RawScan(
        patterns=_counts(container),
        positions_px=stacked_positions(scan[:, 0], scan[:, 1], ('scan', 'scan')),
        probe=as_modes(without_leading_ones(probe, min(probe.ndim, 3), 'probe'), 'probe'),
        contract='intensity',
        contract_source='tike files are documented to hold counts',
        usual_anchor='first-pixel',
        keys="patterns is 'data', positions_px is 'scan'",
    )


def _counts(container: Container) -> Patterns:
    patterns = container.patterns('data')
    if isinstance(patterns, PatternFile):
        return patterns
    return without_leading_ones(patterns, 3, 'data')


def _pinn_positions(container: Container) -> NDArray[np.float64]:
    return stacked_positions(
        container.array('ycoords'), container.array('xcoords'), ('ycoords', 'xcoords')
    )


def _object_guess(container: Container) -> NDArray[Any] | None:
    guess = container.optional('objectGuess')
    return None if guess is None else without_leading_ones(guess, 2, 'objectGuess')


def _optics(container: Container) -> Optics:
    origin = container.optional(layout.ORIGIN_M_ATTRIBUTE)
    optics = stored_optics(container)
    if origin is None:
        return optics
    y, x = check_array(origin, 'n', name=layout.ORIGIN_M_ATTRIBUTE, sizes={'n': 2})
    return replace(optics, origin_m=(float(y), float(x)))


def _pattern_first(patterns: Patterns, n: int) -> tuple[Patterns, tuple[str, ...]]:
    """Return patterns as (n, N, N); the number of positions tells which axis counts them."""
    if patterns.ndim != 3:
        raise ShapeError(f'diff3d has shape {patterns.shape}; expected (n, N, N) with n = {n}.')
    first, last = patterns.shape[0] == n, patterns.shape[2] == n
    if first and last:
        raise ScanFileError(
            f'diff3d has shape {patterns.shape} for {n} positions, so the first and the last axis '
            'could both count the patterns; expected (n, N, N) with n other than N. If the first '
            "does, read it with file kind 'ptychodus-npz' and name the diffraction kind; if the "
            'last does, transpose the array, or leave one pattern out.'
        )
    if not first and not last:
        raise ShapeError(
            f'diff3d has shape {patterns.shape}; expected (n, N, N) or (N, N, n) with n = {n}, '
            'the length of xcoords and ycoords.'
        )
    if first:
        return patterns, ()
    return np.moveaxis(np.asarray(patterns), 2, 0), (
        'diff3d is in the old order (N, N, n): reordered',
    )


def _scan_index_note(container: Container) -> tuple[str, ...]:
    index = container.optional('scan_index')
    count = 1 if index is None else len(np.unique(index))
    if index is None or count in (0, 1, index.size):
        return ()
    return (f'scan_index has {count} different values: all patterns are taken as one scan',)
