"""Seeded simulated scans: object, zone-plate probe, positions, Poisson counts.

What is random comes from one stream per purpose, so that two scans whose settings differ only in
dose, say, have the same object, probe and positions.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.random import Generator
from pydantic import Field, model_validator
from scipy.constants import c as speed_of_light
from scipy.constants import eV, h
from scipy.optimize import brentq

from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray
from ptychodus_torch_plugin.config.settings import Count, Positive, Settings
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.phantoms import ImageSet, ObjectKind, make_object
from ptychodus_torch_plugin.physics import Complex, Real, near_field, predict_counts, shift_probe
from ptychodus_torch_plugin.probes import center_px, with_modes
from ptychodus_torch_plugin.scan import (
    MAX_PATTERN_PX,
    MIN_PATTERN_PX,
    PATTERN_MULTIPLE_PX,
    ScanData,
)

PUPIL_OUTER = 0.2
PUPIL_INNER = 0.08
PUPIL_EDGE = 0.04
"""Radii of the pupil and width of its soft edges, in cycles per object pixel (0.5 is the edge of
the detector).  The undiffracted beam fills less than half of the detector's width."""

ABERRATION_RAD = 0.6
"""Largest astigmatism, and largest coma, at the rim of the pupil."""

SECOND_MODE = 2 / 17
"""Energy of the second mode over the first; each further one has half of the one before.  Three
modes share 0.85, 0.10 and 0.05."""

PHOTON_ENERGY_EV = 8800.0
DETECTOR_PIXEL_M = 75e-6
OBJECT_PIXEL_M = 20e-9

MARGIN_PX = 2
"""Pixels around the outermost patches of a scan with the largest jitter and offset."""

CHUNK_VALUES = 2**19
"""Complex numbers per array while patterns are predicted: what a cache holds, not memory."""

Length = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class SimulationConfig(Settings):
    """What is simulated."""

    object_kind: ObjectKind = 'natural'
    """What the object shows."""
    images: ImageSet = 'training'
    """Photographs of 'natural' objects; none is in both sets."""
    amplitude_min: float = Field(0.6, ge=0.0, le=1.0)
    """Smallest amplitude of the object; the largest is 1."""
    phase_range_rad: float = Field(1.5, ge=0.0, le=2 * np.pi)
    """Largest phase of the object; the smallest is 0."""
    N: int = Field(64, ge=MIN_PATTERN_PX, le=MAX_PATTERN_PX, multiple_of=PATTERN_MULTIPLE_PX)
    """Side of a diffraction pattern in pixels."""
    scan: Literal['raster', 'spiral'] = 'raster'
    """Rows of positions, or a Fermat spiral of the same density."""
    n_positions: Positive = 484
    """Number of positions; a raster is square and takes the nearest square number."""
    step_px: Length = 7.5
    """Distance of neighbouring positions in pixels."""
    jitter: float = Field(0.25, ge=0.0, le=0.5)
    """Largest displacement of a raster position along each axis, in steps, uniform; a spiral,
    which has no period to break, is not displaced."""
    offset_px: tuple[Finite, Finite] = (0.0, 0.0)
    """Shift [y, x] of all positions over the same object, at most one step."""
    position_error_px: float = Field(0.0, ge=0.0, le=100.0)
    """Standard deviation per axis of the error of the positions that the scan reports."""
    probe_diameter_px: Length | None = None
    """Second-moment diameter (D4 sigma) of the first probe mode; None takes 0.375 N, and
    at least 10: the pupil has no finer focus."""
    probe_modes: int = Field(1, ge=1, le=8)
    """Number of incoherent probe modes."""
    photons: float = Field(1e5, gt=0.0, le=1e12)
    """Mean total counts of a pattern, without the background."""
    background: float = Field(0.0, ge=0.0, le=1e9)
    """Mean counts per pixel of a pattern that the beam has no part in."""
    intensity_variation: float = Field(0.0, ge=0.0, le=2.0)
    """Standard deviation of the intensity of the beam from pattern to pattern, relative to its
    mean; the distribution is lognormal."""
    poisson: bool = True
    """Whether counts are drawn; without it the patterns are the expected counts."""
    seed: Count = 0
    """Seed of everything random."""

    @model_validator(mode='after')
    def _check_offset(self) -> Self:
        if max(map(abs, self.offset_px)) > self.step_px:
            raise ValueError(
                f'offset_px = {self.offset_px} is more than step_px = {self.step_px}; expected at '
                'most one step, so that every offset fits on the same object'
            )
        return self


