"""`quality`: how good objects are over a seeded set of scans, other programs beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ptychodus_torch_plugin.cli.options import Backend, Json, Quiet, setting
from ptychodus_torch_plugin.cli.outputs import output_folder, write_json
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.report import say_files, say_json

if TYPE_CHECKING:
    from ptychodus_torch_plugin.benchmarks.quality.driver import Plan
    from ptychodus_torch_plugin.benchmarks.quality.results import Report

SOMETHING_FAILED = 1

SetName = Literal['quick', 'standard', 'full']

RESULTS = 'quality.json'
MAX_EPOCHS = {'quick': 200, 'standard': 400, 'full': 1000}
METHODS = ('sweeps', 'thinned', 'ptychi-lsqml', 'ptychi-rpie', 'ptychi-autodiff')
QUICK_METHODS = ('sweeps', 'ptychi-lsqml')


def quality(
    *,
    set_name: Annotated[
        SetName,
        typer.Option(
            '--set',
            help='Which scans: quick takes about three minutes of one core, standard one or two '
            'hours, full many.',
        ),
    ] = 'quick',
    methods: Annotated[
        str | None,
        setting(
            '--methods',
            default='quick: sweeps,ptychi-lsqml; else all',
            what='Methods, parted by commas: sweeps, thinned, ptychi-lsqml, ptychi-rpie, '
            'ptychi-autodiff, and those of --methods_file.',
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        setting(
            '--case',
            default='all of the set',
            what="Case to run, or a pattern such as '*-wrong'; may be repeated.",
        ),
    ] = None,
    backend: Backend = None,
    methods_file: Annotated[
        Path | None,
        typer.Option(
            '--methods_file',
            metavar='FILE',
            help='JSON file of changed settings by method, and of methods of your own.',
        ),
    ] = None,
    reseed: Annotated[
        int,
        typer.Option(min=0, help='Added to every seed: other objects, probes, positions, noise.'),
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help='CPU threads of every computation.')] = 1,
    jobs: Annotated[
        int, typer.Option(min=1, help='Cases that run at the same time, each on its own threads.')
    ] = 1,
    max_epochs: Annotated[
        int | None,
        setting(
            '--max_epochs',
            default='quick 200, standard 400, full 1000',
            what='Epochs after which an engine of pty-chi has to stop.',
        ),
    ] = None,
    out: Annotated[
        Path | None,
        setting(
            '--output_dir',
            default='no files',
            what=f'Folder for the results ({RESULTS}, table.md, courses.png, a picture of each '
            'case); made if missing, files in it are replaced.',
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE',
            help=f'{RESULTS} of an earlier run, whose other methods stand in the table as well.',
        ),
    ] = None,
    ptychi_python: Annotated[
        Path | None,
        typer.Option('--ptychi_python', metavar='PATH', help='Python that has pty-chi.'),
    ] = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> int:
    """Reconstruct simulated scans by several methods, and compare with the truth.

    Every method is given the same counts, positions and probe, which may be wrong, and starts from
    a flat object. Engines of pty-chi are looked at as they run: their best object counts, and the
    processor time to within 0.1 dB of it. Ends with exit code 1 if a method failed.
    """
    from ptychodus_torch_plugin.backends.registry import get_backend
    from ptychodus_torch_plugin.benchmarks.quality import cases, driver
    from ptychodus_torch_plugin.benchmarks.quality import methods as registry
    from ptychodus_torch_plugin.benchmarks.quality.results import Report

    named = QUICK_METHODS if set_name == 'quick' else METHODS
    names = tuple(named if methods is None else (name.strip() for name in methods.split(',')))
    earlier = None if beside is None else Report.load(beside)
    plan = driver.Plan(
        set_name=set_name,
        cases=cases.choose(set_name, tuple(case or ()), reseed),
        methods=registry.choose(names, methods_file),
        backend=get_backend(backend).name,
        threads=threads,
        jobs=jobs,
        max_epochs=max_epochs or MAX_EPOCHS[set_name],
        ptychi_python=ptychi_python,
    )
    with progress_display(quiet=quiet) as display:
        if out is None:
            report, files = _run(plan, None, display, earlier), {}
        else:
            with output_folder(out) as folder:
                report = _run(plan, folder, display, earlier)
                files = _write(folder, report)
    _say(report, files, as_json=json_output)
    return SOMETHING_FAILED if report.failed else 0


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
