"""`ScanData`: one measured or simulated scan, checked once, in the conventions of this package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from ptychodus_torch_plugin.arrays import (
    BoolArray,
    ComplexArray,
    FloatArray,
    IndexArray,
    PositionArray,
    check_array,
    check_finite,
    infinite_values,
)
from ptychodus_torch_plugin.cropping import (
    crop_center,
    crop_optics,
    crop_positions,
    crop_probe,
)
from ptychodus_torch_plugin.errors import ScanValueError, ShapeError
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.pattern_store import (
    Patterns,
    Summary,
    blocks,
    mapped,
    outline,
    summary,
    taken,
)

MIN_PATTERN_PX = 16
MAX_PATTERN_PX = 1024
PATTERN_MULTIPLE_PX = 8


@dataclass(frozen=True)
class ScanData:
    """Diffraction patterns with all that is needed to turn them into an object.

    Attributes
    ----------
    patterns : (n, N, N) float32
        Photon counts per pixel (intensity), beam centre at [N//2, N//2].  A large stack may be a
        `PatternFile`, which keeps it on disk; `patterns[indices]` gives arrays of both.
    positions_px : (n, 2) float64
        Patch centres [y, x] on the object grid, in pixels; sub-pixel parts count.
    probe : (m, N, N) complex64
        Incoherent probe modes, strongest first, on any scale.
    bad_pixels : (N, N) bool
        True where the detector does not count; these pixels take no part in any likelihood.
    object_guess : (h, w) complex64 or None
        The object on its own grid: a first guess, or the truth of a simulation.
    background : (N, N) float32 or None
        Counts per pixel and pattern that the beam has no part in (dark counts, stray light), on
        average; they are in `patterns`.  None: there are none.
    optics
        Pixel size, energy and distance.
    name
        Where the scan came from, for messages and products.
    provenance
        What the reader decided and why (format, kind of the values, conversions), line by line.
    indexes : (n,) int64 or None
        Number of each pattern in the whole scan, by which Ptychodus pairs patterns and positions;
        products are written with it.  None: the patterns are the whole scan, numbered from 0.

    Raises
    ------
    ShapeError, ScanValueError
        On construction, naming the array, what was found and what was expected.
    """

    patterns: Patterns
    positions_px: PositionArray
    probe: ComplexArray
    bad_pixels: BoolArray
    object_guess: ComplexArray | None = None
    background: FloatArray | None = None
    optics: Optics = field(default_factory=Optics)
    name: str = 'scan'
    provenance: tuple[str, ...] = ()
    indexes: IndexArray | None = None

    def __post_init__(self) -> None:
        check_array(outline(self.patterns), 'n N N', name='patterns', dtype=np.float32)
        sizes = {'n': self.n_patterns, 'N': self.n_px}
        check_array(self.positions_px, 'n 2', name='positions_px', dtype=np.float64, sizes=sizes)
        check_array(self.probe, 'm N N', name='probe', dtype=np.complex64, sizes=sizes)
        check_array(self.bad_pixels, 'N N', name='bad_pixels', dtype=np.bool_, sizes=sizes)
        if self.object_guess is not None:
            check_array(self.object_guess, 'h w', name='object_guess', dtype=np.complex64)
        if self.background is not None:
            check_array(self.background, 'N N', name='background', dtype=np.float32, sizes=sizes)
        if self.indexes is not None:
            check_array(self.indexes, 'n', name='indexes', dtype=np.int64, sizes=sizes)
        self._check_size()
        self._check_values()

    def _check_size(self) -> None:
        if self.n_patterns == 0:
            raise ScanValueError('patterns is empty; expected at least one diffraction pattern.')
        n_px = self.n_px
        if n_px % PATTERN_MULTIPLE_PX or not MIN_PATTERN_PX <= n_px <= MAX_PATTERN_PX:
            raise ShapeError(
                f'patterns are {n_px} x {n_px} px; expected a multiple of {PATTERN_MULTIPLE_PX} '
                f'from {MIN_PATTERN_PX} to {MAX_PATTERN_PX}. Crop the detector with --crop N.'
            )
        if len(self.probe) == 0:
            raise ShapeError(f'probe has shape {self.probe.shape}; expected at least one mode.')

    def _check_values(self) -> None:
        check_finite(self.positions_px, name='positions_px')
        check_finite(self.probe, name='probe')
        seen = self.summary
        if seen.infinite:
            raise infinite_values('patterns', seen.infinite, seen.first_infinite)
        if seen.lowest < 0:
            raise ScanValueError(
                f'patterns has negative values (lowest {seen.lowest:g}, the first at index '
                f'{seen.first_negative}); expected photon counts. Subtract no background below '
                'zero, or clip it.'
            )
        if not seen.total[~self.bad_pixels].any():
            raise ScanValueError(
                'patterns is zero in every good pixel; expected photon counts. '
                'Check the file, its key, and bad_pixels.'
            )
        if not self.probe.any():
            raise ScanValueError('probe is zero everywhere; expected a first guess of the probe.')
        if self.background is not None:
            self._check_background(self.background)

    def _check_background(self, background: FloatArray) -> None:
        check_finite(background, name='background')
        if background.min() < 0:
            raise ScanValueError(
                f'background has negative values (lowest {background.min():g}); expected counts '
                'per pixel and pattern, 0 or more.'
            )
        if self.mean_signal() <= 0:
            raise ScanValueError(
                f'background holds {self._mean_background():g} counts in the good pixels of a '
                f'pattern, and patterns holds {self.mean_counts():g} on average; expected fewer. '
                'Give it in the units of the patterns, per pixel and pattern.'
            )

    @cached_property
    def summary(self) -> Summary:
        """Sum and extremes of all patterns, looked at once."""
        return summary(self.patterns)

    @property
    def n_patterns(self) -> int:
        """Number n of diffraction patterns."""
        return len(self.patterns)

    @property
    def n_px(self) -> int:
        """Side N of a pattern, and of the probe, in pixels."""
        return int(self.patterns.shape[-1])

    @property
    def numbers(self) -> IndexArray:
        """`indexes`, also where nobody has given any, (n,) int64."""
        return np.arange(self.n_patterns) if self.indexes is None else self.indexes

    @property
    def frame(self) -> ObjectFrame:
        """The object's own grid where it holds every patch, else the smallest canvas that does."""
        shape = None if self.object_guess is None else self.object_guess.shape
        return ObjectFrame.around(self.positions_px, self.n_px, shape)

    @property
    def valid_pixels(self) -> BoolArray:
        """(N, N) True where a pixel takes part in the likelihood."""
        return ~self.bad_pixels

    def mean_counts(self) -> float:
        """Return the mean total count of a pattern over its good pixels."""
        return float(self.summary.total[self.valid_pixels].sum()) / self.n_patterns

    def mean_signal(self) -> float:
        """Return what of `mean_counts` the beam has made: all but the background."""
        return self.mean_counts() - self._mean_background()

    def _mean_background(self) -> float:
        if self.background is None:
            return 0.0
        return float(self.background[self.valid_pixels].sum(dtype=np.float64))

    def mean_pattern(self) -> FloatArray:
        """Return the mean of all patterns, (N, N) float32."""
        return np.asarray(self.summary.total / self.n_patterns, dtype=np.float32)

    def signal_pattern(self) -> FloatArray:
        """Return `mean_pattern` less the background; noise may make it negative."""
        mean = self.mean_pattern()
        return mean if self.background is None else mean - self.background

    def subset(self, indices: IndexArray) -> ScanData:
        """Return the scan with only the patterns `indices` (n',) int64; the frame may shrink.

        They keep their numbers.
        """
        return replace(
            self,
            patterns=taken(self.patterns, indices),
            positions_px=self.positions_px[indices],
            indexes=self.numbers[indices],
        )

    def cropped(self, n_px: int) -> ScanData:
        """Return the scan with the detector cropped to its central `n_px` pixels.

        A smaller detector has a coarser object pixel: it grows by N / n_px, positions shrink by as
        much, and the probe keeps only its low frequencies.  An object guess is dropped, for it no
        longer fits the grid.
        """
        if n_px == self.n_px:
            return self
        return replace(
            self,
            patterns=mapped(self.patterns, partial(crop_center, n_px=n_px)),
            positions_px=crop_positions(self.positions_px, self.n_px, n_px),
            probe=crop_probe(self.probe, n_px),
            bad_pixels=crop_center(self.bad_pixels, n_px),
            object_guess=None,
            background=None if self.background is None else crop_center(self.background, n_px),
            optics=crop_optics(self.optics, self.n_px, n_px),
            provenance=(*self.provenance, f'detector cropped from {self.n_px} to {n_px} px'),
        )

    def fingerprint(self) -> str:
        """Return a sha256 of patterns, positions, bad pixels and background, if there is one."""
        digest = hashlib.sha256()
        digest.update(str((self.patterns.shape, self.patterns.dtype.str)).encode())
        for _, block in blocks(self.patterns):
            digest.update(np.ascontiguousarray(block).data)
        dark = () if self.background is None else (self.background,)
        for array in (self.positions_px, self.bad_pixels, *dark):
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def backgrounds(scans: Sequence[ScanData]) -> FloatArray | None:
    """Return the backgrounds of all scans, (k, N, N) float32, or None if no scan has one."""
    if all(scan.background is None for scan in scans):
        return None
    dark = np.zeros((len(scans), *scans[0].bad_pixels.shape), np.float32)
    for each, scan in zip(dark, scans, strict=True):
        if scan.background is not None:
            each[...] = scan.background
    return dark