def simulate_scan(config: SimulationConfig) -> ScanData:
    """Simulate a scan; the same settings give the same bits.

    Returns
    -------
    ScanData
        `object_guess` is the true object on the grid of the positions and `probe` the true probe,
        so that both together predict the expected counts, whose mean total is `config.photons`;
        `background` adds to them.
        `positions_px` are the true positions plus `config.position_error_px`.

    Raises
    ------
    ConfigError
        If the probe cannot have the diameter asked for.
    ScanValueError
        If `config.photons` is so low that no photon is counted.
    """
    seeds = np.random.SeedSequence(config.seed).spawn(5)
    object_rng, scan_rng, error_rng, noise_rng, beam_rng = map(np.random.default_rng, seeds)
    true_positions, side_px = _positions(config, scan_rng)
    truth = make_object(
        config.object_kind,
        side_px,
        object_rng,
        amplitude_min=config.amplitude_min,
        phase_range_rad=config.phase_range_rad,
        images=config.images,
    )
    probe = _modes(config)
    expected = expected_counts(truth, probe, true_positions)
    expected *= _intensities(config, len(expected), beam_rng)[:, None, None]
    scale = config.photons * len(expected) / float(expected.sum())
    expected *= scale
    expected += config.background
    patterns = noise_rng.poisson(expected) if config.poisson else expected
    square = config.N, config.N
    return ScanData(
        patterns=patterns.astype(np.float32),
        positions_px=_reported(true_positions, config, side_px, error_rng),
        probe=(probe * np.sqrt(scale)).astype(np.complex64),
        bad_pixels=np.zeros(square, dtype=np.bool_),
        object_guess=truth,
        background=np.full(square, config.background, np.float32) if config.background else None,
        optics=_optics(config.N, side_px),
        name=_name(config),
        provenance=(f'simulated with {config.model_dump_json()}',),
    )


def _intensities(config: SimulationConfig, n_patterns: int, rng: Generator) -> Real:
    """Return the intensity of the beam for each pattern, (n,) of mean 1."""
    sigma = np.sqrt(np.log1p(config.intensity_variation**2))
    intensities = np.exp(sigma * rng.standard_normal(n_patterns))
    return np.asarray(intensities / intensities.mean())


