"""`infer`: an object from a scan, by a trained model or by sweeps alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from ptychodus_torch_plugin.cli.cnn_options import NeighborCount, cnn_setting
from ptychodus_torch_plugin.cli.deprecated import Device, replace_device
from ptychodus_torch_plugin.cli.execution_options import ExecutionOptions
from ptychodus_torch_plugin.cli.following import (
    FollowOptions,
    begun,
    check_follow,
    follow_into,
)
from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.halves import Half, check_half, take
from ptychodus_torch_plugin.cli.model_options import (
    Modes,
    RefineIntensity,
    RefinePositions,
    RefineProbe,
)
from ptychodus_torch_plugin.cli.options import Backend, Json, Quiet, given, output_dir, setting
from ptychodus_torch_plugin.cli.outputs import output_folder
from ptychodus_torch_plugin.cli.parts import (
    Merge,
    Part,
    parts_folder,
    parts_of,
    remove_parts,
    share_of,
)
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.reconstruction import as_in_training, reconstruct_into
from ptychodus_torch_plugin.cli.report import say_files, say_json, say_reconstruction
from ptychodus_torch_plugin.cli.settings import load_backend, read_one, read_truth, run_config
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.ranks import Rank, own_rank

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.config import ModelConfig, RunConfig
    from ptychodus_torch_plugin.scan import ScanData

PatchWeighting = Literal['probe', 'uniform']


@dataclass(frozen=True)
class SweepOptions:
    """Sweeps alone, without a trained model."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'architecture': 'model.architecture',
        'sweeps': 'model.sweeps_before',
        'probe_modes': 'model.sweeps.probe_modes',
        'refine_probe': 'model.sweeps.refine_probe',
        'refine_intensity': 'model.sweeps.refine_intensity',
        'refine_positions': 'model.sweeps.refine_positions',
    }

    architecture: Annotated[
        Literal['none'] | None,
        typer.Option(help='none: no model, physics sweeps alone. The next five options go along.'),
    ] = None
    sweeps: Annotated[
        int | None,
        setting('--sweeps', default='20', what='Whole-scan physics sweeps without a model.'),
    ] = None
    probe_modes: Modes = None
    refine_probe: RefineProbe = None
    refine_intensity: RefineIntensity = None
    refine_positions: RefinePositions = None


CNN_SETTINGS = {
    'neighbor_count': 'inference.neighbor_count',
    'patch_weighting': 'inference.patch_weighting',
    'inference_batch_size': 'execution.inference_batch_size',
}


