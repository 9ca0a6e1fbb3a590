"""Options that say what `infer` reconstructs, by what and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from ptychodus_torch_plugin.cli.cnn_options import NeighborCount, cnn_setting
from ptychodus_torch_plugin.cli.model_options import (
    Modes,
    RefineIntensity,
    RefinePositions,
    RefineProbe,
)
from ptychodus_torch_plugin.cli.options import setting

PatchWeighting = Literal['probe', 'uniform']

TestData = Annotated[
    Path,
    typer.Option('--test_data', metavar='FILE', help='Scan file to reconstruct.'),
]
ModelPath = Annotated[
    Path | None,
    typer.Option(
        '--model_path',
        metavar='PATH',
        help='Model bundle (wts.h5.zip), or the folder that holds it. [default: pretrained, the '
        'one that comes with the package]',
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        metavar='FILE',
        help='Scan file or product with the true object, to measure each stage against it.',
    ),
]
Gridsize = Annotated[
    int | None,
    typer.Option(help='Refuse a model for groups of another size. [default: any]'),
]


@dataclass(frozen=True)
class SweepOptions:
    """Sweeps alone, or those around the network of the package's own model."""

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
        typer.Option(
            help='none: no network, physics sweeps alone. The next five options go along with '
            'this, or with the pretrained model.'
        ),
    ] = None
    sweeps: Annotated[
        int | None,
        setting(
            '--sweeps',
            default='by number and overlap of the patterns, from 20 to 80',
            what='Whole-scan physics sweeps, before the network if there is one.',
        ),
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
            what='Fraction of the patterns that another reconstruction leaves out to measure R on '
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
