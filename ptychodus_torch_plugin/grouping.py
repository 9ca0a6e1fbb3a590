"""Which patterns go together: groups of C = gridsize^2 neighbours, as index arrays.

A group is a seed pattern and C - 1 of its K nearest neighbours.  Groups hold indices, never copies
of patterns.  Everything random comes from one `numpy.random.Generator`, so that the same arguments
give the same groups in every backend and process.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, gcd, isqrt

import numpy as np
from numpy.random import Generator

from ptychodus_torch_plugin.arrays import (
    BoolArray,
    FloatArray,
    IndexArray,
    PositionArray,
    check_array,
    check_finite,
)
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError
from ptychodus_torch_plugin.neighborhood import Neighborhood, walk

CHUNK_GROUPS = 2**14
"""Groups that are drawn together: what a cache holds, however many millions of patterns."""

MAX_COMBINATIONS = 2**62
"""Largest number of combinations that are counted: sums of two of them fit 64-bit integers."""

GOLDEN_SECTION = (5**0.5 - 1) / 2
MAX_STRIDE = 2**30


@dataclass(frozen=True)
class Groups:
    """Groups of C = gridsize^2 patterns each, channels in spatial order.

    Attributes
    ----------
    indices : (g, C) int64
        Patterns of each group.  Channel c lies in row c // gridsize and column c % gridsize.
    centers_px : (g, 2) float64
        Mean [y, x] of the positions of each group.
    offsets_px : (g, C, 2) float32
        position - centre, [dy, dx].
    """

    indices: IndexArray
    centers_px: PositionArray
    offsets_px: FloatArray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def gridsize(self) -> int:
        """Rows, and columns, of a group."""
        return isqrt(self.indices.shape[1])

    @property
    def reach_px(self) -> float:
        """Largest component of any offset: what a canvas must hold (`stitching.canvas_px`)."""
        return float(np.abs(self.offsets_px).max(initial=0.0))


def draw_groups(
    positions_px: PositionArray,
    gridsize: int,
    *,
    n_groups: int | None = None,
    neighbor_count: int | None = None,
    seed: int = 0,
    sequential: bool = False,
    oversample: bool = False,
    pool: IndexArray | None = None,
    seeds: IndexArray | None = None,
) -> Groups:
    """Draw groups of neighbouring patterns; same arguments, same groups.

    Parameters
    ----------
    positions_px : (n, 2) float64
        Positions [y, x] of all patterns of the scan.
    gridsize
        A group has C = gridsize^2 patterns.
    n_groups
        None takes every seed once.  Fewer groups than seeds start from seeds drawn without
        replacement; the group of a seed does not depend on how many others there are.
    neighbor_count
        K, cut to the patterns that exist; None takes C.
    seed
        Seed of the draw.
    sequential
        Whether fewer groups than seeds start from the first seeds instead of random ones.
    oversample
        Whether there may be more groups than seeds: every seed then has equally many, up to one.
        Groups of one seed all differ until all its combinations of neighbours have been used.
    pool : (k,) int64
        Patterns that may be neighbours; None takes all.
    seeds : (s,) int64
        Patterns that groups may start from, in the pool or not; None takes the pool.

    Returns
    -------
    Groups
        In ascending order of their seeds; with oversampling, round after round.

    Raises
    ------
    ConfigError
        If the settings contradict each other, or ask for more groups than can be drawn.
    ScanValueError
        If the pool or the seeds are empty, too few, or no patterns of the scan.
    """
    positions = check_array(positions_px, 'n 2', name='positions_px', dtype=np.float64)
    check_finite(positions, name='positions_px')
    pool = _patterns(pool, len(positions), name='pool')
    seeds = pool if seeds is None else _patterns(seeds, len(positions), name='seeds')
    n_neighbors = _neighbor_count(gridsize, neighbor_count, pool, seeds)
    n_combinations = comb(n_neighbors, gridsize**2 - 1)
    rng = np.random.default_rng(seed)
    # Drawn for all seeds, whether used or not: a seed's group then depends on nothing else.
    first = rng.integers(n_combinations, size=len(seeds))
    rounds, slots = _slots(len(seeds), n_groups, n_combinations, rng, sequential, oversample)
    ranks = (first[slots] + rounds % n_combinations * _stride(n_combinations)) % n_combinations

    neighborhood = Neighborhood(positions, pool) if gridsize > 1 else None
    groups = _empty_groups(len(slots), gridsize**2)
    path = walk(positions[seeds[slots]])
    for part in np.array_split(path, range(CHUNK_GROUPS, len(path), CHUNK_GROUPS)):
        members = seeds[slots[part], None]
        if neighborhood is not None:
            neighbors = neighborhood.nearest(members[:, 0], n_neighbors)
            taken = _combinations(ranks[part], n_neighbors, gridsize**2 - 1)
            members = np.column_stack([members, neighbors[taken].reshape(len(part), -1)])
            members = neighborhood.in_spatial_order(members, gridsize)
        places = positions.take(members, axis=0)
        centers = places.mean(axis=1)
        groups.indices[part] = members
        groups.centers_px[part] = centers
        groups.offsets_px[part] = places - centers[:, None]
    return groups


def subsample(n_patterns: int, n_subsample: int | None, seed: int) -> IndexArray:
    """Return `n_subsample` of `n_patterns` indices, sorted (k,) int64, drawn without replacement.

    None takes all.

    Raises
    ------
    ConfigError
        If there are not that many.
    """
    if n_subsample is None:
        return np.arange(n_patterns)
    if not 1 <= n_subsample <= n_patterns:
        raise ConfigError(
            f'n_subsample = {n_subsample} of {n_patterns} patterns cannot be drawn; expected 1 to '
            f'{n_patterns}, or None for all.'
        )
    return np.sort(np.random.default_rng(seed).choice(n_patterns, n_subsample, replace=False))


def _patterns(indices: IndexArray | None, n_patterns: int, *, name: str) -> IndexArray:
    """Return sorted, distinct indices of patterns; None gives all."""
    chosen = np.arange(n_patterns)
    if indices is not None:
        chosen = np.unique(check_array(indices, 'k', name=name, dtype=np.int64))
    if len(chosen) == 0:
        raise ScanValueError(f'{name} is empty; expected at least one pattern to make groups of.')
    if chosen[0] < 0 or chosen[-1] >= n_patterns:
        raise ScanValueError(
            f'{name} has indices from {chosen[0]} to {chosen[-1]}; expected indices of the '
            f"scan's {n_patterns} patterns, from 0 to {n_patterns - 1}."
        )
    return chosen


def _neighbor_count(
    gridsize: int, neighbor_count: int | None, pool: IndexArray, seeds: IndexArray
) -> int:
    """Return K: what was asked for, cut to the neighbours that every seed has."""
    if gridsize < 1:
        raise ConfigError(f'gridsize = {gridsize} makes no groups; expected at least 1.')
    others = gridsize**2 - 1
    if neighbor_count is None:
        neighbor_count = others + 1
    if neighbor_count < others:
        raise ConfigError(
            f'neighbor_count = {neighbor_count} is too small for gridsize = {gridsize}, whose '
            f'groups have {others} patterns besides the seed; expected at least {others}, or None '
            f'for {others + 1}.'
        )
    available = len(pool) - int(np.isin(seeds, pool).any())
    if available < others:
        raise ScanValueError(
            f'gridsize = {gridsize} needs groups of {others + 1} patterns, but a seed has only '
            f'{available} others to go with it; expected at least {others}, or a gridsize of at '
            f'most {isqrt(available + 1)}.'
        )
    count = min(neighbor_count, available) if others else 0
    if comb(count, others) > MAX_COMBINATIONS:
        most = next(k for k in range(count, 0, -1) if comb(k, others) <= MAX_COMBINATIONS)
        raise ConfigError(
            f'neighbor_count = {count} gives too many combinations to be counted for gridsize = '
            f'{gridsize}; expected at most {most}.'
        )
    return count


def _slots(
    n_seeds: int,
    n_groups: int | None,
    n_combinations: int,
    rng: Generator,
    sequential: bool,
    oversample: bool,
) -> tuple[IndexArray, IndexArray]:
    """Return for each group (g,) int64 its round and the index of its seed among the seeds."""
    n_groups = n_seeds if n_groups is None else n_groups
    if n_groups < 1:
        raise ConfigError(f'n_groups = {n_groups} makes no groups; expected at least 1, or None.')
    if n_groups > n_seeds and not (oversample and n_combinations > 1):
        remedy = (
            'but every seed has one possible group alone: raise neighbor_count (gridsize 2 or more)'
            if oversample
            else 'or oversampling (enable_oversampling)'
        )
        raise ConfigError(
            f'n_groups = {n_groups} exceeds the {n_seeds} patterns that groups can start from; '
            f'expected at most {n_seeds}, {remedy}.'
        )
    rounds, rest = divmod(n_groups, n_seeds)
    last = np.arange(rest) if sequential else np.sort(rng.choice(n_seeds, rest, replace=False))
    slots = np.concatenate([np.tile(np.arange(n_seeds), rounds), last])
    return np.arange(n_groups) // n_seeds, slots


def _stride(n_combinations: int) -> int:
    """Return a step through all combinations that meets each once, the next one far away."""
    stride = max(1, min(MAX_STRIDE, round(GOLDEN_SECTION * n_combinations)))
    while gcd(stride, n_combinations) > 1:
        stride += 1
    return stride


def _empty_groups(n_groups: int, n_members: int) -> Groups:
    return Groups(
        np.empty((n_groups, n_members), dtype=np.int64),
        np.empty((n_groups, 2), dtype=np.float64),
        np.empty((n_groups, n_members, 2), dtype=np.float32),
    )


def _combinations(ranks: IndexArray, n: int, k: int) -> BoolArray:
    """Return the masks (g, n) bool of the combinations, k of n, with `ranks` in dictionary order.

    Item after item: those combinations that take it come first, and their number is known.
    """
    masks = np.zeros((len(ranks), n), dtype=np.bool_)
    left, missing = ranks.copy(), np.full(len(ranks), k)
    for item in range(n):
        counts = [
            min(comb(n - item - 1, m - 1), MAX_COMBINATIONS) if m else 0 for m in range(k + 1)
        ]
        with_item = np.asarray(counts)[missing]
        taken = left < with_item
        masks[:, item] = taken
        left -= np.where(taken, 0, with_item)
        missing -= taken
    return masks
