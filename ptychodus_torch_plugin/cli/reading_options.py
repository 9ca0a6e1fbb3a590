"""Options that say how a scan file is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from ptychodus_torch_plugin.cli.options import setting

FileKind = Literal[
    'auto', 'scan', 'ptychopinn', 'ptychodus-npz', 'ptychodus-training', 'ptychodus-product', 'tike'
]
DiffractionKind = Literal['auto', 'amplitude', 'intensity']
BeamCenter = Literal['auto', 'center', 'corner']
PositionAnchor = Literal['center', 'center-pixel', 'first-pixel']


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
        'background': 'background',
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
    background: Annotated[
        str | None,
        setting(
            '--background',
            default='as stored',
            what='Counts per pixel that the beam has no part in: a number, or a .npy, NPZ or HDF5 '
            'file with one for each pixel.',
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
    photon_energy_eV: Annotated[
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
