"""What somebody may wrongly believe of a beam: the same pupil with other aberrations."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from ptychodus_torch_plugin.arrays import ComplexArray
from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.physics import Complex, Real, far_field, near_field

STRENGTHS = np.linspace(0.0, 12.0, 241)
"""Strengths that are tried in order until the overlap is low enough."""

RIM = 0.95
"""The rim of the pupil encloses so much of the energy of the first mode."""


def overlap(first: Complex, second: Complex) -> float:
    """Return |<P|Q>| / (|P| |Q|) of two modes (N, N): 1 if they differ by a factor alone."""
    return float(np.abs(np.vdot(first, second)) / np.linalg.norm(first) / np.linalg.norm(second))


def with_aberrations(probe: ComplexArray, wanted_overlap: float, seed: int) -> ComplexArray:
    """Return a probe (m, N, N) complex64 that is wrong by defocus, astigmatism and coma.

    Every mode's far field is multiplied by the same phase, so that all intensities in the far field
    of an empty object stay, and the scale too.  The weakest phase is taken that leaves the first
    mode's overlap with the true one at `wanted_overlap`.

    Parameters
    ----------
    probe : (m, N, N) complex64
        The true modes.
    wanted_overlap
        Above 0 and below 1.
    seed
        Seed of the shares and directions of the aberrations.

    Raises
    ------
    ScanValueError
        If no strength gives the overlap.
    """
    pupil = far_field(probe.astype(np.complex128))
    error = _error(np.abs(pupil[0]) ** 2, np.random.default_rng(seed))
    weight = np.abs(pupil[0]) ** 2 / np.sum(np.abs(pupil[0]) ** 2)

    def excess(strength: float) -> float:
        return float(np.abs(np.sum(weight * np.exp(1j * strength * error)))) - wanted_overlap

    low = next((k for k, strength in enumerate(STRENGTHS) if excess(strength) <= 0), 0)
    if not 0 < wanted_overlap < 1 or low == 0:
        raise ScanValueError(
            f'no aberrations up to {STRENGTHS[-1]:g} rad leave an overlap of {wanted_overlap:g} '
            'with the true probe; expected one above 0 and below 1 that its pupil can have.'
        )
    strength = brentq(excess, STRENGTHS[low - 1], STRENGTHS[low])
    return near_field(pupil * np.exp(1j * strength * error)).astype(np.complex64)


def _error(intensity: Real, rng: np.random.Generator) -> Real:
    """Return the phase error (N, N) of unit strength: mostly defocus, at the rim about 1 rad.

    Polynomials of Zernike over the pupil that `intensity` shows, so that they hardly tilt it: that
    would displace the probe, which is nothing to be found out.
    """
    n_px = len(intensity)
    line = np.arange(n_px) - n_px // 2
    squares = np.add.outer(line**2, line**2)
    order = np.argsort(squares, axis=None, kind='stable')
    energy = np.cumsum(intensity.ravel()[order])
    rim = np.sqrt(squares.ravel()[order][np.searchsorted(energy, RIM * energy[-1])])
    rho, theta = np.sqrt(squares) / rim, np.arctan2(line[:, None], line[None])
    astigmatism, coma = rng.uniform(0.2, 0.5, size=2)
    turns = rng.uniform(0, 2 * np.pi, size=2)
    phase = rng.choice((-1.0, 1.0)) * rho**2 + astigmatism * rho**2 * np.cos(2 * theta - turns[0])
    return np.asarray(phase + coma * (3 * rho**3 - 2 * rho) * np.cos(theta - turns[1]))
