"""Which files of a folder are trained on."""

from __future__ import annotations

from pathlib import Path

from ptychodus_torch_plugin.errors import InputNotFoundError
from ptychodus_torch_plugin.files.reading import DIFFRACTION_FILE, PRODUCT_FILE

TEST_FILE = 'test_data.npz'


def training_files(folder: Path) -> tuple[list[Path], Path | None]:
    """Return the scans in a folder to train on, and the one to test with, if there is one.

    Scans are NPZ files, as exported; `test_data.npz` is never trained on.  Without any, the
    product.h5 and diffraction.h5 of the folder are the scan, as in the batch mode of Ptychodus.

    Raises
    ------
    InputNotFoundError
        If there is none.
    """
    test = folder / TEST_FILE
    files = sorted(file for file in folder.glob('*.npz') if file != test)
    if not files and all((folder / name).is_file() for name in (PRODUCT_FILE, DIFFRACTION_FILE)):
        files = [folder]
    if not files:
        beside = f' besides {TEST_FILE}' if test.is_file() else ''
        raise InputNotFoundError(
            f'{folder} has no training scans{beside}; expected NPZ files, or {PRODUCT_FILE} and '
            f'{DIFFRACTION_FILE}. Export Training Data writes such files, one for each scan.'
        )
    return files, test if test.is_file() else None
