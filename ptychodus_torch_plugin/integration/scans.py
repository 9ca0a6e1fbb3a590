"""Between Ptychodus' products and the scans and reconstructions of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePositionSequence
from ptychodus.api.product import LossValue, Product
from ptychodus.api.reconstruct import ReconstructInput

from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray
from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.scan import ScanData

SAME_PIXEL = 1e-6
"""Relative difference up to which pixels of probe and object are the same."""


def scan_of(parameters: ReconstructInput) -> ScanData:
    """Return what Ptychodus hands to a reconstructor as a scan.

    Positions go onto the grid of the product's object with all their fractions of a pixel; bad
    pixels count nothing; of the probe, all incoherent modes of the first OPR state are taken; of a
    layered object, the product of the layers.

    Raises
    ------
    ScanValueError, ShapeError
        If probe or object are missing or have different pixels, the detector is not in the far
        field, or the arrays make no scan.
    """
    product = parameters.product
    _check_propagation(product)
    _check_pixels(product)
    geometry = product.object_.get_geometry()
    bad_pixels = np.asarray(parameters.bad_pixels, dtype=np.bool_)
    patterns = np.array(parameters.diffraction_patterns, dtype=np.float32)
    patterns[:, bad_pixels] = 0  # dead pixels may hold a marker
    y, x = (
        geometry.map_probe_positions_to_object_y_px(product.probe_positions),
        geometry.map_probe_positions_to_object_x_px(product.probe_positions),
    )
    pixel = (geometry.pixel_height_m, geometry.pixel_width_m)
    return ScanData(
        patterns=patterns,
        positions_px=np.stack([y, x], axis=1).astype(np.float64),
        probe=_sorted_modes(product),
        bad_pixels=bad_pixels,
        object_guess=np.asarray(product.object_.get_layers_flattened(), dtype=np.complex64),
        optics=Optics(
            pixel_size_m=pixel,
            photon_energy_eV=product.metadata.photon_energy_eV or None,
            detector_distance_m=product.metadata.detector_distance_m or None,
            origin_m=(
                geometry.center_y_m - pixel[0] * (geometry.height_px - 1) / 2,
                geometry.center_x_m - pixel[1] * (geometry.width_px - 1) / 2,
            ),
        ),
        name=product.metadata.name,
        provenance=('handed over by Ptychodus',),
    )


def product_of(
    before: Product,
    object_: ComplexArray,
    frame: ObjectFrame,
    probe: ComplexArray,
    losses: Sequence[tuple[int, float]],
    positions_px: PositionArray | None = None,
) -> Product:
    """Return a product with another object, probe and losses, and maybe other positions.

    Parameters
    ----------
    before
        The product that the scan was made of; its metadata stay, and its positions, unless there
        are others.
    object_ : (h, w) complex64
        The object on `frame`.
    frame
        Where it lies on the grid of the object of `before`.
    probe : (m, N, N) complex64
        Incoherent modes; the sum of their squares becomes the photon count of the product.
    losses
        Pairs (epoch, value).
    positions_px : (n, 2) float64, optional
        Positions [y, x] on the grid of the object of `before`, in the order of its own.
    """
    geometry = before.object_.get_geometry()
    row, column = frame.center_px()
    center = ObjectCenter(
        x_m=geometry.center_x_m + (column - (geometry.width_px - 1) / 2) * geometry.pixel_width_m,
        y_m=geometry.center_y_m + (row - (geometry.height_px - 1) / 2) * geometry.pixel_height_m,
    )
    energy = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
    return Product(
        metadata=replace(before.metadata, probe_photon_count=energy),
        probe_positions=before.probe_positions
        if positions_px is None
        else _positions_at(before, positions_px),
        probes=ProbeSequence(
            probe[np.newaxis].astype(np.complex128), None, before.probes.get_pixel_geometry()
        ),
        object_=Object(object_.astype(np.complex128), before.object_.get_pixel_geometry(), center),
        losses=[LossValue(epoch, value) for epoch, value in losses],
    )


def _positions_at(before: Product, positions_px: PositionArray) -> ProbePositionSequence:
    """Return the positions of a product, moved to places on the grid of its object."""
    geometry = before.object_.get_geometry()
    center = np.array([geometry.center_y_m, geometry.center_x_m])
    middle = (np.array([geometry.height_px, geometry.width_px]) - 1) / 2
    pixel = np.array([geometry.pixel_height_m, geometry.pixel_width_m])
    places = center + (positions_px - middle) * pixel
    return ProbePositionSequence(
        [
            replace(position, y_m=float(y), x_m=float(x))
            for position, (y, x) in zip(before.probe_positions, places, strict=True)
        ]
    )


def _check_propagation(product: Product) -> None:
    if not product.metadata.far_field:
        raise ScanValueError(
            f'{product.metadata.name}: the product says that the detector is in the near field; '
            "expected the far field, there is no other model here. Choose 'Far Field' in the "
            'properties of the product if that is right.'
        )


def _check_pixels(product: Product) -> None:
    try:
        pixels = (product.object_.get_pixel_geometry(), product.probes.get_pixel_geometry())
    except ValueError as error:
        raise ScanValueError(
            f'{product.metadata.name}: {error} Expected an object and a probe: build or load them '
            'first.'
        ) from error
    ours, theirs = ((each.height_m, each.width_m) for each in pixels)
    if min(*ours, *theirs) <= 0 or not np.allclose(ours, theirs, rtol=SAME_PIXEL, atol=0):
        raise ScanValueError(
            f'{product.metadata.name}: the pixels [height, width] of the object are '
            f'{_nanometres(pixels[0])} and those of the probe {_nanometres(pixels[1])}; expected '
            'the same, above 0. Build the object again, or resample it.'
        )


def _nanometres(pixel: PixelGeometry) -> str:
    return f'{pixel.height_m * 1e9:.6g} x {pixel.width_m * 1e9:.6g} nm'


def _sorted_modes(product: Product) -> ComplexArray:
    modes = np.asarray(product.probes.get_probe_no_opr().get_array(), dtype=np.complex64)
    energies = np.sum(np.abs(modes).astype(np.float64) ** 2, axis=(-2, -1))
    return modes[np.argsort(-energies, kind='stable')]
