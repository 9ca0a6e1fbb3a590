"""`demo`: from a scan, simulated or measured, to its object, in one command."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychodus_torch_plugin.cli.execution_options import ExecutionOptions
from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.model_options import ModelOptions
from ptychodus_torch_plugin.cli.options import Backend, Json, Quiet, given, output_dir
from ptychodus_torch_plugin.cli.outputs import output_folder, write_training
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.reconstruction import Outcome, reconstruct_into
from ptychodus_torch_plugin.cli.report import say_files, say_json, say_reconstruction
from ptychodus_torch_plugin.cli.settings import (
    load_backend,
    read_one,
    run_config,
    with_implied_architecture,
)
from ptychodus_torch_plugin.cli.training import train_with_display, training_summary
from ptychodus_torch_plugin.cli.training_options import TrainingOptions
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.ranks import own_rank

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.scan import ScanData

# The simulated demo: other seeds, and other photographs, for the scan that is reconstructed.
TRAINING_SCANS = 6
TRAINING_POSITIONS = 484
TEST_POSITIONS = 484
TRAINING_SEED, TEST_SEED = 1, 1001
SIMULATED_EPOCHS = 6
PHOTONS = 1e5

MEASURED_PROBE_MODES = 3
"""Probe modes for a measured scan whose file has one: real beams are partly coherent."""


@dataclass(frozen=True)
class DemoReadingOptions(ReadingOptions):
    """The reading options, and a dose that holds without a file, too."""

    photons: Annotated[
        float | None,
        typer.Option(
            help='Mean total counts of a simulated pattern; with --data, of a file whose patterns '
            f'were normalised. [default: {PHOTONS:.0f}; with --data as stored]',
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class _Scans:
    """What is trained on, and what is reconstructed; `simulated` knows its true object."""

    training: list['ScanData']
    test: 'ScanData'
    simulated: bool


@with_groups
def demo(
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Your own scan file, instead of simulated scans.'),
    ] = None,
    out: Annotated[
        Path,
        output_dir(
            'object.png, stages.png, training.png, object.h5, object.npz, metrics.json, scan.h5, '
            'model/wts.h5.zip'
        ),
    ] = Path('demo-output'),
    backend: Backend = None,
    quiet: Quiet = False,
    json_output: Json = False,
    model: ModelOptions,
    training: TrainingOptions,
    execution: ExecutionOptions,
    reading: DemoReadingOptions,
) -> None:
    """Simulate, train, and reconstruct an unseen scan.

    Without --data training takes 6 epochs, which is short; --epochs says otherwise.
    With --data: train on your scan, all but its held-out patterns, and reconstruct it.
    Ctrl-C ends the training with the best model so far; twice ends everything at once.
    """
    rank = own_rank()
    if not rank.alone:
        raise ConfigError(
            f'demo is the work of one process, but {rank.source} started {rank.count}; expected '
            'one. Use simulate, train and infer.'
        )
    chosen = {'backend': backend, **given(model), **given(training), **given(execution)}
    if data is None:
        _refuse_reading(reading)
    with progress_display(quiet=quiet) as display, output_folder(out) as folder:
        chosen = with_implied_architecture(chosen, display)
        run_config(chosen)  # a bad setting must not wait for data and framework
        known = None if data is None else read_one(data, reading, display)
        load_backend(backend, display)
        scans = _simulated(reading.photons, display) if known is None else _measured(known)
        run = _run(chosen, scans)
        outcome = _demonstrate(folder, scans, run, display)
    if json_output:
        say_json({**outcome.metrics, 'files': outcome.files})
        return
    _say(outcome, scans)


def _refuse_reading(reading: DemoReadingOptions) -> None:
    wanted = list(given(replace(reading, photons=None)))
    if wanted or reading.diffraction is not None:
        raise ConfigError(
            f'{", ".join(wanted) or "diffraction"} says how a file is read, but the scans are '
            'simulated; expected --data FILE with it.'
        )


def _simulated(photons: float | None, display: Display) -> _Scans:
    from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

    def settings(**values: Any) -> SimulationConfig:
        dose = PHOTONS if photons is None else photons
        return SimulationConfig.parse({'photons': dose, **values}, source='the simulation')

    configs = [
        settings(seed=TRAINING_SEED + number, n_positions=TRAINING_POSITIONS)
        for number in range(TRAINING_SCANS)
    ]
    configs.append(settings(seed=TEST_SEED, n_positions=TEST_POSITIONS, images='test'))
    scans = []
    for number, config in enumerate(configs, start=1):
        scans.append(simulate_scan(config))
        display.count('Simulating', number, len(configs))
    return _Scans(scans[:-1], scans[-1], simulated=True)


def _measured(scan: 'ScanData') -> _Scans:
    return _Scans([scan], scan, simulated=False)


def _run(chosen: dict[str, Any], scans: _Scans) -> 'RunConfig':
    """Return the settings: R is measured on those patterns of a scan that training never saw."""
    chosen = dict(chosen)
    if scans.simulated:
        chosen.setdefault('training.epochs', SIMULATED_EPOCHS)
    elif len(scans.test.probe) == 1 and chosen.get('model.architecture') != 'cnn':
        # Modes that the file lacks are mere guesses until sweeps refine them.
        chosen.setdefault('model.sweeps.probe_modes', MEASURED_PROBE_MODES)
    run = run_config(chosen, n_px=scans.test.n_px)
    inference = {
        'inference.refine': chosen.get('model.sweeps_after'),
        'inference.held_out_fraction': run.training.held_out_fraction,
        'inference.seed': run.training.seed,
    }
    return run_config(inference, base=run)


def _demonstrate(folder: Path, scans: _Scans, run: 'RunConfig', display: Display) -> Outcome:
    from ptychodus_torch_plugin.pictures import preview_png
    from ptychodus_torch_plugin.placed_objects import object_of_scan

    start = time.perf_counter()
    model = train_with_display(scans.training, run, display)
    seconds = round(time.perf_counter() - start, 2)
    summary = {**training_summary(model), 'scans': len(scans.training), 'seconds': seconds}
    files = _write_model(folder, model)  # at once: what follows may be interrupted
    truth = object_of_scan(scans.test, scans.test.name) if scans.simulated else None
    outcome = reconstruct_into(
        folder,
        model,
        scans.test,
        run,
        display,
        truth=truth,
        remarks={'training': summary},
    )
    with display.busy('Writing the model and the pictures'):
        outcome.files.update(_write_pictures(folder, scans, outcome) | files)
        preview = preview_png(outcome.result.object_, outcome.region)
        model.save(files['model'], preview_png=preview)
    return outcome


def _write_model(folder: Path, model: 'Model') -> dict[str, Path]:
    files = write_training(
        folder, model.history, best_epoch=model.best_epoch, stopped=model.stopped
    )
    with output_folder(folder / 'model') as place:
        files['model'] = model.save(place)
    return files


def _write_pictures(folder: Path, scans: _Scans, outcome: Outcome) -> dict[str, Path]:
    from ptychodus_torch_plugin.files.writing import write_scan
    from ptychodus_torch_plugin.pictures import draw_comparison

    result, scan = outcome.result, scans.test
    files = {'stages': folder / 'stages.png', 'scan': folder / 'scan.h5'}
    draw_comparison(
        files['stages'],
        result.stages,
        scan.object_guess if scans.simulated else None,
        outcome.region,
        pixel_size_m=scan.optics.pixel_size_m,
        title=f'{scan.name}: stage by stage',
    )
    write_scan(files['scan'], scan)
    return files


def _say(outcome: Outcome, scans: _Scans) -> None:
    say_reconstruction(outcome.metrics)
    if scans.simulated:
        typer.echo(
            'PSNR (dB) and SSIM are against the true object, which training has not seen: it saw '
            f'{len(scans.training)} scans of other photographs.'
        )
    typer.echo(
        'R held out: of a second reconstruction, on patterns to which neither it nor the training '
        'was fitted.'
    )
    say_files(outcome.files)
