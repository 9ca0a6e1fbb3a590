"""Output folders and files: found writable before work starts, whole or not there at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychodus_torch_plugin.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.arrays import BoolArray
    from ptychodus_torch_plugin.backends.protocol import EpochRecord, Reconstruction
    from ptychodus_torch_plugin.scan import ScanData

HDF5_SUFFIXES = ('.h5', '.hdf5')
NPZ_SUFFIX = '.npz'


@contextmanager
def output_folder(path: Path, *, writes: bool = True) -> Iterator[Path]:
    """Make a folder and see that it can be written to; leave none behind that stayed empty.

    A process that never `writes` leaves all that to the one that does.

    Raises
    ------
    OutputError
        If it cannot be made, or nothing can be written into it.
    """
    if not writes:
        yield path
        return
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        _make(path)
        _try_to_write(path)
        yield path
    finally:
        for folder in made:
            with suppress(OSError):  # it is not empty: something was finished in it
                folder.rmdir()


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f'cannot make the output folder {path} ({error.strerror or error}); expected a folder '
            'that exists or can be made. Name another one.'
        ) from error


def _try_to_write(path: Path) -> None:
    from ptychodus_torch_plugin.files.atomic import atomic_path

    # The temporary file never gets its name, for the way out is an exception.
    with suppress(_EnoughError), atomic_path(path / '.writable'):
        raise _EnoughError


class _EnoughError(Exception):
    """The file could be opened: nothing more is wanted of it."""


def check_scan_suffix(path: Path) -> None:
    """Raise `ConfigError` unless a scan can be written under this name."""
    if path.suffix.lower() not in (*HDF5_SUFFIXES, NPZ_SUFFIX):
        raise ConfigError(
            f'{path} ends in {path.suffix!r}; expected a name that ends in .h5 (scan file, which '
            'Ptychodus reads, too) or .npz (amplitudes, for PtychoPINN).'
        )


def write_scan_file(path: Path, scan: ScanData) -> None:
    """Write a scan in the format that the suffix names."""
    from ptychodus_torch_plugin.files.writing import write_ptychopinn_npz, write_scan

    check_scan_suffix(path)
    if path.suffix.lower() == NPZ_SUFFIX:
        write_ptychopinn_npz(path, scan)
    else:
        write_scan(path, scan)


def write_json(path: Path, values: Any) -> Path:
    """Write values as JSON, in one step; return `path`."""
    from ptychodus_torch_plugin.files.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(to_json(values) + '\n')
    return path


def to_json(values: Any) -> str:
    """Return strict JSON: `None` where a number is not finite, paths as text."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_training(
    folder: Path, history: Sequence[EpochRecord], *, best_epoch: int | None, stopped: str
) -> dict[str, Path]:
    """Write history.json and, if there was an epoch, training.png; return the files by name."""
    from ptychodus_torch_plugin.pictures import draw_training

    records = [
        {'epoch': r.epoch, 'loss': r.loss, 'validation_loss': r.validation_loss} for r in history
    ]
    values = {'best_epoch': best_epoch, 'stopped': stopped, 'epochs': records}
    files = {'history': write_json(folder / 'history.json', values)}
    if records:
        curves = {'training': [r.loss for r in history]}
        if any(r.validation_loss is not None for r in history):
            curves['held-out patterns'] = [
                math.nan if r.validation_loss is None else r.validation_loss for r in history
            ]
        files['training'] = folder / 'training.png'
        draw_training(files['training'], curves)
    return files


def write_reconstruction(
    folder: Path,
    scan: ScanData,
    result: Reconstruction,
    region: BoolArray,
    history: Sequence[EpochRecord],
) -> dict[str, Path]:
    """Write object.h5, object.npz and object.png; return them by name.

    Parameters
    ----------
    folder
        Where they go.
    scan, result
        What was reconstructed, and the object; positions that were refined are written.
    region : (h, w) bool
        Where the beam has been, for the picture.
    history
        Losses of the training, for the product.
    """
    from ptychodus_torch_plugin.files.product import write_object_npz, write_product
    from ptychodus_torch_plugin.pictures import draw_object

    if result.exposures is not None:
        scan = replace(scan, positions_px=result.exposures.positions_px)
    files = {key: folder / f'object.{key}' for key in ('h5', 'npz', 'png')}
    quality = _quality(result)
    write_product(
        files['h5'],
        object_=result.object_,
        frame=result.frame,
        scan=scan,
        probe=result.probe,
        losses=[
            (r.epoch, r.loss if r.validation_loss is None else r.validation_loss) for r in history
        ],
        name=scan.name,
        comments=f'Stage: {result.stage}. {quality}.',
    )
    write_object_npz(
        files['npz'],
        object_=result.object_,
        occupancy=result.occupancy,
        frame=result.frame,
        pixel_size_m=scan.optics.pixel_size_m,
        stage=result.stage,
        positions_px=scan.positions_px,
    )
    draw_object(
        files['png'],
        result.object_,
        occupancy=region,
        pixel_size_m=scan.optics.pixel_size_m,
        title=scan.name,
        stage=result.stage,
        subtitle=f'{scan.n_patterns} patterns, {quality}',
    )
    return {'product': files['h5'], 'arrays': files['npz'], 'picture': files['png']}


def _quality(result: Reconstruction) -> str:
    fitted = f'R {result.r_fitted[result.stage]:.3f} on the fitted patterns'
    if result.stage not in result.r_held_out:
        return fitted
    return f'{fitted}, {result.r_held_out[result.stage]:.3f} on held-out ones'
