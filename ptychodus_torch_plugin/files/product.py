"""Ptychodus products (HDF5): the object, its probe and the positions, in metres.

Every product of ours can be opened in Ptychodus, and maps its positions onto the same points of the
sample as the scan it came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import (
    ComplexArray,
    IndexArray,
    PositionArray,
    check_array,
    check_finite,
)
from ptychodus_torch_plugin.errors import ScanFileError, ShapeError
from ptychodus_torch_plugin.files import layout
from ptychodus_torch_plugin.files.atomic import atomic_path
from ptychodus_torch_plugin.files.containers import (
    Container,
    errors_named,
    open_container,
)
from ptychodus_torch_plugin.files.damage import as_text
from ptychodus_torch_plugin.files.raw import as_complex64, stacked_positions
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.scan import ScanData

_POSITION_KEYS = ('probe_position_y_m', 'probe_position_x_m')
_UNKNOWN_PIXEL_COMMENT = (
    'The pixel size is not known: the unit of every length in the object plane is the pixel.'
)


@dataclass(frozen=True)
class Product:
    """What a Ptychodus product says about a sample.

    Attributes
    ----------
    object_ : (h, w) complex64
        The first layer of the object.
    frame
        Grid of the object: origin [0, 0] and its shape.
    probe : (m, N, N) complex64
        Incoherent modes at the first orthogonal probe relaxation (OPR) index.
    positions_m : (n, 2) float64
        Patch centres [y, x] in metres.
    indexes : (n,) int64
        Scan index of each position, which pairs it with a pattern; one may occur several times.
    optics
        As of a scan; `origin_m` is the position of the object's pixel [0, 0].
    losses
        Pairs (epoch, value).
    name
        As stored.
    """

    object_: ComplexArray
    frame: ObjectFrame
    probe: ComplexArray
    positions_m: PositionArray
    indexes: IndexArray
    optics: Optics
    losses: tuple[tuple[int, float], ...] = ()
    name: str = 'product'

    @property
    def positions_px(self) -> PositionArray:
        """Patch centres (n, 2) [y, x] on the grid of the object."""
        pixel = np.asarray(self.optics.pixel_size_m or (1.0, 1.0))
        with np.errstate(over='ignore', invalid='ignore'):
            result: PositionArray = (self.positions_m - np.asarray(self.optics.origin_m)) / pixel
        return result


def read_product(path: str | Path) -> Product:
    """Read a Ptychodus product in HDF5, written by Ptychodus or by `write_product`.

    Raises
    ------
    InputNotFoundError, ScanFileError, ShapeError, ScanValueError
        If there is no such file, or it is damaged or no product.
    """
    path = Path(path)
    with errors_named(path), open_container(path) as container:
        return parse_product(container)


def parse_product(container: Container) -> Product:
    """Read a product from an open file; see `read_product`."""
    layers = container.array('object')
    if layers.ndim not in (2, 3) or (layers.ndim == 3 and len(layers) == 0):
        raise ShapeError(f'object has shape {layers.shape}; expected (layers, h, w).')
    first_layer = as_complex64(layers if layers.ndim == 2 else layers[0])
    check_finite(first_layer, name='object')
    shape = (int(first_layer.shape[0]), int(first_layer.shape[1]))
    probe = _first_opr_modes(container.array('probe'))
    y, x = (container.array(key) for key in _POSITION_KEYS)
    positions = stacked_positions(y, x, _POSITION_KEYS)
    indexes = check_array(
        container.array('probe_position_indexes'),
        'n',
        name='probe_position_indexes',
        sizes={'n': len(positions)},
    )
    return Product(
        object_=first_layer,
        frame=ObjectFrame((0, 0), shape),
        probe=probe,
        positions_m=positions,
        indexes=indexes.astype(np.int64),
        optics=_optics(container, shape),
        losses=_losses(container),
        name=as_text(container.attributes().get('name', 'product')),
    )


def _first_opr_modes(probe: NDArray[Any]) -> ComplexArray:
    if probe.ndim == 4 and len(probe) > 0:
        probe = probe[0]
    elif probe.ndim == 2:
        probe = probe[np.newaxis]
    check_array(probe, 'm N N', name='probe')
    return as_complex64(probe)


def _optics(container: Container, shape: tuple[int, int]) -> Optics:
    of_object, of_file = container.attributes('object'), container.attributes()
    pixel = tuple(_number(of_object, f'pixel_{axis}_m') for axis in ('height', 'width'))
    center = tuple(_number(of_object, f'center_{axis}_m') for axis in 'yx')
    if not (pixel[0] > 0 and pixel[1] > 0):
        raise ScanFileError(
            f'object has pixel_height_m {pixel[0]:g} and pixel_width_m {pixel[1]:g}; expected '
            'sizes above 0, for the positions are in metres. Set the geometry in Ptychodus.'
        )
    unknown_pixel = bool(of_file.get(layout.UNKNOWN_PIXEL_ATTRIBUTE, False))
    energy_key = 'photon_energy_eV' if 'photon_energy_eV' in of_file else 'probe_energy_eV'
    return Optics(
        pixel_size_m=None if unknown_pixel else (pixel[0], pixel[1]),
        photon_energy_eV=_known(of_file, energy_key),
        detector_distance_m=_known(of_file, 'detector_object_distance_m'),
        # The centre of an axis of N pixels is (N - 1) / 2.
        origin_m=(
            center[0] - pixel[0] * (shape[0] - 1) / 2,
            center[1] - pixel[1] * (shape[1] - 1) / 2,
        ),
    )


def _known(attributes: Mapping[str, Any], key: str) -> float | None:
    """Return an attribute, or `None` where it is 0, which stands for not known."""
    number = _number(attributes, key)
    return number if number > 0 else None


def _number(attributes: Mapping[str, Any], key: str) -> float:
    value = attributes.get(key)
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        found = 'missing' if value is None else repr(value)
        raise ScanFileError(f'attribute {key!r} is {found}; expected a finite number.')
    return number


def _losses(container: Container) -> tuple[tuple[int, float], ...]:
    epochs, values = container.optional('loss_epochs'), container.optional('loss_values')
    if epochs is None or values is None:
        return ()
    check_array(values, 'n', name='loss_values', sizes={'n': epochs.size})
    return tuple((int(e), float(v)) for e, v in zip(epochs.ravel(), values, strict=True))


def write_product(
    path: str | Path,
    *,
    object_: ComplexArray,
    frame: ObjectFrame,
    scan: ScanData,
    probe: ComplexArray,
    losses: Sequence[tuple[int, float]] = (),
    name: str,
    comments: str = '',
) -> None:
    """Write a product that Ptychodus 1.7 opens.

    Parameters
    ----------
    path
        Where to write (HDF5).
    object_ : (h, w) complex64
        The object on `frame`.
    frame
        Where the object lies on the object grid of `scan`.
    scan
        Positions, their numbers, optics and mean counts.  What its optics do not know is written as
        0, and an unknown pixel size as 1 m with a comment that says so.
    probe : (m, N, N) complex64
        Incoherent modes, on the scale they shall have in Ptychodus (sum of squares = photons).
    losses
        Pairs (epoch, value) for the loss plot.
    name, comments
        As shown in Ptychodus.

    Raises
    ------
    ShapeError
        If the object does not have the shape of `frame`, or the probe not that of the patterns.
    OutputError
        If the file cannot be written; whatever stood there before is untouched.
    """
    sizes = {'h': frame.shape[0], 'w': frame.shape[1]}
    check_array(object_, 'h w', name='object_', dtype=np.complex64, sizes=sizes)
    check_array(probe, 'm N N', name='probe', dtype=np.complex64, sizes={'N': scan.n_px})
    pixel = np.asarray(scan.optics.pixel_size_m or (1.0, 1.0))
    origin = np.asarray(scan.optics.origin_m)
    if scan.optics.pixel_size_m is None:
        comments = f'{comments}\n{_UNKNOWN_PIXEL_COMMENT}' if comments else _UNKNOWN_PIXEL_COMMENT
    with atomic_path(path) as temporary, h5py.File(temporary, 'w') as file:
        _write_metadata(file, scan, name, comments)
        _write_positions(file, origin + scan.positions_px * pixel, scan.numbers)
        _write_image(file, 'probe', probe[np.newaxis].astype(np.complex128), pixel)
        _write_image(file, 'object', object_[np.newaxis].astype(np.complex128), pixel)
        center = origin + np.asarray(frame.center_px()) * pixel
        file['object'].attrs['center_y_m'] = center[0]
        file['object'].attrs['center_x_m'] = center[1]
        file['object_layer_spacing_m'] = np.zeros(0)
        file['loss_epochs'] = np.array([epoch for epoch, _ in losses], dtype=np.int64)
        file['loss_values'] = np.array([value for _, value in losses], dtype=np.float64)


def _write_metadata(file: Any, scan: ScanData, name: str, comments: str) -> None:
    file.attrs['name'] = name
    file.attrs['comments'] = comments
    file.attrs['detector_object_distance_m'] = scan.optics.detector_distance_m or 0.0
    file.attrs['photon_energy_eV'] = scan.optics.photon_energy_eV or 0.0
    file.attrs['probe_photon_count'] = scan.mean_signal()
    for key in ('focus_object_distance_m', 'exposure_time_s', 'mass_attenuation_m2_per_kg'):
        file.attrs[key] = 0.0
    for key in ('tomography_angle_deg', 'tilt_angle_deg'):
        file.attrs[key] = 0.0
    file.attrs['far_field'] = True
    if scan.optics.pixel_size_m is None:
        file.attrs[layout.UNKNOWN_PIXEL_ATTRIBUTE] = True


def _write_positions(file: Any, positions_m: PositionArray, indexes: IndexArray) -> None:
    file['probe_position_indexes'] = indexes
    for axis, key in enumerate(_POSITION_KEYS):
        file[key] = positions_m[:, axis]


def _write_image(file: Any, key: str, array: NDArray[Any], pixel: NDArray[np.float64]) -> None:
    file[key] = array
    file[key].attrs['pixel_height_m'] = pixel[0]
    file[key].attrs['pixel_width_m'] = pixel[1]


def write_object_npz(
    path: str | Path,
    *,
    object_: ComplexArray,
    occupancy: NDArray[Any],
    frame: ObjectFrame,
    pixel_size_m: tuple[float, float] | None,
    stage: str,
    positions_px: PositionArray,
) -> None:
    """Write an object as plain arrays, for programs that know NumPy only.

    Keys: `object` (h, w) complex64, `occupancy` (h, w), `origin_px` (2,) int64 [y, x] of the
    object's pixel [0, 0] on the object grid, `positions_px` (n, 2) float64 on the same grid,
    `pixel_size_m` (2,) float64 [height, width] (NaN if not known) and `stage`, a string.

    Raises
    ------
    ShapeError
        If the arrays do not have the shape of `frame`.
    OutputError
        If the file cannot be written; whatever stood there before is untouched.
    """
    sizes = {'h': frame.shape[0], 'w': frame.shape[1]}
    check_array(object_, 'h w', name='object_', dtype=np.complex64, sizes=sizes)
    check_array(occupancy, 'h w', name='occupancy', sizes=sizes)
    check_array(positions_px, 'n 2', name='positions_px')
    with atomic_path(path) as temporary, temporary.open('wb') as stream:
        np.savez(
            stream,
            object=object_,
            occupancy=occupancy,
            origin_px=np.asarray(frame.origin_px, dtype=np.int64),
            positions_px=np.asarray(positions_px, dtype=np.float64),
            pixel_size_m=np.asarray(pixel_size_m or (np.nan, np.nan), dtype=np.float64),
            stage=np.asarray(stage),
        )