@dataclass(frozen=True)
class InferenceOptions:
    """How a scan is reconstructed; see `config.InferenceConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'refine': 'inference.refine',
        'held_out': 'inference.held_out_fraction',
        'seed': 'inference.seed',
        **CNN_SETTINGS,
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
    neighbor_count: NeighborCount = None
    patch_weighting: Annotated[
        PatchWeighting | None,
        cnn_setting(
            '--patch-weighting',
            default='probe',
            what="weight of a patch where patches overlap: the probe's intensity, or 1.",
        ),
    ] = None
    inference_batch_size: Annotated[
        int | None,
        cnn_setting(
            '--inference-batch-size',
            default="the backend's own",
            what='groups that the network sees at once.',
        ),
    ] = None


@with_groups
def infer(
    *,
    test_data: Annotated[
        Path,
        typer.Option('--test_data', metavar='FILE', help='Scan file to reconstruct.'),
    ],
    model_path: Annotated[
        Path | None,
        typer.Option(
            '--model_path',
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
    gridsize: Annotated[
        int | None,
        typer.Option(help='Refuse a model for groups of another size. [default: any]'),
    ] = None,
    quiet: Quiet = False,
    json_output: Json = False,
    sweeps: SweepOptions,
    inference: InferenceOptions,
    execution: ExecutionOptions,
    following: FollowOptions,
    half: Half = None,
    part: Part = None,
    merge: Merge = False,
    device: Device = None,
    reading: ReadingOptions,
) -> None:
    """Reconstruct the object of a scan.

    Writes it as a Ptychodus product, as arrays and as a picture, with R-factors on the fitted
    patterns and on patterns that a second reconstruction never saw.
    Several processes, of torchrun or srun, share the work of a 'cnn'; the first one writes.
    With --half it makes the object of one half of the patterns, for 'evaluate --half'.
    With --follow it shows the object of a scan that is still being measured.
    """
    rank = own_rank()
    share = share_of(part, merge=merge, rank=rank)
    check_follow(following, reading, several=share is not None or not rank.alone)
    _check_choice(model_path, sweeps)
    chosen = {**given(inference), **given(execution), **given(sweeps)}
    chosen = replace_device(chosen, device)
    alone = share is None and rank.alone and not following.follow
    chosen = check_half(half, chosen, alone=alone)
    with (
        progress_display(quiet=quiet or not rank.first) as display,
        output_folder(out, writes=rank.first) as folder,
        parts_folder(out, share),
    ):
        model = None if model_path is None else _load(model_path, backend, display)
        _check_fit(None if model is None else model.config, gridsize, chosen)
        if share is not None:
            _check_parts(model)
        source = begun(test_data, following, reading, display) if following.follow else None
        scan = read_one(test_data, reading, display) if source is None else source.scan()
        if model is None:
            load_backend(backend, display)
            run = run_config(chosen, n_px=scan.n_px)
            model = _sweeps_alone(scan, run, backend)
        else:
            run = run_config(as_in_training(model, scan) | chosen)
        taken = take(scan, half, model)
        scan = taken.scan
        known = None if truth is None else read_truth(truth, scan, display)
        parts: list[Path] | None = None
        if share is not None:
            parts = parts_of(folder, model, scan, run, display, share)
            if not share.merges:
                _say_part(parts, rank, json_output=json_output)
                return
        result = None
        if source is not None:
            scan, result = follow_into(folder, model, source, run, following, display)
        outcome = reconstruct_into(
            folder,
            model,
            scan,
            run,
            display,
            truth=known,
            parts=parts,
            result=result,
            rows=taken.rows,
            remarks=taken.remarks,
        )
        remove_parts(parts or [], share)
    if json_output:
        say_json({**outcome.metrics, 'files': outcome.files})
        return
    say_reconstruction(outcome.metrics)
    say_files(outcome.files)


def _check_parts(model: 'Model | None') -> None:
    from ptychodus_torch_plugin.parts import check_parts

    check_parts('none' if model is None else model.config.architecture)


def _say_part(parts: list[Path], rank: Rank, *, json_output: bool) -> None:
    if not rank.first:
        return
    files = {'part': parts[0]}
    if json_output:
        say_json({'files': files})
    else:
        say_files(files)


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


def _check_fit(config: 'ModelConfig | None', gridsize: int | None, chosen: dict[str, Any]) -> None:
    """Refuse a model for other groups, and what means nothing to the model."""
    architecture = 'none' if config is None else config.architecture
    made_for = 1 if config is None else config.gridsize
    if gridsize not in (None, made_for):
        raise ConfigError(
            f'the model is for gridsize = {made_for} (architecture {architecture!r}), but '
            f'--gridsize {gridsize} was asked for; expected --gridsize {made_for}, or none: the '
            f'model knows its own. Or train a model for gridsize = {gridsize}.'
        )
    strange = [path.split('.')[1] for path in CNN_SETTINGS.values() if path in chosen]
    if strange and architecture != 'cnn':
        raise ConfigError(
            f"{', '.join(strange)}: for architecture 'cnn' alone, but the model is "
            f'{architecture!r}; expected none of them.'
        )


def _load(path: Path, backend: str | None, display: Display) -> 'Model':
    with display.busy(f'Loading {path.name}'):
        from ptychodus_torch_plugin.api import load_bundle

        return load_bundle(path, backend=backend)


def _sweeps_alone(scan: 'ScanData', run: 'RunConfig', backend: str | None) -> 'Model':
    from ptychodus_torch_plugin.api import train

    return train([scan], run.model, backend=backend)
