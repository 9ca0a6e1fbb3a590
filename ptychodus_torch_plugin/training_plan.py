"""What training sees, and when: framework-free, so that every backend draws the same.

A *view* of a scan is what one prepared object was made from: all counts (`objective='poisson'`), or
one binomial part of them.  Its complement is what the loss then scores (`objective='thinned'`), or
what the object is made from with which the loss compares (`objective='thinned-objects'`).  Thinning
splits a Poisson count into two independent Poisson counts, so a network cannot predict the noise of
the part it is scored on (count splitting; compare Noise2Self, Batson & Royer, ICML 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptychodus_torch_plugin.arrays import FloatArray, IndexArray
from ptychodus_torch_plugin.config import TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError, TrainingError
from ptychodus_torch_plugin.pattern_store import Patterns, blocks, stored
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sharding import ALONE, Shard

THINNINGS_IN_ALL = 4
MIN_WINDOW_PX = 160
INTEGER_TOLERANCE = 0.01
MIN_BLOCK_PX = 1e-6
EQUAL_PARTS = 0.5

LOOKS = 4
"""How often an epoch sees each pixel of an object that is compared with another one, each time
turned or mirrored at random."""
TURNS = 8
"""Quarter turns, and those of the mirror image: an object has no preferred direction."""
PHASE_RAD = 0.5
"""Standard deviation of the phase that is added to both, for large objects drift in phase."""


def held_out_indices(scan: ScanData, fraction: float, seed: int) -> IndexArray:
    """Return the sorted indices (k,) int64 of patterns kept out of fitting, spread over the scan.

    Positions are ordered along rows of blocks, and one of each `1 / fraction` neighbours is drawn.
    Neighbouring patterns overlap, so a held-out pattern sees parts of the object that neighbours
    saw: R on held-out patterns tests prediction, not extrapolation.
    """
    count = round(scan.n_patterns * fraction)
    if count == 0:
        return np.empty(0, dtype=np.int64)
    positions = scan.positions_px
    extent = np.ptp(positions, axis=0)
    # Square blocks, one for each held-out pattern; a line scan has blocks of its length alone.
    side_px = max(np.sqrt(extent.prod() / count), extent.max() / count, MIN_BLOCK_PX)
    block = np.floor((positions - positions.min(axis=0)) / side_px)
    order = np.lexsort((positions[:, 0], block[:, 1], block[:, 0]))
    rng = np.random.default_rng([seed, scan.n_patterns])
    edges = np.linspace(0, scan.n_patterns, count + 1).astype(np.int64)
    return np.sort(order[rng.integers(edges[:-1], edges[1:])])


def check_integer_counts(scan: ScanData) -> None:
    """Raise `TrainingError` unless the patterns are whole photon counts, as thinning needs."""
    deviation = max(_deviation(block[:, scan.valid_pixels]) for _, block in blocks(scan.patterns))
    if deviation > INTEGER_TOLERANCE:
        raise TrainingError(
            f'{scan.name}: patterns are not whole counts (deviation up to {deviation:.3g}), so '
            "they cannot be thinned. Use objective='poisson', or convert with the true --photons."
        )


def _deviation(counts: FloatArray) -> float:
    """Return by how much counts differ from whole numbers at most."""
    return float(np.abs(counts - np.rint(counts)).max(initial=0.0))


def thin(patterns: FloatArray, fraction: float, seed: Sequence[int], first: int = 0) -> FloatArray:
    """Return a binomial part of whole counts (n, N, N): each photon is kept with `fraction`.

    Every pattern has a generator of its own, seeded by `seed` and its index in the scan
    (`first` + row), so any subset can be thinned again alike.
    """
    kept = np.empty_like(patterns)
    for row, pattern in enumerate(patterns):
        rng = np.random.default_rng([*seed, first + row])
        kept[row] = rng.binomial(np.rint(pattern).astype(np.int64), fraction)
    return kept


@dataclass(frozen=True)
class View:
    """What one object is prepared from.

    Attributes
    ----------
    scan
        Number of the scan.
    thinning
        Number of the thinning; -1: all counts.
    part
        Which part of the thinning.
    fraction
        Share of all counts that is in the thinning's part 0.
    """

    scan: int
    thinning: int = -1
    part: int = 0
    fraction: float = EQUAL_PARTS

    @property
    def share(self) -> float:
        """Share of the counts that the sweeps of this view see."""
        if self.thinning < 0:
            return 1.0
        return self.fraction if self.part == 0 else 1 - self.fraction

    @property
    def other(self) -> View:
        """The view of the other part."""
        return replace(self, part=1 - self.part)


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes
    ----------
    view
        Number of the view.
    window
        First pixel [y, x] of the part of the canvas that is seen.
    patterns : (k,) int64
        Those to score, all inside the window.
    weight
        0 for a step that only makes up the number of steps, where ranks share an epoch.
    turn
        How object and target are turned, if they are compared: quarter turns, + 4 for the mirror
        image.
    phase_rad
        Phase that is added to both of them.
    """

    view: int
    window: tuple[int, int]
    patterns: IndexArray
    weight: float = 1.0
    turn: int = 0
    phase_rad: float = 0.0


