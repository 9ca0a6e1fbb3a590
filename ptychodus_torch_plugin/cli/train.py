"""`train`: a network from one scan or many."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import (
    Backend,
    ExecutionOptions,
    Json,
    ModelOptions,
    Precision,
    ReadingOptions,
    TrainingOptions,
    given,
    output_dir,
    setting,
)
from ptychodus_torch_plugin.cli.outputs import output_folder, write_training
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.report import say_facts, say_files, say_json
from ptychodus_torch_plugin.cli.settings import load_backend, read_scans, run_config
from ptychodus_torch_plugin.cli.stopping import StoppedError, StopRequest
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.backends.protocol import Progress
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.scan import ScanData

CHECKPOINTS = 'checkpoints'
RUN_FILE = 'run.json'


@dataclass(frozen=True)
class AllTrainingOptions(TrainingOptions):
    """The training options that only `train` has, too."""

    SETTINGS: ClassVar[dict[str, str]] = {
        **TrainingOptions.SETTINGS,
        'learning_rate': 'training.learning_rate',
        'held_out': 'training.held_out_fraction',
        'precision': 'execution.precision',
        'deterministic': 'execution.deterministic',
    }

    learning_rate: Annotated[
        float | None,
        setting('--learning_rate', '--learning-rate', default='0.001', what='Peak rate of Adam.'),
    ] = None
    held_out: Annotated[
        float | None,
        setting(
            '--held-out',
            default='0.1',
            what='Fraction of the patterns of every scan that is kept for validation.',
        ),
    ] = None
    precision: Annotated[
        Precision | None,
        setting('--precision', default='32-true', what='Precision of the network.'),
    ] = None
    deterministic: Annotated[
        bool | None,
        setting(
            '--deterministic/--no-deterministic',
            default='no-deterministic',
            what='Refuse operations whose result depends on timing.',
        ),
    ] = None


@with_groups
def train(
    scans: Annotated[
        list[Path] | None, typer.Argument(metavar='SCAN', help='Scan files to train on.')
    ] = None,
    *,
    train_data_file: Annotated[
        list[Path] | None,
        typer.Option(
            '--train_data_file',
            '--train-data-file',
            metavar='FILE',
            help='Scan file to train on; may be repeated.',
        ),
    ] = None,
    out: Annotated[
        Path, output_dir('wts.h5.zip, run.json, history.json, training.png, checkpoints/')
    ] = Path('training_outputs'),
    backend: Backend = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Run file (JSON or YAML); the options override it.'),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            '--resume',
            help='Go on where an interrupted training into the same folder was; its run.json '
            'holds unless --config is given. Name the same scans.',
        ),
    ] = False,
    json_output: Json = False,
    model: ModelOptions,
    training: AllTrainingOptions,
    execution: ExecutionOptions,
    reading: ReadingOptions,
) -> None:
    """Train on one scan or many, without labels.

    Ctrl-C ends the training with the best model so far; twice ends it at once.
    """
    paths = [*(train_data_file or ()), *(scans or ())]
    if not paths:
        raise ConfigError('no scan was given; expected at least one SCAN to train on.')
    chosen = {'backend': backend, **given(model), **given(training), **given(execution)}
    with progress_display() as display, output_folder(out) as folder:
        run_file = _run_file(folder, config, resume=resume)
        base = _load(run_file)
        data = read_scans(paths, reading, display)
        run = run_config(chosen, base=base, n_px=data[0].n_px)
        load_backend(run.backend, display)
        summary = train_into(folder, data, run, display, resume=resume)
    if json_output:
        say_json(summary)
        return
    files = summary.pop('files')
    say_facts(summary)
    say_files(files)


def train_into(
    folder: Path, scans: list['ScanData'], run: 'RunConfig', display: Display, *, resume: bool
) -> dict[str, Any]:
    """Train, write everything into `folder`, and return the summary."""
    from ptychodus_torch_plugin.files.atomic import atomic_path

    def save_run_file() -> None:
        with atomic_path(folder / RUN_FILE) as temporary:
            run.save(temporary)

    start = time.perf_counter()
    # A run that never begins leaves no empty folder of checkpoints.
    with output_folder(folder / CHECKPOINTS) as checkpoints:
        model = train_with_display(
            scans, run, display, checkpoints=checkpoints, resume=resume, on_start=save_run_file
        )
    save_run_file()
    files = {'model': model.save(folder), 'run': folder / RUN_FILE}
    files |= write_training(
        folder, model.history, best_epoch=model.best_epoch, stopped=model.stopped
    )
    return {
        **training_summary(model, run),
        'scans': [f'{scan.name} ({scan.n_patterns} patterns)' for scan in scans],
        'seconds': round(time.perf_counter() - start, 2),
        'files': files,
    }


def train_with_display(
    scans: list['ScanData'],
    run: 'RunConfig',
    display: Display,
    *,
    checkpoints: Path | None = None,
    resume: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> 'Model':
    """Train with progress and Ctrl-C; call `on_start` when the first sweep is done.

    Raises
    ------
    StoppedError
        If the user stopped it before any epoch was completed.
    """
    from ptychodus_torch_plugin.api import train as train_model

    if run.model.architecture == 'none':
        display.say('Architecture none has nothing to train: the model holds settings only.')
    started = False

    def on_event(event: 'Progress') -> None:
        nonlocal started
        if not started:
            started = True
            on_start()
        display(event)

    with StopRequest(
        lambda: display.say(
            'Training ends here, the best model so far is kept. Ctrl-C again ends it at once.'
        )
    ) as stop:
        model = train_model(
            scans,
            run.model,
            run.training,
            run.execution,
            backend=run.backend,
            checkpoint_dir=checkpoints,
            resume=resume,
            on_event=on_event,
            should_stop=stop,
        )
    if model.stopped == 'request' and model.best_epoch is None:
        raise StoppedError(
            'Stopped before the first epoch was completed: there is no model to keep.'
        )
    return model


def training_summary(model: 'Model', run: 'RunConfig') -> dict[str, Any]:
    """Return what there is to say about a training, for JSON."""
    best = next((r for r in model.history if r.epoch == model.best_epoch), None)
    return {
        'backend': model.backend.name,
        'architecture': model.config.architecture,
        'N': model.config.N,
        'objective': run.training.objective,
        'seed': run.training.seed,
        'epochs': len(model.history),
        'best_epoch': model.best_epoch,
        'loss': None if best is None else best.loss,
        'validation_loss': None if best is None else best.validation_loss,
        'stopped': model.stopped,
    }


def _run_file(folder: Path, config: Path | None, *, resume: bool) -> Path | None:
    if not resume:
        return config
    if not any((folder / CHECKPOINTS).glob('*')):
        raise InputNotFoundError(
            f'{folder / CHECKPOINTS} holds nothing, so there is nothing to resume; expected the '
            'checkpoints of an interrupted training. Train without --resume first.'
        )
    own = folder / RUN_FILE
    return own if config is None and own.is_file() else config


def _load(run_file: Path | None) -> 'RunConfig | None':
    if run_file is None:
        return None
    from ptychodus_torch_plugin.config import RunConfig

    return RunConfig.load(run_file)
