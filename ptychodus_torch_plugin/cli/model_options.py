"""Options that say what is trained."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ptychodus_torch_plugin.cli.options import setting, switch

Architecture = Literal['unrolled', 'cnn', 'none']

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
    switch('refine-probe', default=True, what='Whether the sweeps update the probe, too.'),
]
RefineIntensity = Annotated[
    bool | None,
    switch(
        'refine-intensity',
        default=False,
        what='Whether the sweeps find the intensity of the beam for each pattern.',
    ),
]
RefinePositions = Annotated[
    bool | None,
    switch(
        'refine-positions',
        default=False,
        what='Whether the sweeps correct the position of each pattern.',
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """What is trained; see `config.ModelConfig`, and `cnn_options` for the rest of 'cnn'."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'architecture': 'model.architecture',
        'gridsize': 'model.gridsize',
        'sweeps_before': 'model.sweeps_before',
        'refine': 'model.sweeps_after',
        'probe_modes': 'model.sweeps.probe_modes',
        'refine_probe': 'model.sweeps.refine_probe',
        'refine_intensity': 'model.sweeps.refine_intensity',
        'refine_positions': 'model.sweeps.refine_positions',
    }

    architecture: Annotated[
        Architecture | None,
        setting(
            '--architecture',
            default='unrolled, but with --gridsize cnn',
            what="unrolled: sweeps, a U-Net, sweeps; cnn: PtychoPINN's network, from groups of "
            'patterns to patches of the object; none: sweeps alone, nothing to train.',
        ),
    ] = None
    gridsize: Annotated[
        int | None,
        setting('--gridsize', default='1', what='cnn: a group has C = gridsize^2 patterns.'),
    ] = None
    sweeps_before: Annotated[
        int | None,
        setting(
            '--sweeps-before',
            default='by number and overlap of the patterns, from 20 to 80',
            what='Whole-scan physics sweeps before the network (all of them, for none).',
        ),
    ] = None
    refine: Annotated[
        int | None,
        setting('--refine', default='0', what='Sweeps after the network.'),
    ] = None
    probe_modes: Modes = None
    refine_probe: RefineProbe = None
    refine_intensity: RefineIntensity = None
    refine_positions: RefinePositions = None
