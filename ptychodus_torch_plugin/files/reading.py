"""`read_scan`: any scan file that the package knows, as `ScanData`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ptychodus_torch_plugin.errors import InputNotFoundError, ScanFileError
from ptychodus_torch_plugin.files import layout
from ptychodus_torch_plugin.files.containers import Container, errors_named, open_container
from ptychodus_torch_plugin.files.conversion import to_scan
from ptychodus_torch_plugin.files.npz_layouts import read_ptychodus_npz, read_ptychopinn, read_tike
from ptychodus_torch_plugin.files.options import FileKind, ReadOptions
from ptychodus_torch_plugin.files.pairing import pair
from ptychodus_torch_plugin.files.product import Product, parse_product
from ptychodus_torch_plugin.files.raw import RawScan
from ptychodus_torch_plugin.files.training_layout import read_own, read_training
from ptychodus_torch_plugin.scan import ScanData

logger = logging.getLogger('ptychodus_torch_plugin.files')

DEFAULT_OPTIONS = ReadOptions()
PRODUCT_FILE = 'product.h5'
DIFFRACTION_FILE = 'diffraction.h5'
PART_SUFFIXES = ('.npz', '.npz.bz2')
"""Of files in a folder that hold a part of a scan each."""

_NPZ_READERS: dict[str, Callable[[Container], RawScan]] = {
    'ptychopinn': read_ptychopinn,
    'ptychodus-npz': read_ptychodus_npz,
    'tike': read_tike,
}
_HDF5_READERS: dict[str, Callable[[Container], RawScan]] = {
    'scan': read_own,
    'ptychodus-training': read_training,
}


def read_scan(
    path: str | Path,
    options: ReadOptions = DEFAULT_OPTIONS,
    *,
    diffraction_path: str | Path | None = None,
) -> ScanData:
    """Read a scan and bring it into the conventions of this package.

    Parameters
    ----------
    path
        An NPZ file (also compressed by bz2), an HDF5 file, a folder that holds the `product.h5`
        and `diffraction.h5` of Ptychodus, or one that holds the parts of a scan as NPZ files.
    options
        What the file does not say, or says wrongly.
    diffraction_path
        The assembled diffraction data that belong to a Ptychodus product.

    Returns
    -------
    ScanData
        Its `provenance` says what was inferred and why; so does the log.

    Raises
    ------
    InputNotFoundError
        If there is no such file.
    ScanFileError, ShapeError, ScanValueError
        If it is damaged, of an unknown layout or ambiguous, or its arrays or values make no sense.
    """
    path = Path(path)
    if diffraction_path is None and holds_parts(path):
        return _joined(path, options)
    raw = read_raw(path, options, diffraction_path=diffraction_path)
    with errors_named(path):
        scan = to_scan(raw, options)
    for line in scan.provenance:
        logger.info('%s: %s', path.name, line)
    return scan


def read_raw(
    path: Path, options: ReadOptions, *, diffraction_path: str | Path | None = None
) -> RawScan:
    """Read the arrays of a file as they are, with what was inferred about it in its notes."""
    source, diffraction = _product_and_diffraction(path, diffraction_path)
    with errors_named(source), open_container(source) as container:
        kind = _kind(container, options)
        found = parse_product(container) if kind == 'ptychodus-product' else _read(container, kind)
    if isinstance(found, Product):
        raw = _paired(found, source, diffraction, options)
    elif diffraction is not None:
        raise ScanFileError(
            f'{source}: the file is of kind {kind} and holds its own patterns; expected a '
            f'Ptychodus product to go with {diffraction}. Leave the diffraction file out.'
        )
    else:
        raw = found
    with errors_named(path):
        how = 'as asked for' if options.file_kind != 'auto' else 'told from its keys'
        name = raw.name if raw.tagged or isinstance(found, Product) else _stem(path)
        line = f'read from {path.resolve().name} as {kind} ({how})'
        # The provenance of our own file is older than this line, the notes of a reader follow it.
        before, after = (raw.notes, ()) if raw.tagged else ((), raw.notes)
        return replace(raw, name=name, notes=before).changed(line, *after)


def holds_parts(path: Path) -> bool:
    """Return whether `path` is a folder with the parts of a scan in NPZ files."""
    if not path.is_dir() or (path / PRODUCT_FILE).is_file():
        return False
    return any(is_part(each.name) for each in path.iterdir())


def is_part(name: str) -> bool:
    """Return whether a file of this name in a folder holds a part of a scan."""
    # Hidden files are on their way to another name.
    return name.endswith(PART_SUFFIXES) and not name.startswith('.')


def _joined(path: Path, options: ReadOptions) -> ScanData:
    from ptychodus_torch_plugin.files.growing import ScanSoFar, open_growing

    parts = ScanSoFar(open_growing(path, options))
    parts.read()
    return parts.scan()


def identify(path: str | Path) -> FileKind:
    """Return the kind of a scan file or folder, from its keys.

    Raises
    ------
    InputNotFoundError, ScanFileError
        If there is no such file, or it is none of the kinds of `ReadOptions.file_kind`.
    """
    source, _ = _product_and_diffraction(Path(path), None)
    with errors_named(source), open_container(source) as container:
        return identify_container(container)


def identify_container(container: Container) -> FileKind:
    """Return the kind of an open file; see `identify`."""
    keys = container.keys
    if container.layout == 'HDF5':
        own = container.attributes().get(layout.FORMAT_ATTRIBUTE) == layout.SCAN_FORMAT
        signs: dict[FileKind, bool] = {
            'scan': own,
            'ptychodus-training': not own and {layout.PATTERNS, layout.POSITION_X_PX} <= keys,
            'ptychodus-product': 'probe_position_x_m' in keys,
        }
    else:
        signs = {
            'tike': {'data', 'probe', 'scan'} <= keys,
            'ptychodus-npz': {'diff3d', 'bad_pixels'} <= keys,
            'ptychopinn': 'diff3d' in keys and 'bad_pixels' not in keys,
        }
    kinds = [kind for kind, fits in signs.items() if fits]
    if len(kinds) == 1:
        return kinds[0]
    if {'patterns', 'indexes'} <= keys:
        raise ScanFileError(
            'the file holds patterns without positions (assembled diffraction data of Ptychodus); '
            'expected the product as the scan and this file as its diffraction data.'
        )
    fitting = f'fits {" and ".join(kinds)}' if kinds else 'fits no known layout'
    raise ScanFileError(
        f'the {container.layout} file {fitting}; it has {container.describe_keys()}; expected the '
        f'keys of one of {", ".join(signs)}. Name the kind of file if you know it.'
    )


def _kind(container: Container, options: ReadOptions) -> FileKind:
    if options.file_kind == 'auto':
        return identify_container(container)
    wanted: FileKind = options.file_kind
    expected = 'NPZ' if wanted in _NPZ_READERS else 'HDF5'
    if container.layout != expected:
        raise ScanFileError(
            f'the file is {container.layout}, but file kind {wanted!r} was asked for; '
            f'expected {expected}. Leave the kind out to have it told from the keys.'
        )
    return wanted


def _read(container: Container, kind: FileKind) -> RawScan:
    return (_NPZ_READERS | _HDF5_READERS)[kind](container)


def _product_and_diffraction(
    path: Path, diffraction_path: str | Path | None
) -> tuple[Path, Path | None]:
    """Return the file to open first and the diffraction file, if there is one."""
    diffraction = None if diffraction_path is None else Path(diffraction_path)
    if not path.is_dir():
        return path, diffraction
    source, beside = path / PRODUCT_FILE, diffraction or path / DIFFRACTION_FILE
    missing = [str(file) for file in (source, beside) if not file.is_file()]
    if missing:
        raise InputNotFoundError(
            f'{path}: the folder lacks {" and ".join(missing)}; expected a folder with '
            f'{PRODUCT_FILE} and {DIFFRACTION_FILE} of Ptychodus, or a scan file.'
        )
    return source, beside


def _paired(
    product: Product, source: Path, diffraction: Path | None, options: ReadOptions
) -> RawScan:
    if diffraction is None:
        raise ScanFileError(
            f'{source}: a Ptychodus product holds no patterns; expected its assembled diffraction '
            f'data, too. Give the {DIFFRACTION_FILE} with it, or the folder that holds both.'
        )
    stated = product.optics.pixel_size_m
    wanted = options.pixel_size_m
    if stated and wanted and any(abs(side - wanted) > 1e-6 * side for side in stated):
        raise ScanFileError(
            f'{source}: the object pixel is {stated} m, but pixel_size_m = {wanted:g} was asked '
            'for; expected the same, for the positions are in metres. Correct it in Ptychodus.'
        )
    with errors_named(diffraction), open_container(diffraction) as container:
        return pair(product, container)


def _stem(path: Path) -> str:
    name = path.name.removesuffix('.bz2')
    return Path(name).stem
