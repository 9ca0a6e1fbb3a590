"""Objects with their place on the sample, to lay one on another and compare them.

This module loads NumPy: commands import it inside their functions, so that `--help` does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptychodus_torch_plugin.errors import ScanFileError, ScanValueError
from ptychodus_torch_plugin.files.containers import errors_named, open_container
from ptychodus_torch_plugin.files.product import Product, read_product
from ptychodus_torch_plugin.files.reading import identify, read_scan
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.metrics import ObjectMetrics, compare_objects, scanned_region

if TYPE_CHECKING:
    from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, FloatArray, IndexArray
    from ptychodus_torch_plugin.backends.protocol import Reconstruction
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
    """

    name: str
    object_: ComplexArray
    region: BoolArray | None = None
    pixel_size_m: Point | None = None
    origin_m: Point | None = None
    origin_px: Point | None = None


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


def place(scan: ScanData, frame: ObjectFrame, region: BoolArray | None = None) -> PlacedObject:
    """Return an empty object on a frame of a scan; `stage_of` puts an object there."""
    pixel = scan.optics.pixel_size_m or (1.0, 1.0)
    y, x = frame.origin_px
    return PlacedObject(
        scan.name,
        np.ones(frame.shape, dtype=np.complex64),
        region,
        scan.optics.pixel_size_m,
        (scan.optics.origin_m[0] + y * pixel[0], scan.optics.origin_m[1] + x * pixel[1]),
        (float(y), float(x)),
    )


def region_of(scan: ScanData, result: Reconstruction) -> BoolArray:
    """Return (h, w) bool: where the beam of a reconstruction has been."""
    corners, _ = result.frame.corners(scan.positions_px, scan.n_px)
    return scanned_region(result.frame.shape, corners, scan.n_px, _intensity(result.probe))


def compare(placed: PlacedObject, truth: PlacedObject) -> ObjectMetrics:
    """Compare two objects where their canvases overlap, inside the scanned region."""
    return compare_objects(*common_part(placed, truth))


def compare_stages(
    scan: ScanData, result: Reconstruction, region: BoolArray, truth: PlacedObject
) -> dict[str, ObjectMetrics]:
    """Compare the object of each stage with the truth."""
    placed = place(scan, result.frame, region)
    return {
        stage: compare(replace(placed, object_=object_), truth)
        for stage, object_ in result.stages.items()
    }


def common_part(a: PlacedObject, b: PlacedObject) -> tuple[ComplexArray, ComplexArray, BoolArray]:
    """Crop two objects to the part of the sample that both canvases cover, to a whole pixel.

    Returns
    -------
    object_a, object_b : (h, w) complex64
        The common part.
    region : (h, w) bool
        Where the beam has been, as the first one knows, or else the second; else everywhere.

    Raises
    ------
    ScanValueError
        If their pixels differ, nobody knows where they lie, or they do not overlap.
    """
    _check_pixels(a, b)
    offset = _offset_px(a, b)
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
    if a.region is not None:
        region = a.region[ours]
    elif b.region is not None:
        region = b.region[theirs]
    else:
        region = np.ones(a.object_[ours].shape, dtype=np.bool_)
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


def _offset_px(a: PlacedObject, b: PlacedObject) -> IndexArray:
    """Return the pixel of `a` on which pixel [0, 0] of `b` lies, rounded."""
    same_unit = (a.pixel_size_m is None) == (b.pixel_size_m is None)
    if a.origin_m is not None and b.origin_m is not None and same_unit:
        pixel = np.asarray(a.pixel_size_m or (1.0, 1.0))
        offset = (np.asarray(b.origin_m) - np.asarray(a.origin_m)) / pixel
    elif a.origin_px is not None and b.origin_px is not None:
        offset = np.asarray(b.origin_px) - np.asarray(a.origin_px)
    else:
        raise ScanValueError(
            f'{a.name} and {b.name} do not say where they lie to each other: one counts from its '
            'scan, the other in metres; expected two products, or the scan that was reconstructed.'
        )
    return np.asarray(np.rint(offset), dtype=np.int64)


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
    )


def _region_of_product(product: Product) -> BoolArray | None:
    n_px = product.probe.shape[-1]
    if not len(product.positions_m):
        return None
    corners, _ = product.frame.corners(product.positions_px, n_px)
    return scanned_region(product.frame.shape, corners, n_px, _intensity(product.probe))


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


def _intensity(probe: ComplexArray) -> FloatArray:
    return np.asarray(np.sum(np.abs(probe) ** 2, axis=0))
