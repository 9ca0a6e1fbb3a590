"""Which part of a batch, of an epoch or of a scan each of several processes computes.

The rules are deterministic, and alike in every backend (`specs/backend-api.md`, section 7):

- A batch of 'cnn' is drawn for all ranks together, `count` times as large, and cut into shares that
  differ by one group at most.  A rank whose share is empty computes the first group, without
  weight.
- The steps of 'unrolled' are dealt out one after the other; what is missing at the end of an epoch
  is made up by steps without weight.

So every rank takes the same number of steps, whatever the numbers, and no sample is lost or
doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar('T')


@dataclass(frozen=True)
class Shard:
    """The share of one of `count` ranks."""

    index: int = 0
    count: int = 1

    def rows(self, n: int) -> slice:
        """Return this rank's rows of `n`: the first ones of all ranks have one more, if need be."""
        size, rest = divmod(n, self.count)
        first = self.index * size + min(self.index, rest)
        return slice(first, first + size + (self.index < rest))

    def weight(self, n: int) -> float:
        """Return by how much this rank's mean over its rows is to be multiplied.

        The mean of the products over all ranks is then the mean over all `n` rows.
        """
        rows = self.rows(n)
        return self.count * int(rows.stop - rows.start) / n

    def dealt(self, items: Sequence[T]) -> list[tuple[T, float]]:
        """Return every `count`-th item with its weight 1, or 0 if it only makes up the numbers."""
        rounds = -(-len(items) // self.count)
        places = [number * self.count + self.index for number in range(rounds)]
        return [
            (items[place], 1.0) if place < len(items) else (items[place % len(items)], 0.0)
            for place in places
        ]


ALONE = Shard()
"""Everything."""
