"""`quality`: how good objects are over a seeded set of scans, other programs beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import Json, Quiet
from ptychodus_torch_plugin.cli.outputs import output_folder, write_json
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.quality_options import RESULTS, QualityOptions
from ptychodus_torch_plugin.cli.report import say_files, say_json

if TYPE_CHECKING:
    from ptychodus_torch_plugin.benchmarks.quality.driver import Plan
    from ptychodus_torch_plugin.benchmarks.quality.results import Report

SOMETHING_FAILED = 1

MAX_EPOCHS = {'quick': 200, 'standard': 400, 'full': 1000}
METHODS = ('sweeps', 'thinned', 'pretrained', 'ptychi-lsqml', 'ptychi-rpie', 'ptychi-autodiff')
QUICK_METHODS = ('sweeps', 'pretrained', 'ptychi-lsqml')


@with_groups
def quality(*, options: QualityOptions, quiet: Quiet = False, json_output: Json = False) -> int:
    """Reconstruct simulated scans by several methods, and compare with the truth.

    Every method is given the same counts, positions and probe, which may be wrong, and starts from
    a flat object. Engines of pty-chi are looked at as they run: their best object counts, and the
    processor time to within 0.1 dB of it. Ends with exit code 1 if a method failed.
    """
    from ptychodus_torch_plugin.benchmarks.quality.results import Report

    earlier = None if options.beside is None else Report.load(options.beside)
    plan = _plan(options)
    with progress_display(quiet=quiet) as display:
        if options.out is None:
            report, files = _run(plan, None, display, earlier), {}
        else:
            with output_folder(options.out) as folder:
                report = _run(plan, folder, display, earlier)
                files = _write(folder, report)
    _say(report, files, as_json=json_output)
    return SOMETHING_FAILED if report.failed else 0


def _plan(options: QualityOptions) -> Plan:
    from ptychodus_torch_plugin.backends.registry import get_backend
    from ptychodus_torch_plugin.benchmarks.quality import cases, driver, methods

    name, chosen = options.set_name, options.methods
    named = QUICK_METHODS if name == 'quick' else METHODS
    names = tuple(named if chosen is None else (each.strip() for each in chosen.split(',')))
    return driver.Plan(
        set_name=name,
        cases=cases.choose(name, tuple(options.case or ()), options.reseed),
        methods=methods.choose(names, options.methods_file),
        backend=get_backend(options.backend).name,
        threads=options.threads,
        jobs=options.jobs,
        max_epochs=options.max_epochs or MAX_EPOCHS[name],
        ptychi_python=options.ptychi_python,
    )


def _run(plan: Plan, folder: Path | None, display: Display, earlier: Report | None) -> Report:
    from ptychodus_torch_plugin.benchmarks.quality import driver, pictures, table

    titles = {name: method.title for name, method in plan.methods.items()}

    def tell(outcome: Any) -> None:
        display.say(table.line(outcome))

    def keep(report: Any, problem: Any, found: Any) -> None:
        if folder is not None:  # what was found so far outlives an interruption
            write_json(folder / RESULTS, report.to_json())
            pictures.draw(folder, problem, found, titles)

    report = driver.run(plan, tell, keep)
    return report if earlier is None else report.beside(earlier)


def _write(folder: Path, report: Report) -> dict[str, Path]:
    from ptychodus_torch_plugin.benchmarks.quality import pictures, table
    from ptychodus_torch_plugin.files.atomic import atomic_path

    files = {'quality': write_json(folder / RESULTS, report.to_json())}
    files['table'] = folder / 'table.md'
    with atomic_path(files['table']) as temporary:
        temporary.write_text(table.markdown(report))
    files['courses'] = folder / 'courses.png'
    pictures.draw_courses(files['courses'], report)
    drawn = {case.name: folder / f'{case.name}.png' for case in report.cases}
    return files | {name: path for name, path in drawn.items() if path.exists()}


def _say(report: Report, files: dict[str, Path], *, as_json: bool) -> None:
    from ptychodus_torch_plugin.benchmarks.quality import table

    if as_json:
        say_json(report.to_json())
        return
    typer.echo(table.markdown(report))
    if files:
        say_files(files)
