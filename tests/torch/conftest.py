"""Scans and scenes, shared by the tests of the PyTorch backend.

torch is imported here without a guard: where it is missing these tests fail, they never skip.
"""

from collections.abc import Callable

import pytest
import torch  # noqa: F401

from ptychodus_torch_plugin.scan import ScanData
from tests.parity.scenes import SCENES, lopsided_scan, simulated_scan

from .parity import Scene


@pytest.fixture(scope='session')
def simulated() -> Callable[..., ScanData]:
    return simulated_scan


@pytest.fixture(scope='session')
def lopsided() -> Callable[..., ScanData]:
    return lopsided_scan


@pytest.fixture(scope='session', params=SCENES.values(), ids=SCENES)
def scene(request: pytest.FixtureRequest, lopsided: Callable[..., ScanData]) -> Scene:
    """A scan, an object and a probe on which both worlds are compared."""
    n_px, modes, whole = request.param
    return Scene.on(lopsided(n_px, modes, whole=whole), whole=whole)
