"""Reader of the training data file of Ptychodus, and of our own scan file, which extends it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import IndexArray, PositionArray, check_array
from ptychodus_torch_plugin.errors import ScanFileError, ShapeError
from ptychodus_torch_plugin.files import layout
from ptychodus_torch_plugin.files.containers import Container
from ptychodus_torch_plugin.files.damage import damage_reported
from ptychodus_torch_plugin.files.raw import RawScan, as_modes, stacked_positions
from ptychodus_torch_plugin.optics import Optics

# Positions that another program moved in the file differ by more than the rounding of a shift.
_POSITION_TOLERANCE_PX = 1e-6


def read_training(container: Container) -> RawScan:
    """Read a Ptychodus training data file: intensities, positions on the grid of its object."""
    object_guess = container.array(layout.OBJECT)
    if object_guess.ndim != 2:
        raise ShapeError(f'object has shape {object_guess.shape}; expected (h, w).')
    pixel_size = stored_optics(container).pixel_size_m
    # Ptychodus writes positions about the centre of the object and counts metres from there.
    origin = (
        (0.0, 0.0)
        if pixel_size is None
        else (
            -pixel_size[0] * (object_guess.shape[0] - 1) / 2,
            -pixel_size[1] * (object_guess.shape[1] - 1) / 2,
        )
    )
    return RawScan(
        patterns=container.patterns(layout.PATTERNS),
        positions_px=_stored_positions(container),
        probe=as_modes(container.array(layout.PROBE), layout.PROBE),
        bad_pixels=container.optional(layout.BAD_PIXELS),
        object_guess=object_guess,
        optics=replace(stored_optics(container), origin_m=origin),
        contract='intensity',
        contract_source='Ptychodus training data files are documented to hold intensities',
        keys=f'positions_px is {layout.POSITION_Y_PX!r} and {layout.POSITION_X_PX!r}, '
        "object_guess is 'object'",
    )


def read_own(container: Container) -> RawScan:
    """Read our own scan file, whose attributes say all that a training data file leaves open."""
    attributes = container.attributes()
    _check_tags(attributes)
    with damage_reported('the attributes of a scan file'):
        placeholders = set(json.loads(attributes[layout.PLACEHOLDERS_ATTRIBUTE]))
        provenance = tuple(str(x) for x in json.loads(attributes[layout.PROVENANCE_ATTRIBUTE]))
        origin_y, origin_x = (float(x) for x in attributes[layout.ORIGIN_M_ATTRIBUTE])
        name = str(attributes[layout.NAME_ATTRIBUTE])
    raw = read_training(container)
    optics = replace(
        raw.optics,
        pixel_size_m=None if layout.PIXEL_HEIGHT in placeholders else raw.optics.pixel_size_m,
        origin_m=(origin_y, origin_x),
    )
    return RawScan(
        patterns=raw.patterns,
        positions_px=_exact_positions(container, attributes, raw.positions_px),
        probe=raw.probe,
        bad_pixels=raw.bad_pixels,
        background=container.optional(layout.BACKGROUND),
        object_guess=None if layout.OBJECT in placeholders else raw.object_guess,
        optics=optics,
        name=name,
        contract='intensity',
        contract_source='the tag of the file says so',
        tagged=True,
        keys="object_guess is 'object'",
        notes=provenance,
        indexes=_numbers(container),
    )


def _numbers(container: Container) -> IndexArray | None:
    indexes = container.optional(layout.INDEXES)
    return None if indexes is None else indexes.astype(np.int64)


def _check_tags(attributes: Any) -> None:
    found = attributes.get(layout.FORMAT_ATTRIBUTE)
    if found != layout.SCAN_FORMAT:
        raise ScanFileError(
            f'attribute {layout.FORMAT_ATTRIBUTE!r} is {found!r}; expected {layout.SCAN_FORMAT!r}.'
        )
    version = attributes.get(layout.VERSION_ATTRIBUTE)
    if version != layout.SCAN_FORMAT_VERSION:
        raise ScanFileError(
            f'attribute {layout.VERSION_ATTRIBUTE!r} is {version!r}; expected '
            f'{layout.SCAN_FORMAT_VERSION}. Read it with the version of this package that wrote it.'
        )
    kind = attributes.get(layout.KIND_ATTRIBUTE)
    if kind != 'intensity':
        raise ScanFileError(
            f"attribute {layout.KIND_ATTRIBUTE!r} is {kind!r}; expected 'intensity'."
        )


def _exact_positions(
    container: Container, attributes: Any, stored: PositionArray
) -> NDArray[np.float64]:
    """Return `positions_px`, after checking that nobody moved the positions for Ptychodus."""
    exact = check_array(
        container.array(layout.POSITIONS), 'n 2', name=layout.POSITIONS, sizes={'n': len(stored)}
    )
    with damage_reported(f'attribute {layout.GRID_ORIGIN_ATTRIBUTE!r}'):
        grid_origin = np.asarray(attributes[layout.GRID_ORIGIN_ATTRIBUTE], np.float64).reshape(2)
    furthest = float(np.abs(stored + grid_origin - exact).max(initial=0.0))
    if furthest > _POSITION_TOLERANCE_PX:
        raise ScanFileError(
            f'{layout.POSITIONS} differs from {layout.POSITION_Y_PX} and {layout.POSITION_X_PX} '
            f'(plus {layout.GRID_ORIGIN_ATTRIBUTE}) by up to {furthest:g} px; expected the same '
            'positions. Another program has changed the file: write the scan again.'
        )
    return exact.astype(np.float64)


def _stored_positions(container: Container) -> PositionArray:
    keys = (layout.POSITION_Y_PX, layout.POSITION_X_PX)
    return stacked_positions(container.array(keys[0]), container.array(keys[1]), keys)


def stored_optics(container: Container) -> Optics:
    """Return energy, distance and object pixel as far as a file of Ptychodus knows them."""
    height = _positive(container, layout.PIXEL_HEIGHT)
    width = _positive(container, layout.PIXEL_WIDTH)
    return Optics(
        pixel_size_m=None if height is None or width is None else (height, width),
        photon_energy_eV=_positive(container, layout.ENERGY),
        detector_distance_m=_positive(container, layout.DISTANCE),
    )


def _positive(container: Container, key: str) -> float | None:
    """Return a scalar; 0 stands for not known in files of Ptychodus."""
    array = container.optional(key)
    if array is None:
        return None
    if array.size != 1 or array.dtype.kind not in 'iuf':
        raise ScanFileError(f'{key} has shape {array.shape}, {array.dtype}; expected one number.')
    value = float(array.item())
    return value if math.isfinite(value) and value > 0 else None
