"""Where the patterns of a scan lie relative to each other: nearest neighbours, and spatial order.

What is asked for one pattern after the other is asked along a walk through the scan: neighbours
in space then lie near each other in the processor's cache, which is worth more than anything else.
"""

from __future__ import annotations

import numpy as np

from ptychodus_torch_plugin.arrays import IndexArray, PositionArray

CELLS = 2**8
"""Cells of a walk along each axis: both numbers of one fit 16 bits, which sort by counting."""


class Neighborhood:
    """The patterns of a scan, prepared for questions about many of them.

    Needs about 150 bytes a pattern.

    Parameters
    ----------
    positions_px : (n, 2) float64
        Positions [y, x] of all patterns.
    pool : (k,) int64
        Patterns that may be neighbours, ascending.
    """

    def __init__(self, positions_px: PositionArray, pool: IndexArray) -> None:
        from scipy.spatial import cKDTree

        self._positions, self._pool = positions_px, pool
        # Where distances are equal, how the tree was built decides: not to be changed lightly.
        self._tree = cKDTree(positions_px[pool])
        y, x = positions_px.T
        self._down, self._right = _Order(y, x), _Order(x, y)

    def nearest(self, seeds: IndexArray, count: int) -> IndexArray:
        """Return the `count` nearest neighbours of seeds (k,) in the pool, (k, count) int64.

        A seed is none of its own; nor need it be the nearest, for several patterns can have one
        position.
        """
        width = min(count + 1, len(self._pool))
        _, found = self._tree.query(self._positions[seeds], k=width)
        nearest = self._pool[found.reshape(len(seeds), width)]
        others = nearest != seeds[:, None]
        others[others.all(axis=1), count:] = False
        return np.asarray(nearest[others].reshape(len(seeds), count))

    def in_spatial_order(self, members: IndexArray, gridsize: int) -> IndexArray:
        """Sort members (g, C) by y (ties by x), cut them into rows, sort each row by x.

        What ties both ways is in order of the indices: one set of patterns has one order.
        """
        rows = self._down.sort(members).reshape(-1, gridsize)
        return self._right.sort(rows).reshape(members.shape)


class _Order:
    """All patterns by one coordinate (n,), ties by another one, and then by their indices."""

    def __init__(self, first: PositionArray, then: PositionArray) -> None:
        self._order = np.argsort(first)
        ascending = first[self._order]
        if (ascending[1:] == ascending[:-1]).any():
            self._order = np.lexsort((then, first))
        self._rank = np.empty_like(self._order)
        self._rank[self._order] = np.arange(len(first))

    def sort(self, rows: IndexArray) -> IndexArray:
        """Return the patterns of each row in this order: ranks are sorted faster than places."""
        ranks = self._rank[rows]
        ranks.sort(axis=1)
        return np.asarray(self._order[ranks])


def walk(positions_px: PositionArray) -> IndexArray:
    """Return an order (n,) int64 in which positions (n, 2) that follow each other lie near.

    Cell by cell of a grid over all of them.
    """
    low = positions_px.min(axis=0)
    extent_px = max(float(np.ptp(positions_px, axis=0).max()), np.finfo(np.float64).tiny)
    # Divided first: a very small extent has no finite inverse.
    cells = ((positions_px - low) / extent_px * (CELLS - 1)).astype(np.uint16)
    return np.argsort(cells[:, 0] * np.uint16(CELLS) + cells[:, 1], kind='stable')
