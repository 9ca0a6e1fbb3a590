"""How good a reconstruction is: figures that neither reward nor punish what nobody can know."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.alignment import Aligned, align, check_comparable
from ptychodus_torch_plugin.arrays import (
    BoolArray,
    ComplexArray,
    FloatArray,
    IndexArray,
    PositionArray,
    check_array,
    check_finite,
)
from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.ring_correlation import FRC, fourier_ring_correlation

__all__ = [
    'FRC',
    'Aligned',
    'ObjectMetrics',
    'align',
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


def r_factor(predicted: FloatArray, counts: FloatArray, valid: BoolArray) -> float:
    """Return R = sum |sqrt(I) - sqrt(k)| / sum sqrt(k), the crystallographer's R of amplitudes.

    Parameters
    ----------
    predicted, counts : (n, N, N) float32
        Predicted intensity I and measured counts k.
    valid : (N, N) bool
        True where the detector counts; other pixels are left out.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes or dtypes differ, intensities are negative, or nothing was counted.
    """
    check_array(predicted, 'n N N', name='predicted', dtype=np.float32)
    n, n_px, _ = predicted.shape
    sizes = {'n': n, 'N': n_px}
    check_array(counts, 'n N N', name='counts', dtype=np.float32, sizes=sizes)
    check_array(valid, 'N N', name='valid', dtype=np.bool_, sizes=sizes)
    chosen, measured = predicted[:, valid], counts[:, valid]
    for values, name in ((chosen, 'predicted'), (measured, 'counts')):
        check_finite(values, name=name)
        if values.size and values.min() < 0:
            raise ScanValueError(f'{name} has a value of {values.min():g}; expected none below 0.')
    total = float(np.sqrt(measured).sum(dtype=np.float64))
    if total == 0:
        raise ScanValueError(
            f'counts is zero in all {measured.size} valid pixels; expected photon counts. '
            'Check bad_pixels and the choice of patterns.'
        )
    return float(np.abs(np.sqrt(chosen) - np.sqrt(measured)).sum(dtype=np.float64)) / total


def scanned_region(
    frame_shape: tuple[int, int],
    corners: IndexArray,
    n_px: int,
    probe_intensity: FloatArray,
    level: float = 0.1,
) -> BoolArray:
    """Return where the beam has been: the accumulated illumination exceeds `level` of its typical.

    The illumination is the sum of the probe's intensity over all positions.  Typical is its
    photon-weighted median: half of all photons fell on pixels with more.  Unlike the maximum, it
    does not rise when a few positions lie on top of each other, nor fall in a wide empty frame.

    Parameters
    ----------
    frame_shape
        Height and width of the canvas in pixels.
    corners : (n, 2) int64
        First pixel [y, x] of each patch on the canvas, from `ObjectFrame.corners`.
    n_px
        Side N of a patch.
    probe_intensity : (N, N) float
        Intensity of the probe, summed over its modes, on any scale.
    level
        Fraction of the typical illumination, above 0 and below 1.

    Returns
    -------
    region : (h, w) bool

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, a patch leaves the frame, or the probe is dark.
    """
    from scipy import fft

    check_array(corners, 'n 2', name='corners')
    check_array(probe_intensity, 'N N', name='probe_intensity', sizes={'N': n_px})
    check_finite(probe_intensity, name='probe_intensity')
    if not 0 < level < 1:
        raise ScanValueError(f'level is {level:g}; expected a fraction between 0 and 1.')
    room = np.asarray(frame_shape) - n_px
    if len(corners) == 0 or (corners < 0).any() or (corners > room).any():
        raise ScanValueError(
            f'{len(corners)} patches of {n_px} px do not lie inside the {tuple(frame_shape)} px '
            'frame; expected at least one patch, and every patch inside. Use ObjectFrame.corners.'
        )
    if not probe_intensity.any() or probe_intensity.min() < 0:
        raise ScanValueError('probe_intensity is dark or negative; expected |probe|^2 of a beam.')
    visits = np.zeros(room + 1)
    np.add.at(visits, tuple(np.asarray(corners).T), 1.0)
    # As `scipy.signal.fftconvolve` does, which takes half a second to import.
    fast = [fft.next_fast_len(int(side), real=True) for side in frame_shape]
    spectrum = fft.rfft2(visits, fast) * fft.rfft2(np.asarray(probe_intensity, np.float64), fast)
    illumination = fft.irfft2(spectrum, fast)[: frame_shape[0], : frame_shape[1]]
    ordered = np.sort(illumination, axis=None)
    photons = np.cumsum(ordered)
    typical = ordered[np.searchsorted(photons, photons[-1] / 2)]
    region: BoolArray = illumination > level * typical
    return region


def psnr_dB(  # noqa: N802 - decibels are written dB
    image: RealImage, reference: RealImage, region: BoolArray
) -> float:
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
    shift_px, ramp_rad_per_px, scale_amplitude
        What `align` removed; the amplitude is that of `Aligned.scale`.
    region_px
        Number of pixels that were compared.
    """

    amplitude_psnr_dB: float  # noqa: N815 - decibels are written dB
    amplitude_ssim: float
    phase_psnr_dB: float  # noqa: N815
    phase_ssim: float
    complex_error: float
    frc_resolution_px: float | None
    frc_nyquist_fraction: float
    shift_px: tuple[float, float]
    ramp_rad_per_px: tuple[float, float]
    scale_amplitude: float
    region_px: int

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON, which has neither NaN nor infinity: these become `None`."""
        return {name: _json_value(value) for name, value in asdict(self).items()}


def compare_objects(
    object_: ComplexArray, reference: ComplexArray, region: BoolArray
) -> ObjectMetrics:
    """Align an object with a reference inside a region and measure how far apart they are.

    Phases are compared through the angle of aligned times conjugate reference, so that no wrap of
    either counts as an error.  The ring correlation takes the largest square inside the region.

    Parameters
    ----------
    object_, reference : (h, w) complex64
        Reconstruction and truth on the same grid.
    region : (h, w) bool
        Where they are compared, e.g. from `scanned_region`.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, values are not finite, either is dark in the region, or no square of
        16 px fits into the region.
    """
    aligned = align(object_, reference, region)
    amplitude, true_amplitude = np.abs(aligned.object_), np.abs(reference)
    true_phase = _continuous_phase(reference, region)
    phase = true_phase + np.angle(aligned.object_ * reference.conj())
    square = _largest_square(region)
    frc = fourier_ring_correlation(aligned.object_[square], reference[square])
    return ObjectMetrics(
        amplitude_psnr_dB=psnr_dB(amplitude, true_amplitude, region),
        amplitude_ssim=ssim(amplitude, true_amplitude, region),
        phase_psnr_dB=psnr_dB(phase, true_phase, region),
        phase_ssim=ssim(phase, true_phase, region),
        complex_error=complex_error(aligned.object_, reference, region),
        frc_resolution_px=frc.resolution_px(),
        frc_nyquist_fraction=frc.nyquist_fraction(),
        shift_px=aligned.shift_px,
        ramp_rad_per_px=aligned.ramp_rad_per_px,
        scale_amplitude=abs(aligned.scale),
        region_px=int(np.count_nonzero(region)),
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


def _largest_square(region: BoolArray) -> tuple[slice, slice]:
    """Return the largest square of odd side that lies inside the region."""
    from scipy import ndimage

    depth = ndimage.distance_transform_cdt(np.pad(region, 1), metric='chessboard')[1:-1, 1:-1]
    y, x = (int(i) for i in np.unravel_index(int(depth.argmax()), depth.shape))
    reach = int(depth[y, x])
    return slice(y - reach + 1, y + reach), slice(x - reach + 1, x + reach)


def _json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
