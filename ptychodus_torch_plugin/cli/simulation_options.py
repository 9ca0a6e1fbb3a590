"""Options that say what is simulated."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ptychodus_torch_plugin.cli.options import setting, switch

ObjectKind = Literal['natural', 'dead-leaves', 'siemens-star', 'circuit']
Images = Literal['training', 'test']
ScanKind = Literal['raster', 'spiral']


@dataclass(frozen=True)
class SimulationOptions:
    """What is simulated; see `simulate.SimulationConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'object_kind': 'object_kind',
        'images': 'images',
        'amplitude_min': 'amplitude_min',
        'phase_range_rad': 'phase_range_rad',
        'pattern_px': 'N',
        'scan': 'scan',
        'positions': 'n_positions',
        'step_px': 'step_px',
        'jitter': 'jitter',
        'offset_px': 'offset_px',
        'position_error_px': 'position_error_px',
        'probe_diameter_px': 'probe_diameter_px',
        'probe_modes': 'probe_modes',
        'photons': 'photons',
        'background': 'background',
        'intensity_variation': 'intensity_variation',
        'poisson': 'poisson',
        'seed': 'seed',
    }

    object_kind: Annotated[
        ObjectKind | None,
        setting('--object', '--object-kind', default='natural', what='What the object shows.'),
    ] = None
    images: Annotated[
        Images | None,
        setting(
            '--images',
            default='training',
            what='Photographs of natural objects; none is in both sets.',
        ),
    ] = None
    amplitude_min: Annotated[
        float | None,
        setting(
            '--amplitude-min',
            default='0.6',
            what='Smallest amplitude of the object; the largest is 1.',
        ),
    ] = None
    phase_range_rad: Annotated[
        float | None,
        setting(
            '--phase-range-rad',
            default='1.5',
            what='Largest phase of the object; the smallest is 0.',
        ),
    ] = None
    pattern_px: Annotated[
        int | None,
        setting('-N', '--pattern-px', default='64', what='Side of a diffraction pattern.'),
    ] = None
    scan: Annotated[
        ScanKind | None,
        setting('--scan', default='raster', what='Rows of positions, or a Fermat spiral.'),
    ] = None
    positions: Annotated[
        int | None,
        setting('--positions', default='484', what='Number of positions.'),
    ] = None
    step_px: Annotated[
        float | None,
        setting('--step-px', default='7.5', what='Distance of neighbouring positions.'),
    ] = None
    jitter: Annotated[
        float | None,
        setting(
            '--jitter',
            default='0.25',
            what='Largest displacement of a raster position along each axis, in steps.',
        ),
    ] = None
    offset_px: Annotated[
        tuple[float, float] | None,
        setting(
            '--offset-px',
            default='0.0 0.0',
            what='Shift (y x) of all positions over the same object, at most one step.',
        ),
    ] = None
    position_error_px: Annotated[
        float | None,
        setting(
            '--position-error-px',
            default='0.0',
            what='Standard deviation per axis of the error of the positions in the file.',
        ),
    ] = None
    probe_diameter_px: Annotated[
        float | None,
        setting(
            '--probe-diameter-px',
            default='three eighths of N',
            what='Second-moment diameter of the probe.',
        ),
    ] = None
    probe_modes: Annotated[
        int | None,
        setting('--probe-modes', default='1', what='Number of incoherent probe modes.'),
    ] = None
    photons: Annotated[
        float | None,
        setting('--photons', default='100000', what='Mean total counts of a pattern.'),
    ] = None
    background: Annotated[
        float | None,
        setting(
            '--background',
            default='0.0',
            what='Mean counts per pixel of a pattern that the beam has no part in.',
        ),
    ] = None
    intensity_variation: Annotated[
        float | None,
        setting(
            '--intensity-variation',
            default='0.0',
            what='Standard deviation of the intensity of the beam from pattern to pattern, '
            'relative to its mean.',
        ),
    ] = None
    poisson: Annotated[
        bool | None,
        switch(
            'poisson',
            default=True,
            what='Whether counts are drawn, or the patterns are the expected counts.',
        ),
    ] = None
    seed: Annotated[
        int | None,
        setting('--seed', default='0', what='Seed of everything random.'),
    ] = None
