"""How good a reconstruction is: figures that neither reward nor punish what nobody can know."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.alignment import Aligned, align, check_comparable
from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, PositionArray
from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.r_factors import r_factor
from ptychodus_torch_plugin.regions import largest_square, scanned_region
from ptychodus_torch_plugin.ring_correlation import FRC, Criterion, fourier_ring_correlation

__all__ = [
    'FRC',
    'Aligned',
    'ObjectMetrics',
    'align',
    'compare_aligned',
    'compare_objects',
    'complex_error',
    'fourier_ring_correlation',
    'psnr_dB',
    'r_factor',
    'scanned_region',
    'ssim',
]

SSIM_SIGMA_PX = 1.5
SSIM_WINDOW_PX = 11
# A reference that varies less, relative to its largest value, is flat up to rounding.
FLAT = 1e-6

RealImage = NDArray[np.floating[Any]]


def psnr_dB(image: RealImage, reference: RealImage, region: BoolArray) -> float:
    """Return 20 log10(range / rmse), the range being max - min of the reference in the region.

    Infinite where both agree exactly; NaN where the reference is flat, for then it has no range.

    Parameters
    ----------
    image, reference : (h, w) float
        Amplitudes or phases.
    region : (h, w) bool
        Where they are compared.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, values are not finite, or the region is empty.
    """
    check_comparable(image, reference, region)
    span = _range(reference, region)
    difference = image[region].astype(np.float64) - reference[region]
    rmse = math.sqrt(float(np.mean(difference**2)))
    if math.isnan(span):
        return math.nan
    return 20 * math.log10(span / rmse) if rmse > 0 else math.inf


def ssim(image: RealImage, reference: RealImage, region: BoolArray) -> float:
    """Return the structural similarity, averaged over the region; NaN for a flat reference.

    After Wang, Bovik, Sheikh and Simoncelli, IEEE Trans. Image Process. 13, 600 (2004): Gaussian
    weights of 1.5 px, and the range of `psnr_dB`.  Outside the region the image is taken to equal
    the reference, so that windows across the border see nothing that nobody measured.

    Parameters and errors are those of `psnr_dB`; images need at least 11 px on each side.
    """
    from skimage.metrics import structural_similarity

    check_comparable(image, reference, region)
    if min(image.shape) < SSIM_WINDOW_PX:
        raise ScanValueError(
            f'images are {image.shape[0]} x {image.shape[1]} px; '
            f'expected at least {SSIM_WINDOW_PX} px on each side for SSIM.'
        )
    span = _range(reference, region)
    if math.isnan(span):
        return math.nan
    truth = reference.astype(np.float64)
    _, local = structural_similarity(  # type: ignore[no-untyped-call]
        np.where(region, image, truth),
        truth,
        data_range=span,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_PX,
        use_sample_covariance=False,
        full=True,
    )
    return float(local[region].mean())


def complex_error(aligned: ComplexArray, reference: ComplexArray, region: BoolArray) -> float:
    """Return ||aligned - reference|| / ||reference|| over the region of two (h, w) objects."""
    check_comparable(aligned, reference, region)
    truth = reference[region].astype(np.complex128)
    return float(np.linalg.norm(aligned[region] - truth) / np.linalg.norm(truth))


@dataclass(frozen=True)
class ObjectMetrics:
    """What `compare_objects` found.

    Attributes
    ----------
    amplitude_psnr_dB, amplitude_ssim, phase_psnr_dB, phase_ssim
        NaN where the reference's amplitude or phase is flat; PSNR is infinite for a perfect match.
    complex_error
        Relative distance of the aligned object from the reference.
    frc_resolution_px, frc_nyquist_fraction
        Half-period resolution by the half-bit threshold; `None` and 1 if resolved to Nyquist.
    frc_resolution_m
        The same in metres, of the longer side of a pixel; `None` also where its size is not known.
    frc_criterion
        Which half-bit threshold that is: for 'halves' of the data, or for a 'noise-free' reference.
    shift_px, ramp_rad_per_px, scale_amplitude
        What `align` removed; the amplitude is that of `Aligned.scale`.
    region_px
        Number of pixels that were compared.
    frc
        The Fourier ring correlation itself, which `as_dict` leaves out.
    """

    amplitude_psnr_dB: float
    amplitude_ssim: float
    phase_psnr_dB: float
    phase_ssim: float
    complex_error: float
    frc_resolution_px: float | None
    frc_nyquist_fraction: float
    frc_resolution_m: float | None
    frc_criterion: Criterion
    shift_px: tuple[float, float]
    ramp_rad_per_px: tuple[float, float]
    scale_amplitude: float
    region_px: int
    frc: FRC = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, which has neither NaN nor infinity: these become `None`."""
        names = (each.name for each in fields(self) if each.name != 'frc')
        return {name: _json_value(getattr(self, name)) for name in names}


