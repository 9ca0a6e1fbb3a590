"""Options that say what `bench` measures, and where its results go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from ptychodus_torch_plugin.cli.options import setting

Size = Literal['quick', 'standard', 'full']


@dataclass(frozen=True)
class BenchOptions:
    """What is measured; see `benchmarks.child.Request`."""

    backend: Annotated[
        list[str] | None,
        setting(
            '--backend',
            default='all that are installed',
            what='Backend to measure: pytorch, tensorflow, or one of another package; may be '
            'repeated.',
        ),
    ] = None
    case: Annotated[
        list[str] | None,
        setting(
            '--case',
            default='all',
            what="Case to measure, or a pattern such as 'end*'; may be repeated. Cases: start, "
            'reading, grouping, preparation, ground-truth, stitching, backend-start, training, '
            'inference, bundle, sweeps, end-to-end, peer-ptychi.',
        ),
    ] = None
    size: Annotated[
        Size,
        typer.Option(
            help='How large the problems are: quick takes about a minute for a backend, standard '
            'a quarter of an hour, full hours and gigabytes.'
        ),
    ] = 'quick'
    threads: Annotated[
        int, typer.Option(min=1, help='CPU threads of every computation, also of the limits.')
    ] = 1
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1,
            help='Repetitions of each measurement. [default: quick 2, standard 3, full 5]',
            show_default=False,
        ),
    ] = None
    out: Annotated[
        Path | None,
        setting(
            '--output_dir',
            default='no files',
            what='Folder for the results (benchmark.json, table.md, pictures of each case); made '
            'if missing, files in it are replaced.',
        ),
    ] = None
    compare: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Compare with the benchmark.json of an earlier run.'),
    ] = None
    ptychi_python: Annotated[
        Path | None,
        typer.Option(
            '--ptychi_python',
            metavar='PATH',
            help='Python that has pty-chi, for the case peer-ptychi.',
        ),
    ] = None
