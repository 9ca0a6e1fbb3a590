"""Scans and scenes, shared by the tests of the TensorFlow backend.

tensorflow is imported here without a guard: where it is missing these tests fail, they never skip.
"""

from collections.abc import Callable

import pytest
import tensorflow as tf  # noqa: F401

from ptychodus_torch_plugin.scan import ScanData
from tests.parity.scenes import SCENES, lopsided_scan, simulated_scan

from .parity import Scene


@pytest.fixture(scope='session')
def simulated() -> Callable[..., ScanData]:
    return simulated_scan


@pytest.fixture(scope='session', params=SCENES.values(), ids=SCENES)
def scene(request: pytest.FixtureRequest) -> Scene:
    """A scan, an object and a probe on which both worlds are compared."""
    n_px, modes, whole = request.param
    return Scene.on(lopsided_scan(n_px, modes, whole=whole), whole=whole)
