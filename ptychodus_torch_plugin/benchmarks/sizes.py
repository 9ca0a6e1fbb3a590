"""How large the problems are: quick, standard, full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SizeName = Literal['quick', 'standard', 'full']


@dataclass(frozen=True)
class Size:
    """Problem sizes of a run.

    Attributes
    ----------
    positions
        For what sees positions alone.
    patterns
        For what sees patterns, at N = 64; see `fitting`.
    scans
        Patterns of a whole reconstruction by the network.
    swept
        Patterns of a sweep.
    sides_px
        N.
    gridsizes, modes, filters
        Settings of the network, and modes of the probe.
    batches
        Groups at once.
    steps
        Optimiser steps of an epoch.
    repeats
        Repetitions of a measurement, unless asked otherwise.
    brief
        Whether what takes long and says little more is left out.
    """

    positions: tuple[int, ...]
    patterns: tuple[int, ...]
    scans: tuple[int, ...]
    swept: tuple[int, ...]
    sides_px: tuple[int, ...]
    gridsizes: tuple[int, ...]
    modes: tuple[int, ...]
    filters: tuple[int, ...]
    batches: tuple[int, ...]
    steps: int
    repeats: int
    brief: bool = False

    def fitting(self, counts: tuple[int, ...], n_px: int) -> tuple[int, ...]:
        """Return those counts whose patterns of side `n_px` need no more memory than at N = 64."""
        return tuple(count for count in counts if count * n_px**2 <= max(counts) * 64**2)


SIZES: dict[SizeName, Size] = {
    'quick': Size(
        positions=(100, 1_000, 10_000),
        patterns=(100, 1_000),
        scans=(200,),
        swept=(400,),
        sides_px=(64,),
        gridsizes=(1, 2),
        modes=(1, 3),
        filters=(1,),
        batches=(1, 16, 32),
        steps=3,
        repeats=2,
        brief=True,
    ),
    'standard': Size(
        positions=(100, 1_000, 10_000, 100_000, 1_000_000),
        patterns=(100, 1_000, 10_000),
        scans=(1_000, 10_000),
        swept=(100, 1_000),
        sides_px=(64, 128),
        gridsizes=(1, 2, 3),
        modes=(1, 2, 3, 4),
        filters=(1, 2),
        batches=(1, 4, 16, 32),
        steps=6,
        repeats=3,
    ),
    'full': Size(
        positions=(100, 1_000, 10_000, 100_000, 1_000_000),
        patterns=(100, 1_000, 10_000, 100_000),
        scans=(1_000, 10_000, 100_000),
        swept=(100, 1_000, 10_000),
        sides_px=(64, 128, 256),
        gridsizes=(1, 2, 3),
        modes=(1, 2, 3, 4),
        filters=(1, 2),
        batches=(1, 4, 16, 32, 64),
        steps=10,
        repeats=5,
    ),
}
