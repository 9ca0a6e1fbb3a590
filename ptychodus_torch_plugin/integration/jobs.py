"""The jobs of `messages`, done in the process that has the framework."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.backends.protocol import Reconstruction
from ptychodus_torch_plugin.backends.training_log import fingerprint
from ptychodus_torch_plugin.config import ModelConfig, RunConfig
from ptychodus_torch_plugin.errors import OutputError, ScanFileError
from ptychodus_torch_plugin.files.reading import read_scan
from ptychodus_torch_plugin.integration.messages import (
    Finished,
    FitScan,
    Infer,
    Job,
    Losses,
    Message,
    Seen,
    TrainFiles,
)
from ptychodus_torch_plugin.integration.watching import Preview, Watcher
from ptychodus_torch_plugin.scan import ScanData

Tell = Callable[[Message], None]
ShouldStop = Callable[[], bool]

IDENTITY_FILE = 'run.txt'
"""In a folder of checkpoints: what decides the course of the training that left them."""

logger = logging.getLogger(__name__)


def do(job: Job, tell: Tell, should_stop: ShouldStop) -> Finished:
    """Do a job, whatever it is."""
    match job:
        case TrainFiles():
            return _train_files(job, tell, should_stop)
        case FitScan():
            return _fit_scan(job, tell, should_stop)
        case Infer():
            return _infer(job, tell, should_stop)


def _train_files(job: TrainFiles, tell: Tell, should_stop: ShouldStop) -> Finished:
    scans = [read_scan(file) for file in job.files]
    test = None if job.test_file is None else read_scan(job.test_file)
    tested = [] if test is None else [(job.test_file, test)]
    for file, scan in [*zip(job.files, scans, strict=True), *tested]:
        if scan.n_px != scans[0].n_px:
            raise ScanFileError(
                f'{file} has patterns of {scan.n_px} px and {job.files[0]} of {scans[0].n_px} px; '
                'expected one size for one model. Move the others into another folder.'
            )
    run = for_size(job.run, scans[0].n_px)
    watcher = Watcher(tell, {'prepare': (0.0, 0.15), 'train': (0.15, 1.0)})
    model = _train(run, scans, job, watcher, should_stop)
    finished = _saved(model, job.bundle, job.checkpoints)
    if test is not None and finished.model_saved and not finished.stopped:
        _test(model, test, run, should_stop)
    return finished


def _test(model: api.Model, test: ScanData, run: RunConfig, should_stop: ShouldStop) -> None:
    try:
        found = api.reconstruct(model, test, run.inference, run.execution, should_stop=should_stop)
    except InterruptedError:  # the model is there already
        logger.info('%s: stopped during the test', test.name)
    else:
        logger.info('%s: %s', test.name, r_factors(found))


def _fit_scan(job: FitScan, tell: Tell, should_stop: ShouldStop) -> Finished:
    run, scan = for_size(job.run, job.scan.n_px), job.scan
    if run.model.architecture == 'none':
        shares = {'reconstruct': (0.0, 1.0)}
    else:
        shares = {'prepare': (0.05, 0.15), 'train': (0.15, 0.85), 'reconstruct': (0.85, 1.0)}
    preview = Preview(scan, run, should_stop)
    watcher = Watcher(tell, shares, preview)
    if run.model.architecture == 'unrolled':
        preview.sweeps(tell)
    model = _train(run, [scan], job, watcher, should_stop)
    finished = _saved(model, job.bundle, job.checkpoints)
    if finished.stopped:
        return finished
    return _reconstruct(model, scan, run, watcher, should_stop, finished)


def _infer(job: Infer, tell: Tell, should_stop: ShouldStop) -> Finished:
    watcher = Watcher(tell, {'reconstruct': (0.0, 1.0)})
    model = api.load_bundle(job.bundle, backend=job.run.backend)
    if job.sweeps_of_run:
        model = _between_sweeps(model, job.run.model)
    return _reconstruct(model, job.scan, job.run, watcher, should_stop, Finished())


def _between_sweeps(model: api.Model, wanted: ModelConfig) -> api.Model:
    """Return the network between other sweeps, without losses: they were those of the old ones."""
    changed = api.with_sweeps(
        model,
        sweeps_before=wanted.sweeps_before or 'automatic',
        sweeps_after=wanted.sweeps_after,
        **wanted.sweeps.to_json(),
    )
    return replace(changed, history=())


def _train(
    run: RunConfig,
    scans: Sequence[ScanData],
    job: TrainFiles | FitScan,
    watcher: Watcher,
    should_stop: ShouldStop,
) -> api.Model:
    resume = prepare_checkpoints(job.checkpoints, run, scans)
    if resume:
        logger.info('going on from the checkpoint of the run that was interrupted')
    return api.train(
        scans,
        run.model,
        run.training,
        run.execution,
        backend=run.backend,
        checkpoint_dir=job.checkpoints,
        log_dir=job.bundle.with_name(f'{job.bundle.stem}-logs'),
        resume=resume,
        on_event=watcher,
        should_stop=should_stop,
    )


def prepare_checkpoints(folder: Path, run: RunConfig, scans: Sequence[ScanData]) -> bool:
    """Return whether `folder` has a checkpoint of this very run; empty it if it is of another.

    Raises
    ------
    OutputError
        If the folder is somebody else's, or cannot be written.
    """
    training = run.training.for_model(run.model)
    identity = f'{run.backend} {fingerprint(run.model, scans, training, run.execution)}'
    file = folder / IDENTITY_FILE
    if file.is_file() and file.read_text() == identity:
        return any(folder.glob('last*'))
    if folder.is_dir() and not file.is_file() and any(folder.iterdir()):
        raise OutputError(
            f'{folder} holds other files than the checkpoints of a run; expected no such folder. '
            'Move it away.'
        )
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(identity)
    except OSError as error:
        raise OutputError(
            f'cannot keep checkpoints in {folder}: {error.strerror or error}; expected a folder '
            'that can be written, with space left. Choose another one, or mend its permissions.'
        ) from error
    return False


def _saved(model: api.Model, bundle: Path, checkpoints: Path) -> Finished:
    """Keep the model, if there is one, and tidy up."""
    stopped = model.stopped == 'request'
    if stopped and model.best_epoch is None:
        logger.info('stopped before the first epoch was completed: there is no model to keep')
        return Finished(stopped=True)
    bundle.parent.mkdir(parents=True, exist_ok=True)
    model.save(bundle)
    shutil.rmtree(checkpoints, ignore_errors=True)
    ended = {'request': 'stopped', 'patience': 'ended early, for the loss got no better'}
    if model.best_epoch is None:
        logger.info('there is nothing to train; the settings are in %s', bundle)
    else:
        logger.info(
            'training %s; the model of epoch %d is in %s',
            ended.get(model.stopped, 'done'),
            model.best_epoch,
            bundle,
        )
    return Finished(model_saved=True, stopped=stopped)


def _reconstruct(
    model: api.Model,
    scan: ScanData,
    run: RunConfig,
    watcher: Watcher,
    should_stop: ShouldStop,
    finished: Finished,
) -> Finished:
    try:
        found = api.reconstruct(
            model, scan, run.inference, run.execution, on_event=watcher, should_stop=should_stop
        )
    except InterruptedError:
        logger.info('stopped during the reconstruction')
        return replace(finished, stopped=True)
    logger.info('%s: %s', scan.name, r_factors(found))
    watcher.tell(Seen.of(found, losses_of(model, found)))
    return finished


def losses_of(model: api.Model, found: Reconstruction) -> Losses:
    """Return the losses of the training; without one, the R-factors of the stages."""
    if model.history:
        return [(record.epoch, record.loss) for record in model.history]
    return [(stage, r) for stage, r in enumerate(found.r_fitted.values(), start=1)]


def r_factors(found: Reconstruction) -> str:
    """Return how well a reconstruction explains the patterns, in words."""
    held_out = found.r_held_out.get(found.stage)
    beside = '' if held_out is None else f', {held_out:.4f} on held-out patterns'
    return f'{found.stage}: R {found.r_fitted[found.stage]:.4f} on the fitted patterns{beside}'


def for_size(run: RunConfig, n_px: int) -> RunConfig:
    """Return the settings for patterns of N = `n_px`; refuse what does not go with it."""
    values = run.to_json()
    values['model']['N'] = n_px
    changed = RunConfig.parse(values, source='settings')
    changed.training.for_model(changed.model)
    return changed
