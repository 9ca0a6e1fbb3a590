"""`bench`: how fast the package is here, as a share of what the machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ptychodus_torch_plugin.cli.bench_options import BenchOptions
from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import Json, Quiet
from ptychodus_torch_plugin.cli.outputs import output_folder, write_json
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.report import say_files, say_json

if TYPE_CHECKING:
    from ptychodus_torch_plugin.benchmarks.child import Request
    from ptychodus_torch_plugin.benchmarks.results import Report

SOMETHING_FAILED = 1


@with_groups
def bench(*, options: BenchOptions, quiet: Quiet = False, json_output: Json = False) -> int:
    """Measure times and memory, each as a share of what this machine can do.

    Times are processor time of all threads, best and median. Limits are the convolution and the
    Fourier transform that the backend does fastest, measured beside at as many threads.
    Ends with exit code 1 if a case failed.
    """
    from ptychodus_torch_plugin.benchmarks import driver
    from ptychodus_torch_plugin.benchmarks.results import Report

    earlier = None if options.compare is None else Report.load(options.compare)
    backends = driver.choose_backends(options.backend or [])
    request = _request(options)
    with progress_display(quiet=quiet) as display:
        if options.out is None:
            report = _measure(request, backends, display)
            files = {}
        else:
            with output_folder(options.out) as folder:
                report = _measure(request, backends, display)
                files = _write(folder, report, earlier)
    if json_output:
        say_json(report.to_json())
    else:
        _say(report, earlier, files)
    return SOMETHING_FAILED if report.failed else 0


def _request(options: BenchOptions) -> Request:
    from ptychodus_torch_plugin.benchmarks import driver
    from ptychodus_torch_plugin.benchmarks.child import Request
    from ptychodus_torch_plugin.benchmarks.sizes import SIZES

    return Request(
        cases=tuple(driver.choose_cases(options.case or [])),
        size=options.size,
        threads=options.threads,
        repeats=options.repeats or SIZES[options.size].repeats,
        ptychi_python=options.ptychi_python,
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
