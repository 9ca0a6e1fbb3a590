"""What is done to probe modes besides propagating them: scale, number, orthogonality, place."""

from __future__ import annotations

import numpy as np

from ptychodus_torch_plugin.arrays import BoolArray
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.physics import Complex, Real, far_field

NEW_MODE_ENERGY = 0.03
"""Energy of each added incoherent mode relative to the first one."""

NEW_MODE_SHARE = 0.01
"""Share of a bent first mode that must be new, or it is no further mode."""

TILT_GRID_PX, NEWTON_STEPS = 0.01, 3
"""A tilt is found to so many pixels, and then on the peak by so many steps of at most that."""


def scale_probe(probe: Complex, mean_counts: float, valid: BoolArray) -> Complex:
    """Scale all modes together so that an empty object predicts the measured mean total counts.

    Parameters
    ----------
    probe : (m, N, N) complex
    mean_counts
        Mean total counts of a pattern over its valid pixels.
    valid : (N, N) bool
        Pixels that take part, beam centre at [N//2, N//2].
    """
    predicted = float(np.sum(np.abs(far_field(probe)[:, valid]) ** 2))
    return np.asarray(probe * np.sqrt(mean_counts / predicted))


def with_modes(probe: Complex, n_modes: int | None) -> Complex:
    """Return exactly `n_modes` modes: the strongest ones, or new ones added behind them.

    A new mode is the first mode times a low polynomial of the distance from its centre (the first
    Hermite modes of a partially coherent beam), orthogonal to all others, with 3 % of its energy.

    Raises
    ------
    ConfigError
        If there are not that many.
    """
    if n_modes is None or n_modes == len(probe):
        return probe
    energy = np.sum(np.abs(probe) ** 2, axis=(1, 2))
    kept = probe[np.argsort(-energy, kind='stable')][:n_modes]
    modes = list(kept)
    scale = np.sqrt(NEW_MODE_ENERGY) * np.linalg.norm(modes[0])
    for polynomial in _polynomials(modes[0]):
        bent = modes[0] * polynomial
        new = _orthogonal_part(bent, modes)
        # Such a mode may be there already; what is then left over is rounding.
        if len(modes) < n_modes and np.linalg.norm(new) > NEW_MODE_SHARE * np.linalg.norm(bent):
            modes.append(new * (scale / np.linalg.norm(new)))
    if len(modes) < n_modes:
        raise ConfigError(f'{n_modes} probe modes were asked for; expected at most {len(modes)}.')
    return np.stack(modes).astype(probe.dtype)


def _orthogonal_part(mode: Complex, others: list[Complex]) -> Complex:
    basis, _ = np.linalg.qr(np.reshape(others, (len(others), -1)).T)
    return np.asarray(mode - (basis @ (basis.conj().T @ mode.ravel())).reshape(mode.shape))


def _polynomials(mode: Complex) -> list[np.ndarray]:
    y, x = (axis - centre for axis, centre in zip(_axes(mode), center_px(mode[None]), strict=True))
    return [y + 0 * x, x + 0 * y, y * x, y * y - x * x, y * y + x * x, y * y * x, x * x * y]


def _axes(mode: Complex) -> tuple[np.ndarray, np.ndarray]:
    height, width = mode.shape
    return np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)[None]


def center_px(probe: Complex) -> tuple[float, float]:
    """Return the centre of mass [y, x] of the total intensity of the modes (m, N, N), in pixels."""
    intensity = np.sum(np.abs(probe) ** 2, axis=0)
    y, x = _axes(probe[0])
    total = float(intensity.sum())
    return float((intensity * y).sum()) / total, float((intensity * x).sum()) / total


def far_field_counts(probe: Complex) -> Real:
    """Return the pattern (N, N) of an empty object: all modes' far-field intensities together."""
    return np.asarray(np.sum(np.abs(far_field(probe)) ** 2, axis=0))


def tilt_px(pattern: Real, reference: Real) -> tuple[float, float]:
    """Return how far `pattern` (N, N) lies from `reference` (N, N), [dy, dx] in pixels.

    A linear phase ramp on the probe and the opposite one on the object change no prediction; it
    shows as a shift of the probe's far field, found by cross-correlation.  The result is continuous
    in both patterns: a rounding must not decide between two steps of a grid, for the ramp spans the
    whole object.
    """
    from skimage.registration import phase_cross_correlation

    shift, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]
        reference, pattern, upsample_factor=round(1 / TILT_GRID_PX), normalization=None
    )
    y, x = _on_peak(pattern, reference, -np.asarray(shift, dtype=np.float64))
    return float(y), float(x)


def _on_peak(pattern: Real, reference: Real, start_px: Real) -> Real:
    """Return the displacement [dy, dx] at the maximum of the cross-correlation near `start_px`.

    Newton's method on sum_k P_k R_k^* exp(2 pi i k d), P and R being the Fourier transforms.
    """
    cross = np.fft.fft2(pattern) * np.fft.fft2(reference).conj()
    axes = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(size) for size in pattern.shape), indexing='ij')
    displacement = start_px
    for _ in range(NEWTON_STEPS):
        moved = cross * np.exp(1j * (axes[0] * displacement[0] + axes[1] * displacement[1]))
        slope = np.array([np.sum(k * moved.imag) for k in axes])
        curvature = np.array([[np.sum(k * q * moved.real) for q in axes] for k in axes])
        # A pattern without structure along an axis has no curvature there, and stays.
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
        displacement = displacement - np.clip(step, -TILT_GRID_PX, TILT_GRID_PX)
    return np.asarray(displacement)


def ramp(shape: tuple[int, int], tilt: tuple[float, float], n_px: int) -> Complex:
    """Return (h, w) complex128: the phase ramp that shifts a far field of N pixels by `tilt` px."""
    y, x = (
        np.exp(2j * np.pi * shift / n_px * np.arange(size))
        for shift, size in zip(tilt, shape, strict=True)
    )
    return np.asarray(y[:, None] * x)


def orthogonalise(probe: Complex) -> Complex:
    """Mix the modes (m, N, N) into orthogonal ones, strongest first; no prediction changes.

    Incoherent modes are defined up to a unitary mixture; the singular value decomposition picks the
    orthogonal one (Thibault & Menzel, Nature 494, 68, 2013).
    """
    if len(probe) == 1:
        return probe
    flat = probe.reshape(len(probe), -1)
    _, values, modes = np.linalg.svd(flat, full_matrices=False)
    # The mixture keeps the phase of the first mode, so that the object's phase stays what it was.
    phase = np.vdot(modes[0], flat[0])
    modes[0] *= phase / max(abs(phase), np.finfo(np.float64).tiny)
    return np.asarray((values[:, None] * modes).reshape(probe.shape), dtype=probe.dtype)