def expected_counts(object_: Complex, probe: Complex, positions_px: PositionArray) -> Real:
    """Return the noise-free patterns (n, N, N) float64 of `object_` (h, w) at patch centres (n, 2).

    `physics.predict_counts`, in chunks that keep intermediate arrays small.
    """
    n_px = probe.shape[-1]
    corners, remainders = ObjectFrame((0, 0), object_.shape).corners(positions_px, n_px)
    chunk = max(1, CHUNK_VALUES // probe.size)
    wide_object, wide_probe = object_.astype(np.complex128), probe.astype(np.complex128)
    counts = np.empty((len(corners), n_px, n_px))
    for first in range(0, len(corners), chunk):
        part = slice(first, first + chunk)
        counts[part] = predict_counts(wide_object, wide_probe, corners[part], remainders[part])
    return counts


def _positions(config: SimulationConfig, rng: Generator) -> tuple[PositionArray, int]:
    """Return patch centres (n, 2) and the side of an object that holds them, whatever the offset.

    The side depends on neither the offset nor what was drawn, and so the object does not either.
    """
    if config.scan == 'raster':
        unit = _raster(config.n_positions, config.jitter, rng)
        reach = (round(np.sqrt(config.n_positions)) - 1) / 2 + config.jitter
    else:
        unit = _fermat_spiral(config.n_positions)
        reach = np.sqrt(config.n_positions / np.pi)
    half_width = int(np.ceil((reach + 1) * config.step_px)) + MARGIN_PX
    side_px = 2 * half_width + config.N
    return (side_px - 1) / 2 + config.step_px * unit + np.asarray(config.offset_px), side_px


def _raster(n_positions: int, jitter: float, rng: Generator) -> PositionArray:
    """Rows of positions about 0, in steps, each displaced uniformly by at most `jitter`."""
    side = round(np.sqrt(n_positions))
    grid = np.indices((side, side)).reshape(2, -1).T - (side - 1) / 2
    return np.asarray(grid + rng.uniform(-jitter, jitter, size=grid.shape))


def _fermat_spiral(n_positions: int) -> PositionArray:
    """Positions r = sqrt(k / pi) at k golden angles: one per unit area, no period.

    Huang et al., Opt. Express 22, 12634 (2014).
    """
    k = np.arange(n_positions)
    angle = np.pi * (3 - np.sqrt(5)) * k
    radius = np.sqrt(k / np.pi)
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def _reported(
    true_positions: PositionArray, config: SimulationConfig, side_px: int, rng: Generator
) -> PositionArray:
    """Add the errors; a patch that would leave the object's grid stops at its edge."""
    errors = config.position_error_px * rng.standard_normal(true_positions.shape)
    half = (config.N - 1) / 2
    return np.clip(true_positions + errors, half, side_px - 1 - half)


def _modes(config: SimulationConfig) -> ComplexArray:
    """Return all modes (m, N, N), of unit energy together."""
    diameter = config.probe_diameter_px or max(0.375 * config.N, 10.0)
    first = zone_plate_probe(config.N, diameter, config.seed)
    modes = with_modes(first[None], config.probe_modes)
    energy = np.ones(len(modes))
    energy[1:] = SECOND_MODE * 0.5 ** np.arange(len(modes) - 1)
    amplitude = np.sqrt(energy / energy.sum())
    norms = np.linalg.norm(modes, axis=(1, 2))
    return np.asarray(modes * (amplitude / norms)[:, None, None], dtype=np.complex64)


def zone_plate_probe(n_px: int, diameter_px: float, seed: int) -> ComplexArray:
    """Return the defocused beam of a zone plate with a central stop.

    An annular pupil with soft edges, a little astigmatism and coma, and the defocus that gives the
    diameter asked for.  The pupil ends at 0.22 cycles per pixel, and so the beam itself stays in
    the central half of the detector.

    Parameters
    ----------
    n_px
        Side N.
    diameter_px
        Second-moment diameter: 4 times the standard deviation of the intensity along an axis (D4
        sigma, ISO 11146), averaged over the axes, which is 2 sqrt(2) times the rms radius.
    seed
        Seed of the strength and direction of the aberrations.

    Returns
    -------
    (N, N) complex64
        Unit energy, centre of mass at pixel [N//2, N//2].

    Raises
    ------
    ConfigError
        If no defocus gives `diameter_px` on `n_px` pixels.
    """
    pupil, square = _pupil(n_px, np.random.default_rng(seed))

    def defocused(defocus_px2: float) -> Complex:
        return _centred(near_field(pupil * np.exp(-1j * np.pi * defocus_px2 * square)))

    # Geometric optics: a ray through frequency f lands at defocus * f, the rim's inside the grid.
    strongest = 0.4 * n_px / PUPIL_OUTER
    smallest, largest = (diameter_of(defocused(value)) for value in (0.0, strongest))
    if not smallest <= diameter_px <= largest:
        raise ConfigError(
            f'a probe of {diameter_px:g} px in diameter cannot be made on {n_px} px; expected '
            f'{smallest:.1f} to {largest:.1f} px. Change probe_diameter_px or N.'
        )
    defocus = brentq(lambda value: diameter_of(defocused(value)) - diameter_px, 0.0, strongest)
    return defocused(defocus).astype(np.complex64)


def diameter_of(mode: Complex) -> float:
    """Return the second-moment diameter (D4 sigma) of one mode (N, N) in pixels."""
    intensity = np.abs(mode) ** 2
    y, x = (np.arange(n) - c for n, c in zip(mode.shape, center_px(mode[None]), strict=True))
    square_radius = y[:, None] ** 2 + x[None] ** 2
    return float(np.sqrt(8 * np.sum(intensity * square_radius) / np.sum(intensity)))


def _pupil(n_px: int, rng: Generator) -> tuple[Complex, Real]:
    """Return the aberrated pupil at focus, unit energy, and the squared frequency (N, N)."""
    frequency = np.fft.fftshift(np.fft.fftfreq(n_px))
    f = np.hypot(frequency[:, None], frequency[None])
    theta = np.arctan2(frequency[:, None], frequency[None])
    edge = max(PUPIL_EDGE, 1.5 / n_px)
    amplitude = _smooth_step((PUPIL_OUTER - f) / edge) * _smooth_step((f - PUPIL_INNER) / edge)
    rho = f / PUPIL_OUTER
    astigmatism, coma = rng.uniform(0.3, 1.0, size=2) * ABERRATION_RAD
    turns = rng.uniform(0, 2 * np.pi, size=2)
    phase = astigmatism * rho**2 * np.cos(2 * theta - turns[0])
    phase += coma * (3 * rho**3 - 2 * rho) * np.cos(theta - turns[1])
    return amplitude * np.exp(1j * phase) / np.linalg.norm(amplitude), f**2


def _smooth_step(value: Real) -> Real:
    """Rise as a squared sine from 0 at -1/2 to 1 at +1/2."""
    return np.asarray(np.sin(np.pi / 2 * np.clip(value + 0.5, 0, 1)) ** 2)


def _centred(mode: Complex) -> Complex:
    """Move the centre of mass, which coma displaces, to pixel [N//2, N//2]."""
    centre = np.asarray(center_px(mode[None]))
    return np.asarray(shift_probe(mode[None], (len(mode) // 2 - centre)[None])[0, 0])


def _optics(n_px: int, side_px: int) -> Optics:
    """A plausible X-ray experiment: the detector stands where lambda z / (N det_px) is a pixel."""
    wavelength = h * speed_of_light / (PHOTON_ENERGY_EV * eV)
    corner = -OBJECT_PIXEL_M * (side_px - 1) / 2
    return Optics(
        pixel_size_m=(OBJECT_PIXEL_M, OBJECT_PIXEL_M),
        photon_energy_eV=PHOTON_ENERGY_EV,
        detector_distance_m=OBJECT_PIXEL_M * n_px * DETECTOR_PIXEL_M / wavelength,
        origin_m=(corner, corner),
    )


def _name(config: SimulationConfig) -> str:
    images = '-test' if config.object_kind == 'natural' and config.images == 'test' else ''
    return f'simulated-{config.object_kind}{images}-seed{config.seed}'
