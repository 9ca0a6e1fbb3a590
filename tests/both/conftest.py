"""The same tests for every backend whose framework is installed; without any they fail."""

from collections.abc import Callable, Iterator
from importlib import import_module, util
from types import ModuleType
from typing import Any

import pytest

from ptychodus_torch_plugin.arrays import IndexArray
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.training_plan import held_out_indices
from tests.parity.scenes import lopsided_scan, simulated_scan

from .quick import (
    CNN,
    CNN_EXECUTION,
    CNN_TRAINING,
    EXECUTION,
    MODEL,
    TRAINING,
    Runs,
    WholeRun,
)

FRAMEWORKS = {'pytorch': 'torch', 'tensorflow': 'tensorflow'}
INSTALLED = [name for name, package in FRAMEWORKS.items() if util.find_spec(package) is not None]

for name in INSTALLED:
    # PyTorch first: the two share libraries, and only this order of loading them is sound.
    get_backend(name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what is slow in one backend alone."""
    for item in items:
        tried = getattr(item, 'callspec', None)
        for mark in item.iter_markers('slow_in'):
            if tried is not None and tried.params.get('backend') in mark.args:
                item.add_marker('slow')


@pytest.fixture(autouse=True, scope='session')
def one_thread() -> Iterator[None]:
    """Two pools of threads in one process mostly wait for each other."""
    if 'pytorch' not in INSTALLED:
        yield
        return
    torch = import_module('torch')
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session', params=INSTALLED or ['none'])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend."""
    assert request.param != 'none', f'expected one of {list(FRAMEWORKS.values())} to be installed'
    return str(request.param)


@pytest.fixture(scope='session')
def inside(backend: str) -> ModuleType:
    """What the tests must know of the inside of the backend: `inside_<backend>.py`."""
    return import_module(f'tests.both.inside_{backend}')


@pytest.fixture(scope='session')
def quick(backend: str) -> Runs:
    """Trainings of an unrolled network."""
    return Runs(get_backend(backend), MODEL, TRAINING, EXECUTION)


@pytest.fixture(scope='session')
def quick_cnn(backend: str) -> Runs:
    """Trainings of the reference network."""
    return Runs(get_backend(backend), CNN, CNN_TRAINING, CNN_EXECUTION)


@pytest.fixture(scope='session')
def simulated() -> Callable[..., ScanData]:
    return simulated_scan


@pytest.fixture(scope='session')
def lopsided() -> Callable[..., ScanData]:
    return lopsided_scan


@pytest.fixture(scope='session')
def noisy(simulated: Callable[..., ScanData]) -> ScanData:
    """49 noisy patterns to train on."""
    return simulated(photons=3e3)


@pytest.fixture(scope='session')
def held(noisy: ScanData) -> IndexArray:
    """The patterns of `noisy` that training keeps for validation."""
    return held_out_indices(noisy, TRAINING.held_out_fraction, TRAINING.seed)


@pytest.fixture(scope='session')
def whole(quick: Runs, noisy: ScanData, tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """Three epochs on `noisy` without interruption."""
    folder = tmp_path_factory.mktemp('whole') / 'made by training'
    events: list[Any] = []
    options = {'checkpoint_dir': folder, 'on_event': events.append}
    return WholeRun(quick.fit(noisy, options=options), events, folder)
