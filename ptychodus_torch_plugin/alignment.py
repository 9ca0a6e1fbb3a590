"""Lay an object over a reference: remove what ptychography cannot know, by least squares.

A ptychographic reconstruction is free to move, to carry a linear phase ramp, and to be multiplied
by a complex number.  Every comparison with a truth goes through `align`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, check_array, check_finite
from ptychodus_torch_plugin.errors import ScanValueError

MAX_REFINEMENTS = 12
# Pixels of shift, and radians that a ramp makes at the border of the region.
SMALLEST_STEP = 1e-4
# A shift must lower the squared error by this many times its variance per value: five sigma.
SHIFT_SIGNIFICANCE = 25.0
# Relative squared rounding error of complex64, with room to spare.
ROUNDING = 1e-12
PADDING_PX = 16

_Wide = NDArray[np.complex128]
_Real = NDArray[np.float64]


def check_comparable(image: NDArray[Any], reference: NDArray[Any], region: BoolArray) -> None:
    """Raise unless both images are finite, of the region's shape, and the region is not empty."""
    check_array(reference, 'h w', name='reference')
    sizes = dict(zip('hw', reference.shape, strict=True))
    check_array(image, 'h w', name='image', sizes=sizes)
    check_array(region, 'h w', name='region', dtype=np.bool_, sizes=sizes)
    if not region.any():
        raise ScanValueError('region is empty; expected at least one pixel to compare.')
    for values, name in ((image, 'image'), (reference, 'reference')):
        check_finite(values, name=name)
        if np.iscomplexobj(values) and not values[region].any():
            raise ScanValueError(f'{name} is zero in the whole region; expected an object there.')


@dataclass(frozen=True)
class Aligned:
    """An object after `align`, and what was taken away from it.

    Attributes
    ----------
    object_ : (h, w) complex64
        The object, moved, flattened and scaled onto the reference.
    shift_px
        [y, x] by which the object lay displaced towards larger indices from the reference.
    ramp_rad_per_px
        [y, x] slope of the object's phase over that of the reference.
    scale
        Factor that the object was multiplied by, after its ramp and shift were removed.
    """

    object_: ComplexArray
    shift_px: tuple[float, float]
    ramp_rad_per_px: tuple[float, float]
    scale: complex


def align(
    object_: ComplexArray,
    reference: ComplexArray,
    region: BoolArray,
    *,
    shift: bool = True,
    ramp: bool = True,
) -> Aligned:
    """Remove from an object what ptychography cannot know, by least squares inside `region`.

    A first shift comes from the cross-correlation of neighbour products o(r+1) o*(r), which a phase
    ramp only turns by one angle; a first ramp from the Fourier peak of object times conjugate
    reference.  Gauss-Newton steps then fit shift, ramp and scale together to
    object = reference / scale.  The shift is kept only if it lowers the error beyond chance, so
    that an object which already lies in its place is never resampled.

    Parameters
    ----------
    object_, reference : (h, w) complex64
        Object to be changed, and the one to compare it with, on the same grid.
    region : (h, w) bool
        Where the two are compared, e.g. from `scanned_region`.
    shift, ramp
        Whether a shift and a phase ramp are removed; the complex scale always is.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, values are not finite, the region is empty or the object dark inside it.
    """
    check_comparable(object_, reference, region)
    fit = _Fit(object_.astype(np.complex128), reference.astype(np.complex128), region, ramp)
    best = fit.refined((0.0, 0.0), shift=False)
    if shift:
        starts = {(0.0, 0.0), _coarse_shift(fit.object_, fit.reference, region)}
        moved = min((fit.refined(start, shift=True) for start in starts), key=lambda m: m.error)
        chance = SHIFT_SIGNIFICANCE * moved.error / (2 * np.count_nonzero(region))
        if best.error - moved.error > chance + ROUNDING * fit.energy:
            best = moved
    return Aligned(
        object_=(best.scale * fit.moved(best.shift, best.ramp)).astype(np.complex64),
        shift_px=(float(best.shift[0]), float(best.shift[1])),
        ramp_rad_per_px=(float(best.ramp[0]), float(best.ramp[1])),
        scale=best.scale,
    )


@dataclass(frozen=True)
class _Move:
    """One state of the fit; `error` is the squared distance from the reference in the region."""

    shift: _Real
    ramp: _Real
    scale: complex
    error: float


