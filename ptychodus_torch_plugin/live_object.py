"""The object of a scan that is still being measured, made better by whatever arrives.

By the network's patches of the new patterns ('cnn'), or by sweeps over the new and some of the old
patterns; when the scan is complete, it is reconstructed as any other scan is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from ptychodus_torch_plugin.api import Model, check_fits
from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import OnEvent, Reconstruction, ShouldStop
from ptychodus_torch_plugin.backends.stages import (
    GROUPS_AT_ONCE,
    patch_canvas,
    predicted_patches,
    reconstruct,
    shares_patches,
)
from ptychodus_torch_plugin.calibration import scan_probe
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.stitching import Canvas
from ptychodus_torch_plugin.sweeps import Sweep

ROOM_PX = 128
"""Canvases grow by so much at once: every new shape has a price."""

PREVIEW_SWEEP = Sweep(damping=0.3, step=1.0, momentum=0.0)
"""Sweeps of a preview: fast, and steady however often they are repeated."""

FIRST_PATTERNS_PER_S = 200.0
"""Speed before it is measured."""

MIN_PATTERNS = 32
"""So many are taken at once, however slow it is."""


@dataclass(frozen=True)
class Preview:
    """The object so far.

    Attributes
    ----------
    object_ : (h, w) complex64
        Where no pattern has been, 0 ('cnn') or 1.
    occupancy : (h, w) float32
        Weight of what lies on each pixel; 0 where nothing does.
    frame
        Where it lies on the object grid; grows with the scan.
    n_patterns
        How many patterns it was made of.
    """

    object_: ComplexArray
    occupancy: FloatArray
    frame: ObjectFrame
    n_patterns: int


class LiveObject:
    """The object so far, made better by whatever arrives."""

    def __init__(
        self,
        model: Model,
        inference: InferenceConfig,
        execution: ExecutionConfig,
        update_s: float,
    ) -> None:
        self._model, self._inference, self._execution = model, inference, execution
        self._canvas: Canvas | None = None
        self._swept: _Swept | None = None
        self._frame: ObjectFrame | None = None
        self.n_patterns = 0
        self._budget_s = update_s / 2
        self._patterns_per_s = FIRST_PATTERNS_PER_S
        self._rng = np.random.default_rng(inference.seed)

    def take(self, scan: ScanData) -> bool:
        """Let patterns of `scan` that were not there before improve the object.

        It takes as many as there is time for until the next preview, and says whether it took any.
        """
        check_fits(scan, self._model.config)
        if scan.n_patterns < self._model.config.patterns_per_group:
            return False  # not one group yet
        frame = _grown(self._frame, scan)
        room = max(MIN_PATTERNS, int(self._patterns_per_s * self._budget_s))
        new = np.arange(self.n_patterns, min(scan.n_patterns, self.n_patterns + room))
        if self._model.config.architecture == 'cnn':
            self._add_patches(scan, new, frame)
        else:
            self._sweep(scan, new, frame)
        self._frame, self.n_patterns = frame, int(new[-1]) + 1
        return True

    def preview(self) -> Preview:
        """Return the object so far."""
        assert self._frame is not None
        if self._canvas is not None:
            object_, occupancy = self._canvas.finish()
        else:
            assert self._swept is not None
            object_, occupancy = self._swept.object_, self._swept.occupancy
        return Preview(object_, occupancy, self._frame, self.n_patterns)

    def finish(self, scan: ScanData, on_event: OnEvent, should_stop: ShouldStop) -> Reconstruction:
        """Return the reconstruction of the whole scan."""
        model, predicted = self._model, None
        if self._canvas is not None and self._stays_the_same(scan):
            predicted = self._canvas.onto(scan.frame).finish()[0]
        with model.trained.engine(scan, self._execution) as engine:
            return reconstruct(
                engine,
                model.config,
                model.trained.calibration,
                scan,
                self._inference,
                self._execution,
                on_event=on_event,
                should_stop=should_stop,
                predicted=predicted,
            )

    def _stays_the_same(self, scan: ScanData) -> bool:
        """Whether the canvas has all that the network says of the whole scan."""
        config = self._model.config
        by_training = config.input_scaling == 'training'
        return shares_patches(config) and by_training and self.n_patterns == scan.n_patterns

    def _add_patches(self, scan: ScanData, new: IndexArray, frame: ObjectFrame) -> None:
        """Add what the network says of groups around the new patterns."""
        if self._canvas is None:
            self._canvas = patch_canvas(scan, self._inference, frame)
        elif self._canvas.frame != frame:
            self._canvas = self._canvas.onto(frame)
        start = time.perf_counter()
        with self._model.trained.engine(scan, self._execution) as engine:
            for indices, patches in predicted_patches(
                engine,
                self._model.config,
                scan,
                self._inference,
                np.arange(scan.n_patterns),
                self._execution.inference_batch_size or GROUPS_AT_ONCE,
                seeds=new,
            ):
                self._canvas.add(patches, scan.positions_px[indices])
        self._patterns_per_s = len(new) / (time.perf_counter() - start)

    def _sweep(self, scan: ScanData, new: IndexArray, frame: ObjectFrame) -> None:
        """Sweep once over the new patterns and as many of the others as there is time for."""
        placed = _placed(scan, frame)
        pool = self._pool(new)
        before = None if self._swept is None else self._swept.onto(self._frame, frame)
        with self._model.trained.engine(placed, self._execution) as engine:
            if before is None:
                config, calibration = self._model.config, self._model.trained.calibration
                state = engine.start(scan_probe(scan, config, calibration))
            else:
                state = engine.placed(before.object_, engine.start(before.probe))
            start = time.perf_counter()
            state = engine.swept(state, pool, [PREVIEW_SWEEP], self.n_patterns, lambda: None)
            self._patterns_per_s = len(pool) / (time.perf_counter() - start)
            occupancy = engine.photons(state, pool)
            if before is not None:
                occupancy = np.maximum(occupancy, before.occupancy)
            self._swept = _Swept(*engine.export(state), occupancy)

    def _pool(self, new: IndexArray) -> IndexArray:
        """Return the new patterns and some of the others, in whole batches where that is possible.

        A backend may compile for every size of a batch.
        """
        batch_size, n_patterns = self._model.config.sweeps.batch_size, int(new[-1]) + 1
        wanted = max(len(new), int(self._patterns_per_s * self._budget_s))
        wanted = min(n_patterns, -(-wanted // batch_size) * batch_size)
        wanted = max(len(new), wanted - wanted % batch_size)
        others = np.setdiff1d(np.arange(n_patterns), new)
        again = self._rng.choice(others, wanted - len(new), replace=False)
        return np.sort(np.concatenate([new, again]))


@dataclass(frozen=True)
class _Swept:
    """Object (h, w), probe (m, N, N) and photons (h, w) after sweeps."""

    object_: ComplexArray
    probe: ComplexArray
    occupancy: FloatArray

    def onto(self, old: ObjectFrame | None, new: ObjectFrame) -> _Swept:
        """Return the same on another frame that holds the old one."""
        if old is None or old == new:
            return self
        object_ = np.ones(new.shape, dtype=np.complex64)
        occupancy = np.zeros(new.shape, dtype=np.float32)
        y, x = (o - n for o, n in zip(old.origin_px, new.origin_px, strict=True))
        inside = np.s_[y : y + old.shape[0], x : x + old.shape[1]]
        object_[inside], occupancy[inside] = self.object_, self.occupancy
        return _Swept(object_, self.probe, occupancy)


def _grown(before: ObjectFrame | None, scan: ScanData) -> ObjectFrame:
    """Return a frame that holds the one before and every pattern, with room where it grew."""
    needed = scan.frame
    if scan.object_guess is not None and needed.shape == scan.object_guess.shape:
        return needed  # the object's own grid was made for the whole scan
    first, last = np.asarray(needed.origin_px), np.add(needed.origin_px, needed.shape)
    if before is None:
        first, last = first - ROOM_PX, last + ROOM_PX
    else:
        old_first, old_last = np.asarray(before.origin_px), np.add(before.origin_px, before.shape)
        first = np.where(first < old_first, first - ROOM_PX, old_first)
        last = np.where(last > old_last, last + ROOM_PX, old_last)
    shape = last - first
    return ObjectFrame((int(first[0]), int(first[1])), (int(shape[0]), int(shape[1])))


def _placed(scan: ScanData, frame: ObjectFrame) -> ScanData:
    """Return the scan with positions from the frame's first pixel on, and the frame as its grid."""
    grid = np.broadcast_to(np.ones((), np.complex64), frame.shape)
    positions = scan.positions_px - np.asarray(frame.origin_px)
    return replace(scan, positions_px=positions, object_guess=grid)
