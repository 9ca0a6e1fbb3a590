"""What `inspect` finds in a file, as JSON values.

This module loads NumPy: `inspect` imports it inside its function, so that `--help` does not.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.bundle.archive import read_manifest
from ptychodus_torch_plugin.bundle.container import FILE_NAMES
from ptychodus_torch_plugin.bundle.limits import WEIGHTS
from ptychodus_torch_plugin.bundle.shipped import is_shipped
from ptychodus_torch_plugin.cli.model_conversion import describe_model
from ptychodus_torch_plugin.errors import ScanFileError
from ptychodus_torch_plugin.files.array_headers import Header, array_headers
from ptychodus_torch_plugin.files.containers import Container, errors_named, open_container
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.product import read_product
from ptychodus_torch_plugin.files.reading import identify, read_scan
from ptychodus_torch_plugin.foreign.archive import is_archive
from ptychodus_torch_plugin.foreign.conversion import convert_archive
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.pattern_store import blocks
from ptychodus_torch_plugin.physics import Complex
from ptychodus_torch_plugin.placed_objects import OBJECT_NPZ_KEYS
from ptychodus_torch_plugin.probes import center_px
from ptychodus_torch_plugin.scan import ScanData

BEAM_ENERGY = 0.9
"""The beam's diameter, for the overlap, holds this share of its energy."""


def describe(path: Path, options: ReadOptions, diffraction: Path | None) -> dict[str, Any]:
    """Return what a file or folder holds; `PluginError` if nobody can tell."""
    if is_archive(path):
        return {'kind': 'ptychopinn-model', **describe_model(convert_archive(path))}
    if _is_bundle(path):
        return _bundle(path)
    if _is_object_npz(path):
        return _object(path)
    if path.is_file() and diffraction is None and options.file_kind == 'auto':
        kind = identify(path)
        if kind == 'ptychodus-product':
            return _product(path)
    return _scan(path, options, diffraction)


def stored_arrays(path: Path) -> dict[str, str]:
    """Return shape and dtype of every array of an NPZ or HDF5 file; none if it is neither."""
    return {key: str(header) for key, header in array_headers(path).items()}


def _is_bundle(path: Path) -> bool:
    """Whether a path is meant as a bundle: a zip archive without NumPy arrays, or its folder."""
    if is_shipped(path):
        return True
    if path.is_dir():
        return any((path / name).exists() for name in FILE_NAMES)
    if path.suffix == '.zip':
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return bool(names) and not any(name.endswith('.npy') for name in names)


def _is_object_npz(path: Path) -> bool:
    if not path.is_file():
        return False
    with errors_named(path), open_container(path) as container:
        return container.layout == 'NPZ' and container.keys >= OBJECT_NPZ_KEYS


