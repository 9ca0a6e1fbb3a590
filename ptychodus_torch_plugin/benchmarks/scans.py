"""Inputs of any size, made in little time: what is timed does not depend on what they show."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, sqrt

import numpy as np

from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

STEP = 7.5 / 64
"""Distance of neighbouring positions in units of N."""

JITTER = 0.25
SIMULATED = 256
"""Patterns that are simulated at N = 64, fewer for larger ones; more patterns repeat them."""


def positions(n: int, n_px: int, *, subpixel: bool = True, seed: int = 0) -> PositionArray:
    """Return patch centres (n, 2) of a jittered raster from pixel [0, 0] of an object on.

    Without `subpixel` every patch lies on whole pixels.
    """
    rng = np.random.default_rng(seed)
    side = ceil(sqrt(n))
    steps = np.indices((side, side)).reshape(2, -1).T[:n] + rng.uniform(0, JITTER, (n, 2))
    corners = 1 + STEP * n_px * steps
    return np.asarray((corners if subpixel else np.rint(corners)) + (n_px - 1) / 2)


def make_scan(n: int, n_px: int, *, modes: int = 1, subpixel: bool = True) -> ScanData:
    """Return a scan of n patterns that repeat some simulated ones, without an object."""
    simulated = max(16, SIMULATED * 64**2 // n_px**2)
    settings = {'N': n_px, 'n_positions': simulated, 'step_px': STEP * n_px, 'probe_modes': modes}
    base = simulate_scan(SimulationConfig.parse(settings, source='the simulation'))
    return replace(
        base,
        patterns=base.patterns[np.arange(n) % base.n_patterns],
        positions_px=positions(n, n_px, subpixel=subpixel),
        object_guess=None,
        name=f'benchmark-{n}',
    )


def make_object(positions_px: PositionArray, n_px: int) -> tuple[ComplexArray, ObjectFrame]:
    """Return an object (h, w) complex64 of random phases that holds every patch, and its frame."""
    frame = ObjectFrame.around(positions_px, n_px)
    phases = np.random.default_rng(0).uniform(0, 1, frame.shape).astype(np.float32)
    return np.exp(1j * phases).astype(np.complex64), frame
