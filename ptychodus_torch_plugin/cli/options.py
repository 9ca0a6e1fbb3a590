"""Options that several commands share.

An option of `None` was not given: the settings' own default holds, which the help states
(`tests/cli/test_defaults.py` compares them).  The choices are those of the settings, too; they
stand here once more because reading the settings would load NumPy and pydantic for a mere `--help`.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

FileKind = Literal[
    'auto', 'scan', 'ptychopinn', 'ptychodus-npz', 'ptychodus-training', 'ptychodus-product', 'tike'
]
DiffractionKind = Literal['auto', 'amplitude', 'intensity']
BeamCenter = Literal['auto', 'center', 'corner']
PositionAnchor = Literal['center', 'center-pixel', 'first-pixel']
Architecture = Literal['unrolled', 'none']
Objective = Literal['thinned', 'poisson']
Accelerator = Literal['auto', 'cpu', 'gpu', 'cuda', 'mps']
Precision = Literal['32-true', 'bf16-mixed']

DEFAULT_MARK = ' [default: '

Json = Annotated[
    bool, typer.Option('--json', help='Print the result as JSON, and nothing else, to stdout.')
]


def setting(*names: str, default: str, what: str) -> Any:
    """Return an option of `None` that says what it is and which default the settings have."""
    return typer.Option(*names, help=f'{what}{DEFAULT_MARK}{default}]', show_default=False)


Backend = Annotated[
    str | None,
    setting(
        '--backend',
        default='the first one installed',
        what='Backend that computes: pytorch, tensorflow, or one of another package.',
    ),
]


def output_dir(contents: str) -> Any:
    """Return the option for the output folder of a command, which will hold `contents`."""
    help_text = f'Folder for the results ({contents}); made if missing, files in it are replaced.'
    return typer.Option('--output_dir', '--output-dir', help=help_text)


@dataclass(frozen=True)
class ReadingOptions:
    """What a scan file does not say itself; see `files.options.ReadOptions`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'file_kind': 'file_kind',
        'diffraction_kind': 'diffraction_kind',
        'beam_center': 'beam_center',
        'position_anchor': 'position_anchor',
        'crop': 'crop_px',
        'photons': 'photons',
        'pixel_size_m': 'pixel_size_m',
        'photon_energy_eV': 'photon_energy_eV',
        'detector_distance_m': 'detector_distance_m',
    }

    file_kind: Annotated[
        FileKind | None,
        setting('--file-kind', default='auto', what='Layout of the file.'),
    ] = None
    diffraction_kind: Annotated[
        DiffractionKind | None,
        setting(
            '--diffraction-kind',
            default='auto',
            what='What the patterns hold: amplitudes (roots of counts) or intensities (counts).',
        ),
    ] = None
    beam_center: Annotated[
        BeamCenter | None,
        setting(
            '--beam-center',
            default='auto',
            what='Where the beam is: pixel [N//2, N//2], or pixel [0, 0] (not fftshifted).',
        ),
    ] = None
    position_anchor: Annotated[
        PositionAnchor | None,
        setting(
            '--position-anchor',
            default='center',
            what="Point of a patch that the file's positions denote.",
        ),
    ] = None
    crop: Annotated[
        int | None,
        setting(
            '--crop',
            default='the whole detector',
            what='Crop the detector to so many central pixels; the object pixel grows.',
        ),
    ] = None
    photons: Annotated[
        float | None,
        setting(
            '--photons',
            default='as stored',
            what='Mean total counts of a pattern, for files whose patterns were normalised.',
        ),
    ] = None
    pixel_size_m: Annotated[
        float | None,
        setting(
            '--pixel-size-m',
            default='as stored',
            what='Side of the object pixel in metres.',
        ),
    ] = None
    photon_energy_eV: Annotated[  # noqa: N815 - electron volts are written eV
        float | None,
        setting(
            '--photon-energy-eV',
            default='as stored',
            what='Photon energy in electron volts.',
        ),
    ] = None
    detector_distance_m: Annotated[
        float | None,
        setting(
            '--detector-distance-m',
            default='as stored',
            what='Distance from object to detector in metres.',
        ),
    ] = None
    diffraction: Annotated[
        Path | None,
        typer.Option(
            '--diffraction',
            metavar='FILE',
            help='Assembled diffraction data that belong to a Ptychodus product.',
        ),
    ] = None


Modes = Annotated[
    int | None,
    setting(
        '--probe-modes',
        default='as many as the scan has',
        what='Number of incoherent probe modes.',
    ),
]
RefineProbe = Annotated[
    bool | None,
    setting(
        '--refine-probe/--no-refine-probe',
        default='refine-probe',
        what='Whether the sweeps update the probe, too.',
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """What is trained; see `config.ModelConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'architecture': 'model.architecture',
        'sweeps_before': 'model.sweeps_before',
        'refine': 'model.sweeps_after',
        'probe_modes': 'model.sweeps.probe_modes',
        'refine_probe': 'model.sweeps.refine_probe',
    }

    architecture: Annotated[
        Architecture | None,
        setting(
            '--architecture',
            default='unrolled',
            what='unrolled: sweeps, a U-Net, sweeps; none: sweeps alone, nothing to train.',
        ),
    ] = None
    sweeps_before: Annotated[
        int | None,
        setting(
            '--sweeps-before',
            default='20',
            what='Whole-scan physics sweeps before the network (all of them, for none).',
        ),
    ] = None
    refine: Annotated[
        int | None,
        setting('--refine', default='3', what='Sweeps after the network; 0: off.'),
    ] = None
    probe_modes: Modes = None
    refine_probe: RefineProbe = None


@dataclass(frozen=True)
class TrainingOptions:
    """How it is trained; see `config.TrainingConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'objective': 'training.objective',
        'epochs': 'training.epochs',
        'seed': 'training.seed',
    }

    objective: Annotated[
        Objective | None,
        setting(
            '--objective',
            default='thinned',
            what='thinned: cannot learn the noise, needs whole counts; poisson: all counts.',
        ),
    ] = None
    epochs: Annotated[
        int | None,
        setting(
            '--max_epochs',
            '--max-epochs',
            '--epochs',
            '--nepochs',
            default='12',
            what='Most epochs.',
        ),
    ] = None
    seed: Annotated[
        int | None,
        setting('--seed', default='0', what='Seed of everything random.'),
    ] = None


@dataclass(frozen=True)
class ExecutionOptions:
    """On what; see `config.ExecutionConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'accelerator': 'execution.accelerator',
        'threads': 'execution.num_threads',
    }

    accelerator: Annotated[
        Accelerator | None,
        setting('--accelerator', default='auto', what='Device.'),
    ] = None
    threads: Annotated[
        int | None,
        setting(
            '--threads',
            default="the framework's choice",
            what='CPU threads.',
        ),
    ] = None


def given(options: Any) -> dict[str, Any]:
    """Return the options of a group that the user gave, by the path of the setting they change."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {
        path: values[name] for name, path in options.SETTINGS.items() if values[name] is not None
    }