def _bundle(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    shapes = manifest.shapes(WEIGHTS)
    return {
        'kind': 'bundle',
        'weights': {
            'tensors': len(shapes),
            'numbers': sum(int(np.prod(shape)) for shape in shapes.values()),
        },
        'manifest': manifest.model_dump(mode='json'),
    }


def _product(path: Path) -> dict[str, Any]:
    product = read_product(path)
    return {
        'kind': 'product',
        'name': product.name,
        'object': list(product.object_.shape),
        'probe': _probe(product.probe),
        'positions': len(product.positions_m),
        'losses': len(product.losses),
        'optics': _optics(product.optics),
    }


def _object(path: Path) -> dict[str, Any]:
    headers = array_headers(path)
    with errors_named(path), open_container(path) as container:
        return {
            'kind': 'object',
            'object': list(_shape(headers, 'object', 2)),
            'origin_px': _pair(container, headers, 'origin_px'),
            'pixel_size_m': _pair(container, headers, 'pixel_size_m'),
            'positions': _shape(headers, 'positions_px', 2)[0],
        }


def _shape(headers: Mapping[str, Header], key: str, n_axes: int) -> tuple[int, ...]:
    header = headers.get(key)
    if header is None or len(header.shape) != n_axes:
        raise ScanFileError(
            f'key {key!r} is {header or "missing"}; expected an array of numbers with {n_axes} '
            'axes. Write the object again.'
        )
    return header.shape


def _pair(container: Container, headers: Mapping[str, Header], key: str) -> list[float]:
    shape = _shape(headers, key, 1)
    if shape != (2,):
        raise ScanFileError(
            f'key {key!r} has shape {shape}; expected (2,), for y and x. Write the object again.'
        )
    return list(container.array(key).tolist())


def _scan(path: Path, options: ReadOptions, diffraction: Path | None) -> dict[str, Any]:
    scan = read_scan(path, options, diffraction_path=diffraction)
    guess = scan.object_guess
    return {
        'kind': 'scan',
        'file_kind': identify(path) if options.file_kind == 'auto' else options.file_kind,
        'name': scan.name,
        'patterns': {'number': scan.n_patterns, 'N': scan.n_px},
        'counts': _counts(scan),
        'bad_pixels': int(scan.bad_pixels.sum()),
        'positions': _positions(scan),
        'probe': _probe(scan.probe),
        'overlap': overlap(scan),
        'canvas': {'shape': list(scan.frame.shape), 'origin_px': list(scan.frame.origin_px)},
        'object': None if guess is None else list(guess.shape),
        'optics': _optics(scan.optics),
        'decided': list(scan.provenance),
        'arrays': stored_arrays(path),
        'sha256': scan.fingerprint(),
    }


def _counts(scan: ScanData) -> dict[str, Any]:
    totals = np.concatenate(
        [
            block[:, scan.valid_pixels].sum(axis=1, dtype=np.float64)
            for _, block in blocks(scan.patterns)
        ]
    )
    return {
        'mean_total': float(totals.mean()),
        'lowest_total': float(totals.min()),
        'highest_total': float(totals.max()),
        'highest_pixel': scan.summary.highest,
        'empty_patterns': int((totals == 0).sum()),
        'whole': scan.summary.whole,
    }


def _positions(scan: ScanData) -> dict[str, Any]:
    return {
        'lowest_px': scan.positions_px.min(axis=0).tolist(),
        'highest_px': scan.positions_px.max(axis=0).tolist(),
        'step_px': typical_step_px(scan),
    }


def _probe(probe: Complex) -> dict[str, Any]:
    energy = np.square(np.abs(probe)).sum(axis=(1, 2), dtype=np.float64)
    return {
        'modes': len(probe),
        'shares': [round(float(share), 4) for share in energy / energy.sum()],
        'diameter_px': beam_diameter_px(probe),
    }


def _optics(optics: Optics) -> dict[str, Any]:
    return {
        'pixel_size_m': None if optics.pixel_size_m is None else list(optics.pixel_size_m),
        'photon_energy_eV': optics.photon_energy_eV,
        'detector_distance_m': optics.detector_distance_m,
    }


def overlap(scan: ScanData) -> float | None:
    """Return 1 - step / diameter of the beam, at least 0: how much neighbours share."""
    step = typical_step_px(scan)
    return None if step is None else max(0.0, 1 - step / beam_diameter_px(scan.probe))


def typical_step_px(scan: ScanData) -> float | None:
    """Return the median over positions of the mean distance to their four nearest neighbours.

    Of a raster it is the step; `None` for a single position.
    """
    from scipy.spatial import cKDTree

    neighbours = min(4, scan.n_patterns - 1)
    if neighbours == 0:
        return None
    found, _ = cKDTree(scan.positions_px).query(scan.positions_px, k=neighbours + 1)
    return float(np.median(np.asarray(found)[:, 1:].mean(axis=1)))


def beam_diameter_px(probe: Complex) -> float:
    """Return the diameter of the circle about the beam's centre that holds `BEAM_ENERGY` of it."""
    intensity = np.sum(np.abs(probe) ** 2, axis=0, dtype=np.float64).ravel()
    center = np.asarray(center_px(probe))[:, None]
    square_radius = np.sum((np.indices(probe.shape[1:]).reshape(2, -1) - center) ** 2, axis=0)
    order = np.argsort(square_radius)
    inside = np.cumsum(intensity[order])
    last = order[int(np.searchsorted(inside, BEAM_ENERGY * inside[-1]))]
    return 2 * float(np.sqrt(square_radius[last]))