def compare_objects(
    object_: ComplexArray,
    reference: ComplexArray,
    region: BoolArray,
    *,
    pixel_size_m: tuple[float, float] | None = None,
    criterion: Criterion = 'noise-free',
) -> ObjectMetrics:
    """Align an object with a reference inside a region and measure how far apart they are.

    Parameters
    ----------
    object_, reference : (h, w) complex64
        Reconstruction and truth on the same grid.
    region : (h, w) bool
        Where they are compared, e.g. from `scanned_region`.
    pixel_size_m
        [height, width] of a pixel in metres, if known.
    criterion
        Whether the reference is the truth, or taken for it, or both are 'halves': objects of two
        halves of the data (see `fourier_ring_correlation`).

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, values are not finite, either is dark in the region, or no square of
        16 px fits into the region.
    """
    aligned = align(object_, reference, region)
    return compare_aligned(
        aligned, reference, region, pixel_size_m=pixel_size_m, criterion=criterion
    )


def compare_aligned(
    aligned: Aligned,
    reference: ComplexArray,
    region: BoolArray,
    *,
    pixel_size_m: tuple[float, float] | None = None,
    criterion: Criterion = 'noise-free',
) -> ObjectMetrics:
    """Measure how far an object that `align` laid on a reference is apart from it.

    Phases are compared through the angle of aligned times conjugate reference, so that no wrap of
    either counts as an error.  The ring correlation takes the largest square inside the region.
    Parameters and errors are those of `compare_objects`.
    """
    amplitude, true_amplitude = np.abs(aligned.object_), np.abs(reference)
    true_phase = _continuous_phase(reference, region)
    phase = true_phase + np.angle(aligned.object_ * reference.conj())
    square = largest_square(region)
    frc = fourier_ring_correlation(aligned.object_[square], reference[square], criterion)
    return ObjectMetrics(
        amplitude_psnr_dB=psnr_dB(amplitude, true_amplitude, region),
        amplitude_ssim=ssim(amplitude, true_amplitude, region),
        phase_psnr_dB=psnr_dB(phase, true_phase, region),
        phase_ssim=ssim(phase, true_phase, region),
        complex_error=complex_error(aligned.object_, reference, region),
        frc_resolution_px=frc.resolution_px(),
        frc_nyquist_fraction=frc.nyquist_fraction(),
        frc_resolution_m=frc.resolution_m(pixel_size_m),
        frc_criterion=criterion,
        shift_px=aligned.shift_px,
        ramp_rad_per_px=aligned.ramp_rad_per_px,
        scale_amplitude=abs(aligned.scale),
        region_px=int(np.count_nonzero(region)),
        frc=frc,
    )


def _range(reference: RealImage, region: BoolArray) -> float:
    """Return max - min of the reference in the region, NaN if it is flat."""
    values = reference[region]
    span = float(values.max()) - float(values.min())
    return span if span > FLAT * float(np.abs(values).max()) else math.nan


def _continuous_phase(reference: ComplexArray, region: BoolArray) -> PositionArray:
    """Return the phase about its circular mean, unwrapped if it jumps inside the region."""
    from skimage.restoration import unwrap_phase

    phasor = reference.astype(np.complex128)
    phase: PositionArray = np.angle(phasor * np.conj(phasor[region].sum()))
    if np.ptp(phase[region]) < FLAT:
        return np.zeros_like(phase)
    jumps = [
        (np.abs(np.diff(phase, axis=axis)) > np.pi)
        & np.take(region, range(1, region.shape[axis]), axis)
        & np.take(region, range(region.shape[axis] - 1), axis)
        for axis in (0, 1)
    ]
    if not any(jump.any() for jump in jumps):
        return phase
    masked = np.ma.masked_array(phase, ~region)
    return np.ma.filled(unwrap_phase(masked), 0.0)  # type: ignore[no-untyped-call]


def _json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
