"""From the options of the command line to the settings of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychodus_torch_plugin.cli.options import given
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.errors import ConfigError

ARCHITECTURE, GRIDSIZE = 'model.architecture', 'model.gridsize'

if TYPE_CHECKING:
    from ptychodus_torch_plugin.cli.progress import Display
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.placed_objects import PlacedObject
    from ptychodus_torch_plugin.scan import ScanData


def read_scans(paths: Sequence[Path], reading: ReadingOptions, display: Display) -> list[ScanData]:
    """Read all scans with the same options; refuse two sizes of pattern."""
    if reading.diffraction is not None and len(paths) > 1:
        raise ConfigError(
            f'--diffraction {reading.diffraction} belongs to one scan, but {len(paths)} were '
            'given; expected one, or folders that hold product.h5 and diffraction.h5 each.'
        )
    scans = [read_one(path, reading, display) for path in paths]
    for path, scan in zip(paths, scans, strict=True):
        if scan.n_px != scans[0].n_px:
            raise ConfigError(
                f'{path} has patterns of {scan.n_px} px and {paths[0]} of {scans[0].n_px} px; '
                'expected one size for one model. Crop the detector with --crop.'
            )
    return scans


def read_one(path: Path, reading: ReadingOptions, display: Display) -> ScanData:
    """Read one scan as the options say."""
    with display.busy(f'Reading {path}'):
        from ptychodus_torch_plugin.files.options import ReadOptions
        from ptychodus_torch_plugin.files.reading import read_scan

        options = ReadOptions(**given(reading))
        return read_scan(path, options, diffraction_path=reading.diffraction)


def read_truth(path: Path, scan: ScanData, display: Display) -> PlacedObject:
    """Return the true object; refuse one of another place or pixel before any work."""
    with display.busy(f'Reading {path.name}'):
        from ptychodus_torch_plugin.placed_objects import common_part, place, true_object

        truth = true_object(path)
        common_part(place(scan, scan.frame), truth)
        return truth


def run_config(
    chosen: Mapping[str, Any], *, base: RunConfig | None = None, n_px: int | None = None
) -> RunConfig:
    """Return the settings of a run: the file's, overridden by the options given.

    Parameters
    ----------
    chosen
        Values by the path of the setting, e.g. ``{'training.epochs': 3}``; `None` changes nothing.
    base
        What the run file says; the defaults without one.
    n_px
        Side N of the patterns, for a model whose N the file does not state.

    Raises
    ------
    ConfigError
        That lists every fault; or names the first setting of the training that contradicts the
        model.
    """
    from ptychodus_torch_plugin.config import RunConfig

    values = {} if base is None else base.model_dump(mode='json', exclude_unset=True)
    for path, value in chosen.items():
        if value is not None:
            *sections, name = path.split('.')
            inner = values
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[name] = value
    if n_px is not None:
        values.setdefault('model', {}).setdefault('N', n_px)
    run = RunConfig.parse(values, source='the settings of the run')
    run.training.for_model(run.model)
    return run


def with_implied_architecture(
    chosen: Mapping[str, Any], display: Display, *, base: RunConfig | None = None
) -> dict[str, Any]:
    """Return the settings with 'cnn' for a gridsize without an architecture, and say so."""
    named = base is not None and 'architecture' in base.model.model_fields_set
    if GRIDSIZE not in chosen or ARCHITECTURE in chosen or named:
        return dict(chosen)
    display.say(
        f"--gridsize {chosen[GRIDSIZE]} means PtychoPINN's network: architecture cnn. "
        'Say so with --architecture cnn.'
    )
    return {**chosen, ARCHITECTURE: 'cnn'}


def load_backend(name: str | None, display: Display) -> None:
    """Import the backend's framework, which takes seconds, or say early why it cannot be used."""
    with display.busy('Loading the backend'):
        from ptychodus_torch_plugin.backends.registry import get_backend

        get_backend(name)
