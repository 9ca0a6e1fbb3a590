"""The scans of the set: seeded, named, and what is held back or falsified before reconstruction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from pydantic import Field

from ptychodus_torch_plugin.aberrations import with_aberrations
from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray
from ptychodus_torch_plugin.config.settings import Settings
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.metrics import scanned_region
from ptychodus_torch_plugin.phantoms import ObjectKind
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

SetName = Literal['quick', 'standard', 'full']

N_PX = 64
DIAMETER_PX = 24.0
"""Second-moment diameter of every probe of the set."""

WRONG_OVERLAP = 0.66
"""Overlap of the wrong probe with the true one."""

SEED = 3
"""Seed of every case; `Case.reseeded` gives other objects, probes, positions and noise."""


class Case(Settings):
    """One scan, and what is known of it."""

    name: str
    """Unique; says what is special about it."""
    simulation: SimulationConfig
    """The scan; its `position_error_px` is in the positions that everybody is given."""
    probe_overlap: float | None = Field(None, gt=0.0, lt=1.0)
    """Overlap of the probe that everybody is given with the true one; None gives the true one."""

    @property
    def probe_wrong(self) -> bool:
        """Whether the probe has to be found as well."""
        return self.probe_overlap is not None

    @property
    def positions_wrong(self) -> bool:
        """Whether the positions have to be found as well."""
        return self.simulation.position_error_px > 0

    @property
    def overlap(self) -> float:
        """Linear overlap of neighbouring positions: 1 - step / diameter of the probe (D4 sigma)."""
        return 1 - self.simulation.step_px / (self.simulation.probe_diameter_px or DIAMETER_PX)

    def reseeded(self, by: int) -> Case:
        """Return the case with another seed."""
        changed = self.simulation.model_copy(update={'seed': self.simulation.seed + by})
        return self.model_copy(update={'simulation': changed})


@dataclass(frozen=True)
class Problem:
    """What a case becomes.

    Attributes
    ----------
    case
        The case.
    scan
        What every method is given; its object is flat, on the grid of the truth.
    truth : (h, w) complex64
        The object.
    probe : (m, N, N) complex64
        The true probe.
    region : (h, w) bool
        Where the true probe has been, at the true positions.
    """

    case: Case
    scan: ScanData
    truth: ComplexArray
    probe: ComplexArray
    region: BoolArray


def make_problem(case: Case) -> Problem:
    """Simulate a case; the same case gives the same bits."""
    true = simulate_scan(case.simulation.model_copy(update={'position_error_px': 0.0}))
    given = simulate_scan(case.simulation) if case.positions_wrong else true
    assert true.object_guess is not None
    corners, _ = true.frame.corners(true.positions_px, true.n_px)
    beam = np.sum(np.abs(true.probe) ** 2, axis=0)
    probe = true.probe
    if case.probe_overlap is not None:
        probe = with_aberrations(probe, case.probe_overlap, case.simulation.seed)
    return Problem(
        case=case,
        scan=replace(
            given, probe=probe, object_guess=np.ones_like(true.object_guess), name=case.name
        ),
        truth=true.object_guess,
        probe=true.probe,
        region=scanned_region(true.frame.shape, corners, true.n_px, beam),
    )


def _case(
    name: str,
    kind: ObjectKind,
    *,
    n: int,
    overlap: float,
    photons: float,
    wrong: bool = False,
    **simulation: object,
) -> Case:
    values = {
        'object_kind': kind,
        'images': 'test',
        'N': N_PX,
        'n_positions': n,
        'step_px': (1 - overlap) * DIAMETER_PX,
        'probe_diameter_px': DIAMETER_PX,
        'photons': photons,
        'seed': SEED,
        **simulation,
    }
    return Case(
        name=name,
        simulation=SimulationConfig.parse(values, source=f'case {name}'),
        probe_overlap=WRONG_OVERLAP if wrong else None,
    )


DOSES = {'1e6': 1e6, '1e4': 1e4, '1e3': 1e3}
DENSITIES = {74: 1024, 39: 256}
"""Overlap in per cent, and the number of positions that cover about the same area."""


def _grid(kind: ObjectKind) -> list[Case]:
    """Return the twelve cases of one object: two overlaps, three doses, true and wrong probe."""
    return [
        _case(
            f'{kind}-{percent}-{dose}{"-wrong" if wrong else ""}',
            kind,
            n=n,
            overlap=percent / 100,
            photons=photons,
            wrong=wrong,
        )
        for percent, n in DENSITIES.items()
        for wrong in (False, True)
        for dose, photons in DOSES.items()
    ]


def _variety() -> list[Case]:
    """Return cases that differ in everything else."""
    return [
        _case('dead-leaves-spiral', 'dead-leaves', n=400, overlap=0.6, photons=1e5, scan='spiral'),
        _case('dead-leaves-30', 'dead-leaves', n=196, overlap=0.3, photons=1e5),
        _case('star-60-wrong', 'siemens-star', n=400, overlap=0.6, photons=1e4, wrong=True),
        _case('circuit-80-raster', 'circuit', n=576, overlap=0.8, photons=1e3, jitter=0.0),
        _case('natural-80-1e2', 'natural', n=576, overlap=0.8, photons=1e2),
        _case('circuit-2-modes', 'circuit', n=400, overlap=0.6, photons=1e5, probe_modes=2),
        _case('natural-3-modes', 'natural', n=400, overlap=0.7, photons=1e5, probe_modes=3),
        _case(
            'star-positions', 'siemens-star', n=400, overlap=0.7, photons=1e5, position_error_px=1
        ),
    ]


def _sets() -> dict[SetName, tuple[Case, ...]]:
    standard = (*_grid('natural'), *_variety())
    brief = ('natural-39-1e6', 'natural-39-1e4-wrong', 'natural-39-1e3', 'dead-leaves-30')
    others: tuple[ObjectKind, ...] = ('dead-leaves', 'siemens-star', 'circuit')
    full = (*standard, *(case for kind in others for case in _grid(kind)))
    return {
        'quick': tuple(case for case in standard if case.name in brief),
        'standard': standard,
        'full': full,
    }


SETS = _sets()
"""The cases of each set, in the order of running; every set holds the one before."""


def choose(set_name: SetName, patterns: tuple[str, ...] = (), reseed: int = 0) -> list[Case]:
    """Return the cases of a set that any of the patterns (as of a shell) matches; all without.

    `reseed` is added to every seed.

    Raises
    ------
    ConfigError
        If a pattern matches none.
    """
    names = [case.name for case in SETS[set_name]]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f'case = {pattern!r} matches none of the set {set_name!r}; expected some of '
                f'{", ".join(names)}.'
            )
    return [
        case.reseeded(reseed) if reseed else case
        for case in SETS[set_name]
        if not patterns or any(fnmatchcase(case.name, pattern) for pattern in patterns)
    ]