def _window_px(config: TrainingConfig, n_px: int) -> int:
    if config.window_px is None:
        return max(2 * n_px, MIN_WINDOW_PX)
    if config.window_px < n_px:
        raise ConfigError(
            f'window_px = {config.window_px} has no room for a pattern of {n_px} px; expected at '
            f'least {n_px}, or None for max(2 N, {MIN_WINDOW_PX}).'
        )
    return config.window_px


class TrainingPlan:
    """Views, pools of patterns and seeded steps of one training run.

    All ranks draw the same; `shard` says which steps are this one's.
    """

    def __init__(
        self,
        scans: Sequence[ScanData],
        config: TrainingConfig,
        shard: Shard = ALONE,
        *,
        moving_px: int = 0,
    ) -> None:
        """`moving_px`: how far sweeps may move a pattern; it is to stay inside its window."""
        self.config = config
        self._shard = shard
        self._moving_px = moving_px
        self.held_out = [
            held_out_indices(scan, config.held_out_fraction, config.seed) for scan in scans
        ]
        self.pools = [
            np.setdiff1d(np.arange(scan.n_patterns), held)
            for scan, held in zip(scans, self.held_out, strict=True)
        ]
        if config.thins_counts:
            for scan in scans:
                check_integer_counts(scan)
        self.views = list(self._views(len(scans)))
        self.window_px = max(_window_px(config, scans[0].n_px), scans[0].n_px + 2 * moving_px)
        self._scans = scans
        self._frames = [scan.frame for scan in scans]
        self._corners = [
            frame.corners(scan.positions_px, scan.n_px)[0]
            for frame, scan in zip(self._frames, scans, strict=True)
        ]

    def _views(self, n_scans: int) -> Iterator[View]:
        if not self.config.thins_counts:
            yield from (View(scan) for scan in range(n_scans))
            return
        thinnings = self.config.thinnings or max(1, -(-THINNINGS_IN_ALL // n_scans))
        for scan in range(n_scans):
            for thinning in range(thinnings):
                view = View(scan, thinning, 0, self._fraction(scan, thinning))
                yield view
                # Equal halves can change roles; of unequal parts the sweeps see the first.
                if view.fraction == EQUAL_PARTS:
                    yield view.other

    def _fraction(self, scan: int, thinning: int) -> float:
        """Return the share of the counts that part 0 of a thinning has."""
        most, least = self.config.thinning_fraction, self.config.least_fraction
        if least is None:
            return most
        rng = np.random.default_rng([self.config.seed, scan, thinning])
        return float(least * (most / least) ** rng.uniform())

    def seen_counts(self, view: View, indices: IndexArray | None = None) -> Patterns:
        """Return the counts (n, N, N) that the sweeps of `view` see; maybe on disk, if all."""
        return self._part(view, indices, seen=True)

    def scored_counts(self, view: View, indices: IndexArray | None = None) -> FloatArray:
        """Return the counts (n, N, N) that the loss of `view` scores."""
        return np.asarray(self._part(view, indices, seen=False))

    def _part(self, view: View, indices: IndexArray | None, *, seen: bool) -> Patterns:
        patterns = self._scans[view.scan].patterns
        if indices is not None:
            return self._part_of(view, patterns[indices], indices, seen=seen)
        if view.thinning < 0:
            return patterns
        parts = (
            self._part_of(view, block, np.arange(first, first + len(block)), seen=seen)
            for first, block in blocks(patterns)
        )
        return stored(parts, patterns.shape, patterns.dtype)

    def _part_of(
        self, view: View, patterns: FloatArray, indices: IndexArray, *, seen: bool
    ) -> FloatArray:
        """Return the same of `patterns` (k, N, N), which are those of `indices` (k,)."""
        if view.thinning < 0:
            return patterns
        seed = (self.config.seed, view.scan, view.thinning)
        first_part = np.concatenate(
            [
                thin(p[None], view.fraction, seed, int(i))
                for p, i in zip(patterns, indices, strict=True)
            ]
        )
        if (view.part == 0) == seen:
            return first_part
        return np.asarray(np.rint(patterns) - first_part, dtype=np.float32)

    def steps(self, epoch: int) -> list[Step]:
        """Return the steps of epoch `epoch` (counted from 0)."""
        rng = np.random.default_rng([self.config.seed, 1 + epoch])
        order = [
            number
            for number, view in enumerate(self.views)
            for _ in range(max(1, round(self._visits(view.scan))))
        ]
        steps = [self._step(int(number), rng) for number in rng.permutation(order)]
        if self.config.compares_objects:
            steps = [
                replace(step, turn=int(rng.integers(TURNS)), phase_rad=rng.normal(0, PHASE_RAD))
                for step in steps
            ]
        return [replace(step, weight=weight) for step, weight in self._shard.dealt(steps)]

    @property
    def swept_views(self) -> list[View]:
        """All views from which an object is made: to be corrected, or to be compared with."""
        if not self.config.compares_objects:
            return self.views
        return list(dict.fromkeys(each for view in self.views for each in (view, view.other)))

    def _visits(self, scan: int) -> float:
        """Return how often an epoch visits each view of a scan."""
        if self.config.compares_objects:
            return LOOKS * math.prod(self._frames[scan].shape) / math.prod(self.window_shape(scan))
        return len(self.pools[scan]) / self.config.patterns_per_step

    def _step(self, number: int, rng: np.random.Generator) -> Step:
        """Draw a window around a random pattern, and patterns that lie wholly inside it."""
        scan = self.views[number].scan
        corners, pool = self._corners[scan], self.pools[scan]
        n_px = self._scans[scan].n_px
        shape = np.asarray(self._frames[scan].shape)
        center = corners[rng.choice(pool)] + n_px // 2
        span = np.minimum(self.window_px, shape)
        first = np.clip(center - span // 2, 0, shape - span)
        low, high = first, first + span - n_px
        # Nothing moves beyond the canvas.
        low = np.where(low > 0, low + self._moving_px, low)
        high = np.where(first + span < shape, high - self._moving_px, high)
        inside = pool[((corners[pool] >= low) & (corners[pool] <= high)).all(axis=1)]
        chosen = rng.permutation(inside)[: self.config.patterns_per_step]
        return Step(number, (int(first[0]), int(first[1])), np.sort(chosen))

    def window_shape(self, scan: int) -> tuple[int, int]:
        """Return height and width of the windows of a scan: `window_px`, or its whole canvas."""
        height, width = self._frames[scan].shape
        return min(self.window_px, height), min(self.window_px, width)
