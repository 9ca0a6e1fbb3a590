"""What of an object is drawn, in which colours, and how large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, check_array
from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.picture_layout import pixel_aspect

KINDS = {'amplitude': 'Amplitude', 'phase': 'Phase (rad)'}
# Percentiles: a few hot or dead pixels must not decide the contrast.
CONTRAST = (0.5, 99.5)


@dataclass(frozen=True)
class View:
    """The scanned part of an object as it is drawn; masked where nothing was scanned."""

    amplitude: np.ma.MaskedArray[Any, Any]
    phase: np.ma.MaskedArray[Any, Any]

    @classmethod
    def of(cls, object_: ComplexArray, scanned: BoolArray, mean: complex | None = None) -> View:
        """Return what is drawn of an object (h, w), cropped to where it was scanned (h, w).

        A global phase is taken away: that of `mean`, or else of the object's own `mean_phasor`.
        """
        sizes = dict(zip('hw', scanned.shape, strict=True))
        check_array(object_, 'h w', name='object', sizes=sizes)
        scanned = scanned & np.isfinite(object_)
        if not scanned.any():
            raise ScanValueError('object has no finite value in its scanned part; cannot draw it.')
        box = bounding_box(scanned)
        mask, values = ~scanned[box], object_[box].astype(np.complex128)
        mean = mean_phasor(values[~mask]) if mean is None else mean
        return cls(
            np.ma.masked_array(np.abs(values), mask),
            np.ma.masked_array(np.angle(values * np.conj(mean)), mask),
        )

    def part(self, kind: str) -> np.ma.MaskedArray[Any, Any]:
        """Return the image of one of `KINDS`."""
        return self.amplitude if kind == 'amplitude' else self.phase

    def limits(self, kind: str) -> tuple[float, float]:
        """Return robust colour limits of the scanned part."""
        low, high = (float(v) for v in np.percentile(self.part(kind).compressed(), CONTRAST))
        # Some room at both ends; and a flat image gets a middle tone, not amplified rounding.
        margin = max(0.04 * (high - low), 1e-3)
        return low - margin, high + margin


def bounding_box(scanned: BoolArray) -> tuple[slice, ...]:
    """Return the smallest box around the True of (h, w)."""
    return tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(scanned))


def mean_phasor(values: NDArray[Any]) -> complex:
    """Return the sum of the phasors of complex values.

    Phasors, not values: a bright part must not decide alone where the phase is zero.
    """
    return complex(np.exp(1j * np.angle(values)).sum())


def scanned_part(object_: ComplexArray, occupancy: NDArray[Any] | None) -> BoolArray:
    """Return (h, w) bool: where `occupancy` is not 0; everywhere without one."""
    check_array(object_, 'h w', name='object')
    if occupancy is None:
        return np.ones(object_.shape, dtype=np.bool_)
    sizes = dict(zip('hw', object_.shape, strict=True))
    scanned: BoolArray = check_array(occupancy, 'h w', name='occupancy', sizes=sizes) != 0
    if not scanned.any():
        raise ScanValueError('occupancy is zero everywhere; expected a scanned part to draw.')
    return scanned


def panel_size(
    view: View, pixel_size_m: tuple[float, float] | None, *, side: float
) -> tuple[float, float]:
    """Return width and height in inches; the longer one is `side`."""
    height, width = view.phase.shape
    tall = height * pixel_aspect(pixel_size_m)
    scale = side / max(tall, width)
    return width * scale, tall * scale


def quality(psnr_dB: float, ssim: float) -> str:
    """Return a caption with both figures of an amplitude or a phase."""
    return 'truth is flat' if math.isnan(psnr_dB) else f'PSNR {psnr_dB:.1f} dB · SSIM {ssim:.3f}'