class _Fit:
    """Least squares over shift, ramp and scale, with derivatives taken once, on the reference."""

    def __init__(self, object_: _Wide, reference: _Wide, region: BoolArray, ramp: bool) -> None:
        self.object_, self.reference, self.region, self.ramp = object_, reference, region, ramp
        self.target = reference[region]
        self.energy = float(np.vdot(self.target, self.target).real)
        grid = np.indices(region.shape, dtype=np.float64)
        # From the middle of the region, so that slope and phase are hardly correlated.
        self.grid = grid - grid[:, region].mean(axis=1)[:, None, None]
        self.reach = max(1.0, float(np.abs(self.grid[:, region]).max()))

    def moved(self, shift: _Real, ramp: _Real) -> _Wide:
        """Return the object without `ramp`, displaced by -`shift`, still unscaled."""
        flat = self.object_ * np.exp(-1j * np.tensordot(ramp, self.grid, axes=1))
        return _filtered(flat, shift) if shift.any() else flat

    def refined(self, start: tuple[float, float], *, shift: bool) -> _Move:
        """Return the best state that Gauss-Newton steps find from a shift of `start`."""
        offset = np.array(start)
        slope = np.zeros(2)
        if self.ramp:
            slope = _coarse_ramp(self.moved(offset, slope), self.reference, self.region)
        columns = self._columns(shift)
        inverse = np.linalg.pinv((columns.conj() @ columns.T).real, rcond=1e-12, hermitian=True)
        best: _Move | None = None
        for _ in range(MAX_REFINEMENTS):
            state, residual = self._state(offset, slope)
            best = state if best is None or state.error < best.error else best
            step = inverse @ (columns.conj() @ residual).real
            if np.abs(step[2:]).max(initial=0) < SMALLEST_STEP:
                break
            if self.ramp:
                slope = slope + step[2:4] / self.reach
            if shift:
                # One pixel at a time: beyond, the linear model holds no longer.
                offset = offset + np.clip(step[-2:], -1, 1)
        assert best is not None
        return best

    def _columns(self, shift: bool) -> _Wide:
        """Return how a scaled object changes with scale, ramp and shift, (parameters, pixels)."""
        columns = [self.target, 1j * self.target]
        if self.ramp:
            columns += [1j * axis[self.region] / self.reach * self.target for axis in self.grid]
        if shift:
            columns += [-_filtered(self.reference, None, axis)[self.region] for axis in (0, 1)]
        return np.stack(columns)

    def _state(self, shift: _Real, ramp: _Real) -> tuple[_Move, _Wide]:
        values = self.moved(shift, ramp)[self.region]
        power = max(float(np.vdot(values, values).real), np.finfo(np.float64).tiny)
        scale = complex(np.vdot(values, self.target)) / power
        residual = scale * values - self.target
        return _Move(shift, ramp, scale, float(np.vdot(residual, residual).real)), residual


def _filtered(image: _Wide, shift: _Real | None, axis: int = 0) -> _Wide:
    """Displace `image` by -`shift`, or derive it along `axis`, exactly up to Nyquist.

    The padding runs out to the mean, for a jump across the periodic border would ring inwards.
    """
    from scipy import fft

    reach = 0 if shift is None else math.ceil(float(np.abs(shift).max()))
    before = PADDING_PX + reach
    lengths = [fft.next_fast_len(n + 2 * before) for n in image.shape]
    widths = [(before, full - n - before) for n, full in zip(image.shape, lengths, strict=True)]
    spectrum = fft.fft2(np.pad(image, widths, mode='linear_ramp', end_values=image.mean()))
    angular = [2 * np.pi * fft.fftfreq(n) for n in lengths]
    if shift is None:
        line = angular[axis]
        spectrum *= 1j * (line[:, None] if axis == 0 else line[None, :])
    else:
        spectrum *= np.exp(1j * shift[0] * angular[0])[:, None] * np.exp(1j * shift[1] * angular[1])
    inside = tuple(slice(before, before + n) for n in image.shape)
    return np.asarray(fft.ifft2(spectrum)[inside], dtype=np.complex128)


def _box(region: BoolArray) -> tuple[slice, slice]:
    """Return the bounding box of a region that is not empty."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _coarse_shift(object_: _Wide, reference: _Wide, region: BoolArray) -> tuple[float, float]:
    """Return the whole-pixel shift where neighbour products correlate best."""
    from scipy import fft, ndimage

    box = _box(region)
    inside = np.pad(region[box], 1)
    depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
    # Falls off smoothly towards the region's border, which is alike in both and must not count.
    window = np.sin(np.pi / 2 * np.minimum(depth / (0.5 * depth.max()), 1)) ** 2
    total = np.zeros(window.shape)
    for axis in (0, 1):
        spectra = []
        for image in (object_[box], reference[box]):
            product = np.roll(image, -1, axis=axis) * image.conj()
            mean = (window * product).sum() / window.sum()
            spectra.append(fft.fft2(window * (product - mean)))
        total += np.abs(fft.ifft2(spectra[0] * spectra[1].conj()))
    peak = np.unravel_index(int(total.argmax()), total.shape)
    wrapped = [(int(p) + n // 2) % n - n // 2 for p, n in zip(peak, total.shape, strict=True)]
    return float(wrapped[0]), float(wrapped[1])


def _coarse_ramp(object_: _Wide, reference: _Wide, region: BoolArray) -> _Real:
    """Return the slope [y, x] in rad/px of the phase between two images, to a quarter turn."""
    from scipy import fft

    box = _box(region)
    product = np.where(region, object_ * reference.conj(), 0)[box]
    lengths = [fft.next_fast_len(2 * n) for n in product.shape]
    peak = np.unravel_index(int(np.abs(fft.fft2(product, s=lengths)).argmax()), lengths)
    return np.array([2 * np.pi * fft.fftfreq(n)[p] for p, n in zip(peak, lengths, strict=True)])
