"""Options that say which scans are reconstructed for `quality`, by what, and where results go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from ptychodus_torch_plugin.cli.options import Backend, setting

SetName = Literal['quick', 'standard', 'full']

RESULTS = 'quality.json'


@dataclass(frozen=True)
class QualityOptions:
    """What is reconstructed by what; see `benchmarks.quality.driver.Plan`."""

    set_name: Annotated[
        SetName,
        typer.Option(
            '--set',
            help='Which scans: quick takes about three minutes of one core, standard one or two '
            'hours, full many.',
        ),
    ] = 'quick'
    methods: Annotated[
        str | None,
        setting(
            '--methods',
            default='quick: sweeps,pretrained,ptychi-lsqml; else all',
            what='Methods, parted by commas: sweeps, thinned, pretrained, ptychi-lsqml, '
            'ptychi-rpie, ptychi-autodiff, and those of --methods_file.',
        ),
    ] = None
    case: Annotated[
        list[str] | None,
        setting(
            '--case',
            default='all of the set',
            what="Case to run, or a pattern such as '*-wrong'; may be repeated.",
        ),
    ] = None
    backend: Backend = None
    methods_file: Annotated[
        Path | None,
        typer.Option(
            '--methods_file',
            metavar='FILE',
            help='JSON file of changed settings by method, and of methods of your own.',
        ),
    ] = None
    reseed: Annotated[
        int,
        typer.Option(min=0, help='Added to every seed: other objects, probes, positions, noise.'),
    ] = 0
    threads: Annotated[int, typer.Option(min=1, help='CPU threads of every computation.')] = 1
    jobs: Annotated[
        int, typer.Option(min=1, help='Cases that run at the same time, each on its own threads.')
    ] = 1
    max_epochs: Annotated[
        int | None,
        setting(
            '--max_epochs',
            default='quick 200, standard 400, full 1000',
            what='Epochs after which an engine of pty-chi has to stop.',
        ),
    ] = None
    out: Annotated[
        Path | None,
        setting(
            '--output_dir',
            default='no files',
            what=f'Folder for the results ({RESULTS}, table.md, courses.png, a picture of each '
            'case); made if missing, files in it are replaced.',
        ),
    ] = None
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE',
            help=f'{RESULTS} of an earlier run, whose other methods stand in the table as well.',
        ),
    ] = None
    ptychi_python: Annotated[
        Path | None,
        typer.Option('--ptychi_python', metavar='PATH', help='Python that has pty-chi.'),
    ] = None
