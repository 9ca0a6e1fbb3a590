"""`bench`: how fast the package is here, as a share of what the machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ptychodus_torch_plugin.cli.options import Json, Quiet, setting
from ptychodus_torch_plugin.cli.outputs import output_folder, write_json
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.report import say_files, say_json

if TYPE_CHECKING:
    from ptychodus_torch_plugin.benchmarks.child import Request
    from ptychodus_torch_plugin.benchmarks.results import Report

SOMETHING_FAILED = 1

Size = Literal['quick', 'standard', 'full']


def bench(
    *,
    backend: Annotated[
        list[str] | None,
        setting(
            '--backend',
            default='all that are installed',
            what='Backend to measure: pytorch, tensorflow, or one of another package; may be '
            'repeated.',
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        setting(
            '--case',
            default='all',
            what="Case to measure, or a pattern such as 'end*'; may be repeated. Cases: start, "
            'reading, grouping, preparation, ground-truth, stitching, backend-start, training, '
            'inference, bundle, sweeps, end-to-end, peer-ptychi.',
        ),
    ] = None,
    size: Annotated[
        Size,
        typer.Option(
            help='How large the problems are: quick takes about a minute for a backend, standard '
            'a quarter of an hour, full hours and gigabytes.'
        ),
    ] = 'quick',
    threads: Annotated[
        int, typer.Option(min=1, help='CPU threads of every computation, also of the limits.')
    ] = 1,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1,
            help='Repetitions of each measurement. [default: quick 2, standard 3, full 5]',
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        setting(
            '--output_dir',
            default='no files',
            what='Folder for the results (benchmark.json, table.md, pictures of each case); made '
            'if missing, files in it are replaced.',
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Compare with the benchmark.json of an earlier run.'),
    ] = None,
    ptychi_python: Annotated[
        Path | None,
        typer.Option(
            '--ptychi_python',
            metavar='PATH',
            help='Python that has pty-chi, for the case peer-ptychi.',
        ),
    ] = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> int:
    """Measure times and memory, each as a share of what this machine can do.

    Times are processor time of all threads, best and median. Limits are the convolution and the
    Fourier transform that the backend does fastest, measured beside at as many threads.
    Ends with exit code 1 if a case failed.
    """
    from ptychodus_torch_plugin.benchmarks import driver
    from ptychodus_torch_plugin.benchmarks.results import Report

    earlier = None if compare is None else Report.load(compare)
    backends = driver.choose_backends(backend or [])
    request = _request(driver.choose_cases(case or []), size, threads, repeats, ptychi_python)
    with progress_display(quiet=quiet) as display:
        if out is None:
            report = _measure(request, backends, display)
            files = {}
        else:
            with output_folder(out) as folder:
                report = _measure(request, backends, display)
                files = _write(folder, report, earlier)
    if json_output:
        say_json(report.to_json())
    else:
        _say(report, earlier, files)
    return SOMETHING_FAILED if report.failed else 0


def _request(
    cases: list[str], size: Size, threads: int, repeats: int | None, ptychi_python: Path | None
) -> Request:
    from ptychodus_torch_plugin.benchmarks.child import Request
    from ptychodus_torch_plugin.benchmarks.sizes import SIZES

    return Request(
        cases=tuple(cases),
        size=size,
        threads=threads,
        repeats=repeats or SIZES[size].repeats,
        ptychi_python=ptychi_python,
    )


def _measure(request: Request, backends: list[str], display: Display) -> Report:
    from ptychodus_torch_plugin.benchmarks import driver, table

    def tell(row: Any) -> None:
        display.say('  '.join(each for each in table.cells(row) if each != table.NOTHING))

    return driver.run(request, backends, tell)


def _write(folder: Path, report: Report, earlier: Report | None) -> dict[str, Path]:
    from ptychodus_torch_plugin.benchmarks import plots, table
    from ptychodus_torch_plugin.files.atomic import atomic_path

    text = table.markdown(report)
    if earlier is not None:
        text += '\n' + table.comparison_markdown(report, earlier)
    files = {'benchmark': write_json(folder / 'benchmark.json', report.to_json())}
    files['table'] = folder / 'table.md'
    with atomic_path(files['table']) as temporary:
        temporary.write_text(text)
    return files | plots.draw(folder, report)


def _say(report: Report, earlier: Report | None, files: dict[str, Path]) -> None:
    from ptychodus_torch_plugin.benchmarks import table

    typer.echo(table.aligned(table.HEADINGS, [table.cells(row) for row in report.rows]))
    if earlier is not None:
        typer.echo(f'\nAgainst the run of {earlier.date}:')
        typer.echo(table.aligned(table.COMPARED, table.compared(report, earlier)))
    if files:
        say_files(files)
