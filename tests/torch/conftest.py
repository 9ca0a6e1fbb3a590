"""What the tests of the PyTorch backend share.

torch is imported here without a guard: where it is missing these tests fail, they never skip.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

CPU = torch.device('cpu')


@pytest.fixture(scope='session')
def assert_close() -> Callable[..., None]:
    """The comparison of every parity test."""

    def check(actual: Any, expected: Any, tolerance: float, *, dtype: Any) -> None:
        """Compare with the oracle: shape, dtype, and values relative to the largest one."""
        if isinstance(actual, torch.Tensor):
            actual = actual.detach().numpy()
        expected = np.asarray(expected)
        assert actual.dtype == dtype, f'dtype {actual.dtype}; expected {np.dtype(dtype)}'
        assert actual.shape == expected.shape, f'shape {actual.shape}; expected {expected.shape}'
        scale = np.abs(expected).max()
        assert scale > 0, 'the expected values are all zero'
        error = np.abs(actual - expected).max() / scale
        assert error <= tolerance, f'off by {error:.2e} of the largest value; allowed {tolerance}'

    return check


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
