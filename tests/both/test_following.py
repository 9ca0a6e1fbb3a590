"""A scan that is followed while it is written ends as the scan that is read when it is there."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from ptychodus_torch_plugin.api import Model, reconstruct
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.files.growing import ScanSoFar
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.raw import RawScan
from ptychodus_torch_plugin.following import follow
from ptychodus_torch_plugin.scan import ScanData

MODELS = {
    'network': {'architecture': 'cnn', 'gridsize': 1, 'n_filters_scale': 1},
    'network of groups': {'architecture': 'cnn', 'gridsize': 2, 'n_filters_scale': 1},
    'unrolled': {'architecture': 'unrolled', 'channels': (4,), 'sweeps_before': 3},
}


@dataclass
class Parts:
    """A scan that arrives in parts, one whenever somebody looks."""

    scan: ScanData
    sizes: list[int]
    path: Path = Path('parts')
    options: ReadOptions = field(default_factory=ReadOptions)
    complete: bool = False
    _first: int = field(default=0, init=False)

    def new_parts(self) -> Iterator[RawScan]:
        if self.sizes:
            last = self._first + self.sizes.pop(0)
            if last > self._first:
                part = self.scan.subset(np.arange(self._first, last))
                yield RawScan(
                    patterns=part.patterns,
                    positions_px=part.positions_px,
                    probe=part.probe,
                    bad_pixels=part.bad_pixels,
                    contract='intensity',
                    contract_source='they are',
                    keys='the arrays',
                )
            self._first = last
        self.complete = not self.sizes


@pytest.fixture(scope='module')
def scan(simulated):
    """Positions of which later ones lie outside the canvas of earlier ones, and no known object."""
    made = simulated(N=64, n_positions=30, photons=3e4)
    order = np.argsort(made.positions_px[:, 0] - made.positions_px[:, 1], kind='stable')
    return replace(made.subset(order), object_guess=None)


@pytest.mark.parametrize(
    'kind',
    [
        'network',
        pytest.param('network of groups', marks=pytest.mark.slow),
        'unrolled',
    ],
)
def test_following_ends_as_reading_does(backend, scan, kind):
    config = ModelConfig(N=64, **MODELS[kind])
    engine = get_backend(backend)
    model = Model(engine, engine.build(config, Calibration.of([scan], config), seed=1))
    inference = InferenceConfig(held_out_fraction=0.1, seed=4)
    execution = ExecutionConfig(accelerator='cpu')
    previews = []

    found_scan, found = follow(
        model,
        ScanSoFar(Parts(scan, [3, 9, 11, scan.n_patterns - 23])),
        inference,
        execution,
        update_s=0.0,
        on_preview=previews.append,
    )
    expected = reconstruct(model, scan, inference, execution)

    np.testing.assert_array_equal(found_scan.patterns[:], scan.patterns)
    assert found.frame == expected.frame
    assert found.stage == expected.stage
    assert np.abs(found.object_ - expected.object_).max() < 1e-5
    assert found.r_held_out == pytest.approx(expected.r_held_out, rel=1e-5)
    numbers = [preview.n_patterns for preview in previews]
    assert numbers[-1] == scan.n_patterns
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 3
    for preview in previews:
        assert np.isfinite(preview.object_).all()
    # What was seen first is still seen at the end, at its place on the larger canvas.
    first, last = previews[0], previews[-1]
    assert (last.occupancy > 0).sum() > (first.occupancy > 0).sum()
    y, x = np.subtract(first.frame.origin_px, last.frame.origin_px)
    height, width = first.frame.shape
    again = last.occupancy[y : y + height, x : x + width]
    assert (again >= 0.999 * first.occupancy).all()


@pytest.mark.slow_in('tensorflow')
def test_a_preview_of_sweeps_resembles_the_object(backend, scan):
    config = ModelConfig(N=64, architecture='none', sweeps_before=12)
    engine = get_backend(backend)
    model = Model(engine, engine.build(config, Calibration.of([scan], config)))
    previews = []
    follow(
        model,
        ScanSoFar(Parts(scan, [4] * 5 + [0, 0, scan.n_patterns - 20])),
        InferenceConfig(held_out_fraction=0.0),
        ExecutionConfig(accelerator='cpu'),
        update_s=0.0,
        on_preview=previews.append,
    )
    expected = reconstruct(model, scan, InferenceConfig(held_out_fraction=0.0))

    last = previews[-1]
    y, x = np.subtract(expected.frame.origin_px, last.frame.origin_px)
    height, width = expected.frame.shape
    shown = last.object_[y : y + height, x : x + width]
    lit = expected.occupancy > 0.2 * expected.occupancy.max()
    # Without its mean, of which an empty object has all.
    a, b = (object_[lit] - object_[lit].mean() for object_ in (shown, expected.object_))
    assert abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.8


def test_a_scan_that_is_ended_keeps_what_has_arrived(backend, scan):
    config = ModelConfig(N=64, architecture='none', sweeps_before=2)
    engine = get_backend(backend)
    model = Model(engine, engine.build(config, Calibration.of([scan], config)))
    ended = threading.Event()
    found_scan, found = follow(
        model,
        ScanSoFar(Parts(scan, [6, 6, 6, 6, 6])),
        InferenceConfig(held_out_fraction=0.0),
        update_s=0.0,
        on_preview=lambda preview: ended.set() if preview.n_patterns == 12 else None,
        should_end=ended.is_set,
    )

    assert found_scan.n_patterns == 12
    assert found.object_.shape == found.frame.shape
