"""Objects with their place on the sample, to lay one on another and compare them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptychodus_torch_plugin.arrays import (
    BoolArray,
    ComplexArray,
    FloatArray,
    IndexArray,
    PositionArray,
)
from ptychodus_torch_plugin.errors import ScanFileError, ScanValueError
from ptychodus_torch_plugin.files.containers import errors_named, open_container
from ptychodus_torch_plugin.files.product import Product, read_product
from ptychodus_torch_plugin.files.reading import identify, read_scan
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.regions import scanned_region
from ptychodus_torch_plugin.scan import ScanData

OBJECT_NPZ_KEYS = {'object', 'occupancy', 'origin_px', 'stage'}
PIXEL_TOLERANCE = 1e-3
"""Largest relative difference of two pixel sizes that are taken as one."""

Point = tuple[float, float]


@dataclass(frozen=True)
class PlacedObject:
    """An object and where its canvas lies.

    Attributes
    ----------
    name
        What to call it in a message.
    object_ : (h, w) complex64
        The object.
    region : (h, w) bool or None
        Where the beam has been, if known.
    pixel_size_m
        [height, width] of a pixel in metres, if known.
    origin_m
        Position [y, x] of pixel [0, 0] in metres (in pixels, where their size is not known);
        `None` if the file does not say.
    origin_px
        The same on the object grid of its scan; `None` if the file does not say.
    fit
        The rest of what was reconstructed, if known.
    """

    name: str
    object_: ComplexArray
    region: BoolArray | None = None
    pixel_size_m: Point | None = None
    origin_m: Point | None = None
    origin_px: Point | None = None
    fit: Fit | None = None


@dataclass(frozen=True)
class Fit:
    """What else belongs to a reconstructed object.

    Attributes
    ----------
    probe : (m, N, N) complex64
        Incoherent modes.
    positions_px : (k, 2) float64
        Patch centre [y, x] of each fitted pattern on the object's canvas.
    indexes : (k,) int64
        Which patterns of the scan these are (`ScanData.numbers`).
    intensities : (k,) float64 or None
        Intensity of the beam relative to its mean, where it was found for each pattern.
    """

    probe: ComplexArray
    positions_px: PositionArray
    indexes: IndexArray
    intensities: PositionArray | None = None


def true_object(path: Path) -> PlacedObject:
    """Return the object of a scan file, of a product or of an object.npz."""
    if _is_object_npz(path):
        return _from_npz(path)
    if path.is_file() and identify(path) == 'ptychodus-product':
        return _from_product(path)
    return object_of_scan(read_scan(path), str(path))


def reconstructed_object(path: Path) -> PlacedObject:
    """Return the object of a product (object.h5) or of an object.npz, and where it was scanned."""
    if _is_object_npz(path):
        return _from_npz(path)
    return _from_product(path)


def object_of_scan(scan: ScanData, name: str) -> PlacedObject:
    """Return the object that a scan carries; raise `ScanFileError` if it has none."""
    if scan.object_guess is None:
        raise ScanFileError(
            f'{name}: the scan holds no object; expected one to compare with. Simulated scans hold '
            'the true object, and so does any product.'
        )
    return PlacedObject(
        name,
        scan.object_guess,
        pixel_size_m=scan.optics.pixel_size_m,
        origin_m=scan.optics.origin_m,
        origin_px=(0.0, 0.0),
    )


def place(
    scan: ScanData,
    frame: ObjectFrame,
    region: BoolArray | None = None,
    object_: ComplexArray | None = None,
    fit: Fit | None = None,
) -> PlacedObject:
    """Return an object (h, w) on a frame of a scan; without one, an empty object."""
    pixel = scan.optics.pixel_size_m or (1.0, 1.0)
    y, x = frame.origin_px
    return PlacedObject(
        scan.name,
        np.ones(frame.shape, dtype=np.complex64) if object_ is None else object_,
        region,
        scan.optics.pixel_size_m,
        (scan.optics.origin_m[0] + y * pixel[0], scan.optics.origin_m[1] + x * pixel[1]),
        (float(y), float(x)),
        fit,
    )


def region_of_probe(
    frame: ObjectFrame, positions_px: PositionArray, probe: ComplexArray
) -> BoolArray:
    """Return (h, w) bool: where a probe (m, N, N) has been, on a frame of its positions' grid."""
    n_px = probe.shape[-1]
    corners, _ = frame.corners(positions_px, n_px)
    intensity: FloatArray = np.sum(np.abs(probe) ** 2, axis=0)
    return scanned_region(frame.shape, corners, n_px, intensity)


