"""R: how well an object and its probe explain the patterns of a scan, whoever made them."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ptychodus_torch_plugin import physics
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
from ptychodus_torch_plugin.frame import patch_corners
from ptychodus_torch_plugin.pattern_store import blocks
from ptychodus_torch_plugin.scan import ScanData

SCALED_BY = 256
"""Patterns, spread over the scan, that decide how bright the probe is."""

IN_PHOTONS = 2.0
"""A probe is in photons if it predicts those that were counted to this factor."""

AT_ONCE = 16
"""Patterns that are predicted together."""

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class RFactors:
    """What `r_factors` found; R is `None` over no patterns.

    Attributes
    ----------
    r_all, r_fitted, r_held_out
        R over all patterns, over those that the object was made from, and over the others.
    fitted_patterns, held_out_patterns
        How many these are.
    outside_patterns
        How many others lie partly outside the object, and take no part.
    intensity_scale
        Factor by which predicted intensities were multiplied: 1, as the probe is in photons.  Where
        it plainly is not, the photons that were counted over those predicted.
    """

    r_all: float | None
    r_fitted: float | None
    r_held_out: float | None
    fitted_patterns: int
    held_out_patterns: int
    outside_patterns: int
    intensity_scale: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def r_factors(
    object_: ComplexArray,
    probe: ComplexArray,
    positions_px: PositionArray,
    scan: ScanData,
    fitted: BoolArray,
    intensities: PositionArray | None = None,
) -> RFactors:
    """Return R of an object and a probe on the patterns of a scan.

    Patterns are predicted by `physics.predict_counts`, in blocks, and the background of the scan is
    added.  Where the probe is plainly not in photons, for it predicts less than half of those that
    were counted or more than twice as many, one factor makes up for it.

    Parameters
    ----------
    object_ : (h, w) complex64
        Transmission.
    probe : (m, N, N) complex64
        Incoherent modes.
    positions_px : (n, 2) float64
        Patch centre [y, x] of each pattern of `scan` on the canvas of the object.
    scan
        Patterns, which may be on disk, bad pixels and background.
    fitted : (n,) bool
        Which patterns the object was made from.
    intensities : (n,) float64, optional
        Intensity of the beam in each pattern relative to `probe`; where it is NaN, as many photons
        are predicted as were counted.  1 by default.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ, no pattern lies inside the object, or nothing was counted.
    """
    check_array(object_, 'h w', name='object_')
    check_array(probe, 'm N N', name='probe', sizes={'N': scan.n_px})
    check_array(positions_px, 'n 2', name='positions_px', sizes={'n': scan.n_patterns})
    check_array(fitted, 'n', name='fitted', dtype=np.bool_, sizes={'n': scan.n_patterns})
    if intensities is None:
        intensities = np.ones(scan.n_patterns)
    check_array(intensities, 'n', name='intensities', sizes={'n': scan.n_patterns})
    prediction = _Prediction(object_, probe, positions_px, scan, intensities)
    inside = prediction.inside()
    if not inside.any():
        raise ScanValueError(
            f'none of the {scan.n_patterns} patterns of {scan.name} lies inside the object of '
            f'{object_.shape} px; expected positions on its canvas. Is it the object of this scan?'
        )
    basis = np.flatnonzero(inside & fitted) if (inside & fitted).any() else np.flatnonzero(inside)
    scale = prediction.intensity_scale(basis)
    errors, amplitudes = prediction.sums(inside)

    def ratio(chosen: BoolArray) -> float | None:
        total = float(amplitudes[chosen].sum())
        return float(errors[chosen].sum()) / total if total > 0 else None

    return RFactors(
        r_all=ratio(inside),
        r_fitted=ratio(inside & fitted),
        r_held_out=ratio(inside & ~fitted),
        fitted_patterns=int(np.count_nonzero(inside & fitted)),
        held_out_patterns=int(np.count_nonzero(inside & ~fitted)),
        outside_patterns=int(np.count_nonzero(~inside)),
        intensity_scale=scale,
    )


class _Prediction:
    """What an object and a probe predict, beside what was measured."""

    def __init__(
        self,
        object_: ComplexArray,
        probe: ComplexArray,
        positions_px: PositionArray,
        scan: ScanData,
        intensities: PositionArray,
    ) -> None:
        self.object_, self.probe, self.scan = object_, probe, scan
        self.intensities = intensities
        self.corners, self.remainders_px = patch_corners(positions_px, scan.n_px)
        dark = np.zeros(1) if scan.background is None else scan.background[scan.valid_pixels]
        self.dark = dark.astype(np.float64)

    def inside(self) -> BoolArray:
        """Return (n,) bool: which patches lie wholly on the canvas."""
        last = np.asarray(self.object_.shape) - self.scan.n_px
        return np.asarray(((self.corners >= 0) & (self.corners <= last)).all(axis=1))

    def counts(self, rows: IndexArray, measured: FloatArray) -> physics.Real:
        """Return the expected counts (k, pixels) of patterns `rows` (k,), without background.

        `measured` (k, pixels) are the counts with it.
        """
        corners, remainders_px = self.corners[rows], self.remainders_px[rows]
        patterns = physics.predict_counts(self.object_, self.probe, corners, remainders_px)
        expected = patterns[:, self.scan.valid_pixels]
        intensities = self.intensities[rows]
        if (unknown := np.isnan(intensities)).any():
            photons = (measured - self.dark)[unknown].sum(axis=1, dtype=np.float64)
            total = np.maximum(expected[unknown].sum(axis=1), physics.MIN_INTENSITY)
            intensities[unknown] = np.maximum(photons, 0) / total
        return np.asarray(intensities[:, None] * expected)

    def intensity_scale(self, rows: IndexArray) -> float:
        """Return 1, or measured over expected photons of some of the patterns `rows`; say so."""
        chosen = rows[:: -(-len(rows) // SCALED_BY)]
        photons = expected = 0.0
        for part in np.array_split(chosen, -(-len(chosen) // AT_ONCE)):
            measured = self.scan.patterns[part][:, self.scan.valid_pixels]
            photons += float((measured - self.dark).sum(dtype=np.float64))
            expected += float(self.counts(part, measured).sum())
        if not (photons > 0 and expected > 0):
            raise ScanValueError(
                f'{self.scan.name}: object and probe predict {expected:g} photons in '
                f'{len(chosen)} patterns, in which {photons:g} were counted above the background; '
                'expected some of both.'
            )
        scale = photons / expected
        if 1 / IN_PHOTONS <= scale <= IN_PHOTONS:
            return 1.0
        logger.warning(
            'object and probe predict %.3g times the photons counted in %s: the probe is not in '
            'photons. For R its intensity is multiplied by %.4g.',
            1 / scale,
            self.scan.name,
            scale,
        )
        self.intensities = scale * self.intensities
        return scale

    def sums(self, inside: BoolArray) -> tuple[physics.Real, physics.Real]:
        """Return sum |sqrt(I) - sqrt(k)| and sum sqrt(k) of each pattern, (n,), 0 outside."""
        errors, totals = np.zeros((2, len(inside)))
        for first, block in blocks(self.scan.patterns):
            own = np.flatnonzero(inside[first : first + len(block)])
            for part in np.array_split(own, -(-len(own) // AT_ONCE)) if len(own) else ():
                measured = block[part][:, self.scan.valid_pixels]
                predicted = np.sqrt(self.counts(first + part, measured) + self.dark)
                roots = np.sqrt(measured, dtype=np.float64)
                errors[first + part] = np.abs(predicted - roots).sum(axis=1)
                totals[first + part] = roots.sum(axis=1)
        return errors, totals
