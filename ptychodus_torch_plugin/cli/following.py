"""`infer --follow`: the object of a scan while it is still being measured."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ptychodus_torch_plugin.cli.options import given, setting
from ptychodus_torch_plugin.cli.progress import Display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.stopping import StoppedError, StopRequest
from ptychodus_torch_plugin.errors import (
    ConfigError,
    InputNotFoundError,
    PluginError,
    ScanFileError,
    ScanValueError,
)

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.backends.protocol import Reconstruction
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.files.growing import ScanSoFar
    from ptychodus_torch_plugin.live_object import Preview
    from ptychodus_torch_plugin.scan import ScanData

POLL_S = 0.1
IDLE_S = 10.0
PICTURE_PX = 512
"""Of larger objects only some pixels are drawn while they grow."""
LIVE_NAME, LIVE_SUFFIXES = 'live', ('.png', '.npz')


@dataclass(frozen=True)
class FollowOptions:
    """A scan that is still being written."""

    SETTINGS: ClassVar[dict[str, str]] = {}

    follow: Annotated[
        bool,
        typer.Option(
            '--follow',
            help='Reconstruct while the scan is being measured: an HDF5 file that grows, or a '
            'folder that fills with NPZ files. live.png and live.npz show the object so far. '
            'Ctrl-C ends the scan.',
        ),
    ] = False
    expected: Annotated[
        int | None,
        setting(
            '--expected-patterns',
            default='the planned positions in the file, if it has them',
            what='With --follow: number of patterns at which the scan is complete.',
        ),
    ] = None
    idle: Annotated[
        float | None,
        setting(
            '--idle',
            default=f'{IDLE_S:g}',
            what='With --follow: seconds without a new pattern after which it counts as complete.',
        ),
    ] = None


def check_follow(options: FollowOptions, reading: ReadingOptions, *, several: bool) -> None:
    """Refuse what contradicts following, or means nothing without it."""
    if not options.follow:
        if options.expected is not None or options.idle is not None:
            raise ConfigError(
                '--expected-patterns and --idle say when a scan that is followed is complete; '
                'expected --follow with them.'
            )
        return
    for name, value in (('--expected-patterns', options.expected), ('--idle', options.idle)):
        if value is not None and value <= 0:
            raise ConfigError(f'{name} is {value:g}; expected a number above 0.')
    if several:
        raise ConfigError(
            '--follow is the work of one process; expected no --part, no --merge, and neither '
            'torchrun nor srun with several tasks.'
        )
    if reading.diffraction is not None:
        raise ConfigError(
            f'--diffraction {reading.diffraction} belongs to a finished product; expected '
            '--follow with an HDF5 file that grows, or a folder of NPZ files.'
        )


def begun(
    path: Path, options: FollowOptions, reading: ReadingOptions, display: Display
) -> ScanSoFar:
    """Return the scan as soon as its first pattern is there."""
    with (
        display.busy(f'Waiting for the first pattern in {path}'),
        StopRequest(lambda: None) as stop,
    ):
        from ptychodus_torch_plugin.files.growing import ScanSoFar, open_growing
        from ptychodus_torch_plugin.files.options import ReadOptions

        source = ScanSoFar(open_growing(path, ReadOptions(**given(reading))), options.expected)
        idle_s, start = options.idle or IDLE_S, time.monotonic()
        while True:
            defect: PluginError | None = None
            try:
                source.read()
                if len(source):
                    source.scan()
                    return source
            except (ScanFileError, ScanValueError) as error:
                defect = error  # perhaps it is being written this moment, or there is no light yet
            if stop():
                raise StoppedError('Stopped before the first pattern arrived.')
            if time.monotonic() - start > idle_s:
                if defect is not None:
                    raise defect
                raise InputNotFoundError(
                    f'{path}: no pattern arrived in {idle_s:g} s; expected a scan that is being '
                    'written. Check the path, or wait longer with --idle.'
                )
            time.sleep(POLL_S)


def follow_into(
    folder: Path,
    model: Model,
    source: ScanSoFar,
    run: RunConfig,
    options: FollowOptions,
    display: Display,
) -> tuple[ScanData, Reconstruction]:
    """Follow a scan to its end; show the object so far in live.png and live.npz of `folder`."""
    from ptychodus_torch_plugin.following import follow

    files = [folder / f'{LIVE_NAME}{suffix}' for suffix in LIVE_SUFFIXES]
    try:
        with StopRequest(lambda: display.say('The scan ends here.')) as stop:
            return follow(
                model,
                source,
                run.inference,
                run.execution,
                idle_s=options.idle or IDLE_S,
                on_preview=lambda preview: _show(files, preview, source, options, display),
                on_event=display,
                should_end=stop,
            )
    finally:
        for file in files:
            with suppress(OSError):
                file.unlink()


def _show(
    files: list[Path],
    preview: Preview,
    source: ScanSoFar,
    options: FollowOptions,
    display: Display,
) -> None:
    import numpy as np

    from ptychodus_torch_plugin.files.atomic import atomic_path
    from ptychodus_torch_plugin.files.product import write_object_npz
    from ptychodus_torch_plugin.pictures import preview_png

    scan = source.scan()
    picture, arrays = files
    with atomic_path(picture) as temporary:
        every = np.s_[:: max(1, max(preview.frame.shape) // PICTURE_PX)]
        object_, occupancy = preview.object_[every, every], preview.occupancy[every, every]
        temporary.write_bytes(preview_png(object_, occupancy))
    write_object_npz(
        arrays,
        object_=preview.object_,
        occupancy=preview.occupancy,
        frame=preview.frame,
        pixel_size_m=scan.optics.pixel_size_m,
        stage=f'preview of {preview.n_patterns} patterns',
        positions_px=scan.positions_px[: preview.n_patterns],
    )
    display.count('Following', preview.n_patterns, options.expected or len(source))
