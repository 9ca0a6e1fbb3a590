"""What `train` and `demo` share: train with progress, write the model, say how it went."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychodus_torch_plugin.cli.outputs import output_folder, write_training
from ptychodus_torch_plugin.cli.progress import Display
from ptychodus_torch_plugin.cli.reconstruction import as_in_training, reconstruct_into
from ptychodus_torch_plugin.cli.settings import run_config
from ptychodus_torch_plugin.cli.starting import CHECKPOINTS, RUN_FILE
from ptychodus_torch_plugin.cli.stopping import StoppedError, StopRequest

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.backends.protocol import Progress
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.scan import ScanData

LOGS, TEST = 'logs', 'test'


def train_into(
    folder: Path,
    scans: list['ScanData'],
    run: 'RunConfig',
    display: Display,
    *,
    resume: bool = False,
    test: 'ScanData | None' = None,
) -> dict[str, Any]:
    """Train, write everything into `folder`, and return the summary.

    Parameters
    ----------
    folder
        An existing folder.
    scans, run
        What the model is trained on, and how.
    display
        Where progress is shown.
    resume
        Go on from the checkpoints in the folder.
    test
        A scan that the trained model reconstructs into `folder`/test.
    """
    from ptychodus_torch_plugin.files.atomic import atomic_path

    def save_run_file() -> None:
        with atomic_path(folder / RUN_FILE) as temporary:
            run.save(temporary)

    start = time.perf_counter()
    # A run that never begins leaves no empty folder of checkpoints.
    with output_folder(folder / CHECKPOINTS) as checkpoints:
        model = train_with_display(
            scans,
            run,
            display,
            checkpoints=checkpoints,
            logs=folder / LOGS,
            resume=resume,
            on_start=save_run_file,
        )
    save_run_file()
    files = {'model': model.save(folder), 'run': folder / RUN_FILE}
    files |= write_training(
        folder, model.history, best_epoch=model.best_epoch, stopped=model.stopped
    )
    origin = {} if run.resume_from is None else {'resume_from': run.resume_from}
    return {
        **training_summary(model),
        **origin,
        'scans': [f'{scan.name} ({scan.n_patterns} patterns)' for scan in scans],
        'seconds': round(time.perf_counter() - start, 2),
        'settings': run.model_copy(update={'training': model.training}).to_json(),
        'test': None
        if test is None
        else _reconstruct_test(folder / TEST, model, test, run, display),
        'files': files,
    }


def train_along(
    folder: Path, scans: list['ScanData'], run: 'RunConfig', display: Display, *, resume: bool
) -> None:
    """Do the share of a process that is not the first one: train, and write nothing."""
    checkpoints = folder / CHECKPOINTS
    train_with_display(scans, run, display, checkpoints=checkpoints, resume=resume)


def _reconstruct_test(
    folder: Path, model: 'Model', scan: 'ScanData', run: 'RunConfig', display: Display
) -> dict[str, Any]:
    run = run_config(as_in_training(model, scan), base=run)
    with output_folder(folder):
        outcome = reconstruct_into(folder, model, scan, run, display)
    return {**outcome.metrics, 'files': outcome.files}


def check_test_scan(path: Path, scan: 'ScanData', run: 'RunConfig') -> None:
    """Raise an error now if the scan in `path` could not be reconstructed after the training."""
    import numpy as np

    from ptychodus_torch_plugin.files.containers import errors_named
    from ptychodus_torch_plugin.group_plan import check_reach
    from ptychodus_torch_plugin.grouping import draw_groups
    from ptychodus_torch_plugin.training_plan import held_out_indices

    if run.model.architecture != 'cnn':
        return
    held_out = held_out_indices(scan, run.inference.held_out_fraction, run.inference.seed)
    with errors_named(path):
        groups = draw_groups(
            scan.positions_px,
            run.model.gridsize,
            neighbor_count=run.inference.neighbor_count,
            pool=np.setdiff1d(np.arange(scan.n_patterns), held_out),
        )
        check_reach(scan, groups)


def train_with_display(
    scans: list['ScanData'],
    run: 'RunConfig',
    display: Display,
    *,
    checkpoints: Path | None = None,
    logs: Path | None = None,
    resume: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> 'Model':
    """Train with progress and Ctrl-C; call `on_start` when the first sweep is done.

    Raises
    ------
    StoppedError
        If the user stopped it before any epoch was completed.
    """
    from ptychodus_torch_plugin.api import load_bundle
    from ptychodus_torch_plugin.api import train as train_model

    if run.model.architecture == 'none':
        display.say('Architecture none has nothing to train: the model holds settings only.')
    start = None if run.resume_from is None else load_bundle(run.resume_from, backend=run.backend)
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
            start=start,
            checkpoint_dir=checkpoints,
            log_dir=logs,
            resume=resume,
            on_event=on_event,
            should_stop=stop,
        )
    if model.stopped == 'request' and model.best_epoch is None:
        raise StoppedError(
            'Stopped before the first epoch was completed: there is no model to keep.'
        )
    return model


def training_summary(model: 'Model') -> dict[str, Any]:
    """Return what there is to say about a training, for JSON."""
    assert model.training is not None
    best = next((r for r in model.history if r.epoch == model.best_epoch), None)
    groups = {'gridsize': model.config.gridsize} if model.config.architecture == 'cnn' else {}
    return {
        'backend': model.backend.name,
        'architecture': model.config.architecture,
        'N': model.config.N,
        **groups,
        'objective': model.training.objective,
        'seed': model.training.seed,
        'epochs': len(model.history),
        'best_epoch': model.best_epoch,
        'loss': None if best is None else best.loss,
        'validation_loss': None if best is None else best.validation_loss,
        'stopped': model.stopped,
    }