def common_part(a: PlacedObject, b: PlacedObject) -> tuple[ComplexArray, ComplexArray, BoolArray]:
    """Crop two objects to the part of the sample that both canvases cover, to a whole pixel.

    Returns
    -------
    object_a, object_b : (h, w) complex64
        The common part.
    region : (h, w) bool
        Where the beam has been in each whose region is known; else everywhere.

    Raises
    ------
    ScanValueError
        If their pixels differ, nobody knows where they lie, or they do not overlap.
    """
    _check_pixels(a, b)
    offset = np.rint(offset_px(a, b)).astype(np.int64)
    shapes = np.asarray(a.object_.shape), np.asarray(b.object_.shape)
    first = np.maximum(offset, 0)
    last = np.minimum(shapes[0], offset + shapes[1])
    if (last <= first).any():
        raise ScanValueError(
            f'{a.name} and {b.name} do not overlap: the canvas of the second, {b.object_.shape} '
            f'px, starts at pixel {offset.tolist()} of the first, {a.object_.shape} px; expected '
            'objects of the same place on the sample.'
        )
    ours = tuple(slice(low, high) for low, high in zip(first, last, strict=True))
    theirs = tuple(
        slice(low, high) for low, high in zip(first - offset, last - offset, strict=True)
    )
    region = np.ones(a.object_[ours].shape, dtype=np.bool_)
    for each, part in ((a, ours), (b, theirs)):
        if each.region is not None:
            region &= each.region[part]
    if not region.any():
        raise ScanValueError(
            f'the canvases of {a.name} and {b.name} overlap, but the beam has scanned no place of '
            'both; expected objects of the same place on the sample.'
        )
    return a.object_[ours], b.object_[theirs], region


def _check_pixels(a: PlacedObject, b: PlacedObject) -> None:
    if a.pixel_size_m is None or b.pixel_size_m is None:
        return
    ratios = np.asarray(a.pixel_size_m) / np.asarray(b.pixel_size_m)
    if (np.abs(ratios - 1) > PIXEL_TOLERANCE).any():
        raise ScanValueError(
            f'the object pixel of {a.name} is {a.pixel_size_m} m and that of {b.name} is '
            f'{b.pixel_size_m} m; expected the same. Was the detector of one of them cropped?'
        )


def offset_px(a: PlacedObject, b: PlacedObject) -> PositionArray:
    """Return where [y, x] on the canvas of `a` pixel [0, 0] of `b` lies.

    Raises `ScanValueError` if nobody knows.
    """
    same_unit = (a.pixel_size_m is None) == (b.pixel_size_m is None)
    if a.origin_m is not None and b.origin_m is not None and same_unit:
        pixel = np.asarray(a.pixel_size_m or (1.0, 1.0))
        return np.asarray((np.asarray(b.origin_m) - np.asarray(a.origin_m)) / pixel)
    if a.origin_px is not None and b.origin_px is not None:
        return np.asarray(np.asarray(b.origin_px) - np.asarray(a.origin_px))
    raise ScanValueError(
        f'{a.name} and {b.name} do not say where they lie to each other: one counts from its '
        'scan, the other in metres; expected two products, or the scan that was reconstructed.'
    )


def positions_on(placed: PlacedObject, scan: ScanData) -> PositionArray:
    """Return the patch centres (n, 2) that a scan states on the canvas of an object."""
    grid = place(scan, ObjectFrame((0, 0), (1, 1)))
    _check_pixels(placed, grid)
    return offset_px(placed, grid) + scan.positions_px


def _is_object_npz(path: Path) -> bool:
    if path.is_dir():
        return False
    with errors_named(path), open_container(path) as container:
        return container.layout == 'NPZ' and container.keys >= OBJECT_NPZ_KEYS


def _from_product(path: Path) -> PlacedObject:
    product = read_product(path)
    with errors_named(path):
        region = _region_of_product(product)
    return PlacedObject(
        str(path),
        product.object_,
        region,
        product.optics.pixel_size_m,
        product.optics.origin_m,
        fit=Fit(product.probe, product.positions_px, product.indexes),
    )


def _region_of_product(product: Product) -> BoolArray | None:
    if not len(product.positions_m):
        return None
    return region_of_probe(product.frame, product.positions_px, product.probe)


def _from_npz(path: Path) -> PlacedObject:
    with errors_named(path), open_container(path) as container:
        object_ = container.array('object').astype(np.complex64)
        pixel = container.array('pixel_size_m')
        y, x = (float(value) for value in container.array('origin_px'))
        known = bool(np.isfinite(pixel).all())
        return PlacedObject(
            str(path),
            object_,
            _lit(container.array('occupancy')),
            (float(pixel[0]), float(pixel[1])) if known else None,
            origin_px=(y, x),
        )


def _lit(illumination: FloatArray) -> BoolArray:
    """Return `scanned_region` of photons per pixel (h, w): one patch as large as the canvas."""
    side = max(illumination.shape)
    square = np.zeros((side, side), dtype=np.float32)
    inside = tuple(slice(size) for size in illumination.shape)
    square[inside] = illumination
    corner = np.zeros((1, 2), dtype=np.int64)
    return scanned_region((side, side), corner, side, square)[inside]
