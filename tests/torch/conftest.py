"""Scans, scenes and one whole training run, shared by the tests of the PyTorch backend.

torch is imported here without a guard: where it is missing these tests fail, they never skip.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch  # noqa: F401

from ptychodus_torch_plugin.arrays import IndexArray
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.training_plan import held_out_indices

from .parity import Scene, scene_on
from .quick import TRAINING, Run, fit


@pytest.fixture(scope='session')
def simulated() -> Callable[..., ScanData]:
    """Small simulated scans of 'dead leaves', sub-pixel, at odd offsets."""

    @cache
    def scan(**changes: Any) -> ScanData:
        settings = {
            'N': 32,
            'object_kind': 'dead-leaves',
            'n_positions': 49,
            'step_px': 4.5,
            'offset_px': (1.3, -0.7),
            'photons': 1e4,
            'seed': 3,
        }
        return simulate_scan(SimulationConfig(**(settings | changes)))

    return scan


@pytest.fixture(scope='session')
def lopsided(simulated: Callable[..., ScanData]) -> Callable[..., ScanData]:
    """Scans whose canvas has unequal odd sides, with or without sub-pixel parts, with bad pixels.

    The bad pixels hold what a detector writes there: its largest number.
    """

    @cache
    def scan(n_px: int, modes: int, *, whole: bool) -> ScanData:
        seed, step_px = {32: (4, 4.5), 64: (5, 7.0)}[n_px]
        full = simulated(N=n_px, n_positions=36, step_px=step_px, probe_modes=modes, seed=seed)
        kept = np.flatnonzero(np.arange(36) % 6 < 5)  # five of six columns
        positions = full.positions_px[kept]
        if whole:
            positions = np.round(positions + 0.5) - 0.5
        bad_pixels = np.random.default_rng(1).random((n_px, n_px)) < 0.03
        patterns = full.patterns[kept]
        patterns[:, bad_pixels] = 2**16 - 1
        scan = replace(
            full,
            patterns=patterns,
            positions_px=positions,
            bad_pixels=bad_pixels,
            object_guess=None,
        )
        height, width = scan.frame.shape
        assert height % 2 == width % 2 == 1
        assert height != width
        return scan

    return scan


SCENES = {
    '32 px, 3 modes, sub-pixel': (32, 3, False),
    '32 px, 1 mode, whole pixels': (32, 1, True),
    '64 px, 2 modes, whole pixels': (64, 2, True),
    '64 px, 1 mode, sub-pixel': (64, 1, False),
}


@pytest.fixture(scope='session', params=SCENES.values(), ids=SCENES)
def scene(request: pytest.FixtureRequest, lopsided: Callable[..., ScanData]) -> Scene:
    """A scan, an object and a probe on which both worlds are compared."""
    n_px, modes, whole = request.param
    return scene_on(lopsided(n_px, modes, whole=whole), whole=whole)


@pytest.fixture(scope='session')
def noisy(simulated: Callable[..., ScanData]) -> ScanData:
    """49 noisy patterns to train on."""
    return simulated(photons=3e3)


@pytest.fixture(scope='session')
def held(noisy: ScanData) -> IndexArray:
    """The patterns of `noisy` that training keeps for validation."""
    return held_out_indices(noisy, TRAINING.held_out_fraction, TRAINING.seed)


@pytest.fixture(scope='session')
def whole(noisy: ScanData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three epochs on `noisy` without interruption."""
    folder = tmp_path_factory.mktemp('whole') / 'made by training'
    events: list[Any] = []
    options = {'checkpoint_dir': folder, 'on_event': events.append}
    return Run(fit(noisy, options=options), events, folder)
