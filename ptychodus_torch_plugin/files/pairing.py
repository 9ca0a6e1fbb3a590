"""Bring a Ptychodus product and its assembled diffraction patterns together, by scan index."""

from __future__ import annotations

import numpy as np

from ptychodus_torch_plugin.arrays import BoolArray, IndexArray, PositionArray, check_array
from ptychodus_torch_plugin.errors import ScanFileError, ShapeError
from ptychodus_torch_plugin.files.containers import Container
from ptychodus_torch_plugin.files.product import Product
from ptychodus_torch_plugin.files.raw import RawScan
from ptychodus_torch_plugin.pattern_store import taken


def pair(product: Product, diffraction: Container) -> RawScan:
    """Return the scan of a product and its assembled diffraction data.

    Patterns and positions with one index belong together.  Several positions of one index are
    averaged, as Ptychodus does; what has no partner is left out and counted in the notes.

    Raises
    ------
    ScanFileError
        If keys are missing or no index occurs on both sides.
    """
    indexes, patterns = diffraction.array('indexes'), diffraction.patterns('patterns')
    if patterns.ndim != 3:
        raise ShapeError(f'patterns has shape {patterns.shape}; expected (n, N, N).')
    check_array(indexes, 'n', name='indexes', sizes={'n': len(patterns)})
    known, positions = _averaged(product.indexes, product.positions_px)
    chosen = np.isin(indexes, known) & (indexes >= 0)  # Ptychodus marks empty slots by -1
    if not chosen.any():
        raise ScanFileError(
            f'no pattern has a position: the {len(indexes)} patterns have indexes '
            f'{_span(indexes)}, the {len(known)} positions {_span(known)}; '
            'expected common indexes. Are the product and the patterns of the same scan?'
        )
    object_guess = product.object_ if product.object_.size else None
    return RawScan(
        patterns=patterns if chosen.all() else taken(patterns, np.flatnonzero(chosen)),
        positions_px=positions[np.searchsorted(known, indexes[chosen])],
        probe=product.probe,
        bad_pixels=diffraction.optional('bad_pixels'),
        object_guess=object_guess,
        optics=product.optics,
        name=product.name,
        contract='intensity',
        contract_source='Ptychodus stores intensities',
        keys="positions_px is 'probe_position_y_m' and 'probe_position_x_m' of the product",
        notes=_notes(product.indexes, known, indexes, chosen),
        indexes=indexes[chosen].astype(np.int64),
    )


def _averaged(indexes: IndexArray, positions: PositionArray) -> tuple[IndexArray, PositionArray]:
    """Return the distinct indexes, ascending, and the mean position of each."""
    known, inverse = np.unique(indexes, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(known))
    sums = [np.bincount(inverse, positions[:, axis], minlength=len(known)) for axis in (0, 1)]
    return known, np.stack(sums, axis=1) / counts[:, np.newaxis]


def _span(indexes: IndexArray) -> str:
    return f'{indexes.min()} to {indexes.max()}' if len(indexes) else '(none)'


def _notes(
    position_indexes: IndexArray, known: IndexArray, indexes: IndexArray, chosen: BoolArray
) -> tuple[str, ...]:
    counted = {
        'positions repeat an index: averaged': len(position_indexes) - len(known),
        'patterns have no position: left out': int((~chosen).sum()),
        'positions have no pattern: left out': int((~np.isin(known, indexes)).sum()),
    }
    return tuple(f'{count} {what}' for what, count in counted.items() if count)
