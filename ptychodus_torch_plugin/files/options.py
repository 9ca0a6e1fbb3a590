"""`ReadOptions`: what a user may say about a scan file that the file does not say itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.scan import MAX_PATTERN_PX, MIN_PATTERN_PX, PATTERN_MULTIPLE_PX

FileKind = Literal[
    'scan', 'ptychopinn', 'ptychodus-npz', 'ptychodus-training', 'ptychodus-product', 'tike'
]
FileKindOption = Literal[
    'auto', 'scan', 'ptychopinn', 'ptychodus-npz', 'ptychodus-training', 'ptychodus-product', 'tike'
]
DiffractionKind = Literal['amplitude', 'intensity']
DiffractionKindOption = Literal['auto', 'amplitude', 'intensity']
BeamCenterOption = Literal['auto', 'center', 'corner']
PositionAnchor = Literal['center', 'center-pixel', 'first-pixel']


@dataclass(frozen=True)
class ReadOptions:
    """How to read a scan file.

    Attributes
    ----------
    file_kind
        The layout of the file; ``'auto'`` tells it from the keys.
    diffraction_kind
        What the patterns hold.  ``'auto'`` goes by a stored tag, a `bad_pixels` key or an integer
        dtype, and otherwise by the documented contract of the layout.
    beam_center
        Where the beam lies: pixel [N//2, N//2] or pixel [0, 0].  ``'auto'`` means the centre, and
        refuses a file whose patterns clearly say otherwise.
    position_anchor
        The point of a patch that the file's positions denote: its centre (N - 1) / 2, its pixel
        N // 2, or its pixel 0.
    crop_px
        Crop the detector to so many central pixels.
    photons
        Scale the patterns so that this is the mean total count of a pattern, for files whose
        patterns were normalised.
    background
        Counts per pixel and pattern that the beam has no part in, in the units of the file's
        intensities: a number, or a file with one for each pixel (`files.background`).  Replaces
        what the file says.
    pixel_size_m, photon_energy_eV, detector_distance_m
        Replace what the file says: side of the object pixel, photon energy, distance.

    Raises
    ------
    ConfigError
        On construction, if a value is not among those allowed.
    """

    file_kind: FileKindOption = 'auto'
    diffraction_kind: DiffractionKindOption = 'auto'
    beam_center: BeamCenterOption = 'auto'
    position_anchor: PositionAnchor = 'center'
    crop_px: int | None = None
    photons: float | None = None
    background: float | str | Path | None = None
    pixel_size_m: float | None = None
    photon_energy_eV: float | None = None
    detector_distance_m: float | None = None

    def __post_init__(self) -> None:
        _check_choice('file_kind', self.file_kind, get_args(FileKindOption))
        _check_choice('diffraction_kind', self.diffraction_kind, get_args(DiffractionKindOption))
        _check_choice('beam_center', self.beam_center, get_args(BeamCenterOption))
        _check_choice('position_anchor', self.position_anchor, get_args(PositionAnchor))
        _check_positive('photons', self.photons)
        _check_background(self.background)
        _check_positive('pixel_size_m', self.pixel_size_m)
        _check_positive('photon_energy_eV', self.photon_energy_eV)
        _check_positive('detector_distance_m', self.detector_distance_m)
        _check_crop(self.crop_px)


def is_pattern_size(n_px: int) -> bool:
    """Return whether `ScanData` takes patterns of this side."""
    return n_px % PATTERN_MULTIPLE_PX == 0 and MIN_PATTERN_PX <= n_px <= MAX_PATTERN_PX


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f'{name} is {value!r}; expected one of {", ".join(choices)}.')


def _check_positive(name: str, value: Any) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value > 0):
        raise ConfigError(f'{name} is {value!r}; expected a finite number above 0, or None.')


def as_number(background: float | str | Path) -> float | None:
    """Return the counts per pixel that are meant, or `None` if it is the name of a file."""
    try:
        return float(background)  # type: ignore[arg-type]  # a path is refused below
    except (TypeError, ValueError):
        return None


def _check_background(background: float | str | Path | None) -> None:
    number = None if background is None else as_number(background)
    if number is not None and not (math.isfinite(number) and number >= 0):
        raise ConfigError(
            f'background is {background!r}; expected counts per pixel, 0 or more, or a file.'
        )


def _check_crop(crop_px: Any) -> None:
    if crop_px is None:
        return
    if not isinstance(crop_px, int) or isinstance(crop_px, bool) or not is_pattern_size(crop_px):
        raise ConfigError(
            f'crop_px is {crop_px!r}; expected a multiple of {PATTERN_MULTIPLE_PX} '
            f'from {MIN_PATTERN_PX} to {MAX_PATTERN_PX}, or None.'
        )
