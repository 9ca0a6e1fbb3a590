"""`infer`: an object from a scan, by a trained model or by sweeps alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import (
    Backend,
    ExecutionOptions,
    Json,
    Modes,
    ReadingOptions,
    RefineProbe,
    given,
    output_dir,
    setting,
)
from ptychodus_torch_plugin.cli.outputs import output_folder
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.reconstruction import reconstruct_into, was_trained_on
from ptychodus_torch_plugin.cli.report import say_files, say_json, say_stages
from ptychodus_torch_plugin.cli.settings import load_backend, read_one, run_config
from ptychodus_torch_plugin.errors import ConfigError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.cli.comparison import PlacedObject
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.scan import ScanData


@dataclass(frozen=True)
class SweepOptions:
    """Sweeps alone, without a trained model."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'architecture': 'model.architecture',
        'sweeps': 'model.sweeps_before',
        'probe_modes': 'model.sweeps.probe_modes',
        'refine_probe': 'model.sweeps.refine_probe',
    }

    architecture: Annotated[
        Literal['none'] | None,
        typer.Option(help='none: no model, physics sweeps alone. The next three options go along.'),
    ] = None
    sweeps: Annotated[
        int | None,
        setting('--sweeps', default='20', what='Whole-scan physics sweeps without a model.'),
    ] = None
    probe_modes: Modes = None
    refine_probe: RefineProbe = None


@dataclass(frozen=True)
class InferenceOptions:
    """How a scan is reconstructed; see `config.InferenceConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'refine': 'inference.refine',
        'held_out': 'inference.held_out_fraction',
        'seed': 'inference.seed',
    }

    refine: Annotated[
        int | None,
        setting(
            '--refine',
            default="the model's own number",
            what='Sweeps after the network; 0: off.',
        ),
    ] = None
    held_out: Annotated[
        float | None,
        setting(
            '--held-out',
            default='0.1, or as in the training on this very scan',
            what='Fraction of the patterns that a second reconstruction leaves out to measure R on '
            'them; 0: none.',
        ),
    ] = None
    seed: Annotated[
        int | None,
        setting(
            '--seed',
            default='0, or as in the training on this very scan',
            what='Seed of the order of patterns and of the choice of held-out ones.',
        ),
    ] = None


@with_groups
def infer(
    *,
    test_data: Annotated[
        Path,
        typer.Option(
            '--test_data', '--test-data', metavar='FILE', help='Scan file to reconstruct.'
        ),
    ],
    model_path: Annotated[
        Path | None,
        typer.Option(
            '--model_path',
            '--model-path',
            metavar='PATH',
            help='Model bundle (wts.h5.zip), or the folder that holds it.',
        ),
    ] = None,
    out: Annotated[Path, output_dir('object.h5, object.npz, object.png, metrics.json')] = Path(
        'inference_outputs'
    ),
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE',
            help='Scan file or product with the true object, to measure each stage against it.',
        ),
    ] = None,
    backend: Backend = None,
    json_output: Json = False,
    sweeps: SweepOptions,
    inference: InferenceOptions,
    execution: ExecutionOptions,
    reading: ReadingOptions,
) -> None:
    """Reconstruct the object of a scan.

    Writes it as a Ptychodus product, as arrays and as a picture, with R-factors on the fitted
    patterns and on patterns that a second reconstruction never saw.
    """
    _check_choice(model_path, sweeps)
    with progress_display() as display, output_folder(out) as folder:
        model = None if model_path is None else _load(model_path, backend, display)
        scan = read_one(test_data, reading, display)
        chosen = {**given(inference), **given(execution), **given(sweeps)}
        if model is None:
            load_backend(backend, display)
            run = run_config(chosen, n_px=scan.n_px)
            model = _sweeps_alone(scan, run, backend)
        else:
            run = run_config(_as_in_training(model, scan) | chosen)
        known = None if truth is None else _truth(truth, scan, display)
        outcome = reconstruct_into(folder, model, scan, run, display, truth=known)
    if json_output:
        say_json({**outcome.metrics, 'files': outcome.files})
        return
    title = f'{scan.name}: {scan.n_patterns} patterns of {scan.n_px} x {scan.n_px} px'
    say_stages(title, outcome.metrics['stages'])
    say_files(outcome.files)


def _check_choice(model_path: Path | None, sweeps: SweepOptions) -> None:
    if model_path is None and sweeps.architecture is None:
        raise ConfigError(
            'no model was given; expected --model_path PATH, or --architecture none for physics '
            'sweeps alone.'
        )
    if model_path is not None and given(sweeps):
        raise ConfigError(
            f'{model_path} says how many sweeps and probe modes it takes; expected no '
            '--architecture, --sweeps, --probe-modes or --refine-probe along with a model. '
            '--refine sets the sweeps after the network.'
        )


def _load(path: Path, backend: str | None, display: Display) -> 'Model':
    with display.busy(f'Loading {path.name}'):
        from ptychodus_torch_plugin.api import load_bundle

        return load_bundle(path, backend=backend)


def _sweeps_alone(scan: 'ScanData', run: 'RunConfig', backend: str | None) -> 'Model':
    from ptychodus_torch_plugin.api import train

    return train([scan], run.model, backend=backend)


def _as_in_training(model: 'Model', scan: 'ScanData') -> dict[str, Any]:
    """Hold out what the training on this scan held out, for only those patterns are unseen."""
    if model.training is None or not was_trained_on(model, scan):
        return {}
    return {
        'inference.held_out_fraction': model.training.held_out_fraction,
        'inference.seed': model.training.seed,
    }


def _truth(path: Path, scan: 'ScanData', display: Display) -> 'PlacedObject':
    """Return the true object; refuse one of another place or pixel before any work."""
    with display.busy(f'Reading {path.name}'):
        from ptychodus_torch_plugin.cli.comparison import common_part, place, true_object

        truth = true_object(path)
        common_part(place(scan, scan.frame), truth)
        return truth
