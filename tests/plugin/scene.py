"""A small simulated scan in the files and the objects of Ptychodus."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ptychodus.api.io import load_diffraction_data, load_product
from ptychodus.api.reconstruct import ReconstructInput, prepare_reconstruct_input

from ptychodus_torch_plugin.files.product import write_product
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.scan import ScanData
from tests.parity.scenes import simulated_scan

ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 8000.0, 2.0, 75e-6
WAVELENGTH_M = 1.239841984e-6 / ENERGY_EV
FIRST_INDEX = 3
"""Ptychodus counts positions from anywhere."""


def measured(n_px: int = 32, **changes: Any) -> ScanData:
    """Return a scan with bad pixels, two unequal modes, and known optics off the origin."""
    scan = simulated_scan(**({'N': n_px, 'probe_modes': 2} | changes))
    bad_pixels = np.zeros((n_px, n_px), np.bool_)
    bad_pixels[3, 5] = bad_pixels[n_px // 2 + 1, n_px // 2 - 2] = True
    patterns = scan.patterns.copy()
    patterns[:, bad_pixels] = 60000
    pixel_m = WAVELENGTH_M * DISTANCE_M / (n_px * DETECTOR_PIXEL_M)
    optics = Optics((pixel_m, pixel_m), ENERGY_EV, DISTANCE_M, (3.7e-6, -1.9e-6))
    return replace(scan, patterns=patterns, bad_pixels=bad_pixels, optics=optics)


def write_files(folder: Path, scan: ScanData) -> None:
    """Write product.h5, whose object is a first guess, and diffraction.h5."""
    folder.mkdir(parents=True, exist_ok=True)
    write_product(
        folder / 'product.h5',
        object_=np.ones(scan.frame.shape, np.complex64),
        frame=scan.frame,
        scan=scan,
        probe=scan.probe,
        name='measured',
    )
    with h5py.File(folder / 'product.h5', 'r+') as file:
        file['probe_position_indexes'][:] += FIRST_INDEX
    with h5py.File(folder / 'diffraction.h5', 'w') as file:
        file['patterns'] = scan.patterns.astype(np.uint16)
        for side in ('height', 'width'):
            file['patterns'].attrs[f'detector_pixel_{side}_m'] = DETECTOR_PIXEL_M
        file['indexes'] = np.arange(scan.n_patterns) + FIRST_INDEX
        file['bad_pixels'] = scan.bad_pixels


def read_files(folder: Path) -> ReconstructInput:
    """Return what Ptychodus hands to a reconstructor."""
    return prepare_reconstruct_input(
        load_diffraction_data(folder / 'diffraction.h5'), load_product(folder / 'product.h5')
    )
