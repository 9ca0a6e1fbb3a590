"""The door of a backend: NumPy arrays and plain settings in, NumPy arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, IndexArray
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.exposures import Exposures
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import Sweep

Weights = Callable[[], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Progress:
    """One report of work under way.

    Attributes
    ----------
    phase
        'prepare' (sweeps before training), 'train', or 'reconstruct'.
    done, total
        Work done in this phase and in all of it (steps, or sweeps).
    epoch, epochs
        Epoch under way, counted from 1, and how many are planned; 0 outside training.
    loss, validation_loss
        Latest values, NaN before the first.
    patterns_per_s
        Diffraction patterns visited per second.
    remaining_s
        Estimated time left in this phase, NaN if unknown.
    weights
        While a network trains: returns copies of its weights as they are now, under their canonical
        names.
    """

    phase: Literal['prepare', 'train', 'reconstruct']
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    loss: float = float('nan')
    validation_loss: float = float('nan')
    patterns_per_s: float = float('nan')
    remaining_s: float = float('nan')
    weights: Weights | None = field(default=None, compare=False, repr=False)


OnEvent = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


def ignore_event(_: Progress) -> None:
    """Do nothing with an event."""


def never_stop() -> bool:
    """Answer that nobody asked to stop."""
    return False


@dataclass(frozen=True)
class EpochRecord:
    """Losses of one epoch, counted from 1."""

    epoch: int
    loss: float
    validation_loss: float | None


@dataclass(frozen=True)
class Reconstruction:
    """An object, and how well it explains the data.

    Attributes
    ----------
    object_ : (h, w) complex64
        Transmission on `frame`.
    probe : (m, N, N) complex64
        Probe modes that belong to it; their energy is the mean total counts of a pattern.
    occupancy : (h, w) float32
        Photons that fell on each object pixel; 0 where the scan never looked.
    frame
        Where the object lies on the scan's object grid.
    stage
        What made it, e.g. '8 sweeps + network + 3 sweeps'.
    stages
        The object (h, w) complex64 after each stage, in order; the last one is `object_`.
    r_fitted
        R-factor per stage over all patterns.
    r_held_out
        R-factor per stage of a second reconstruction, over the patterns that it never saw; empty if
        none were held out.
    held_out : (k,) int64
        Which patterns those were.
    noise_excess
        How many times the noise of the photons the unrolled network was told of
        (`stages.noise_excess`).
    exposures
        Intensities and positions of the patterns, if they were refined.
    """

    object_: ComplexArray
    probe: ComplexArray
    occupancy: FloatArray
    frame: ObjectFrame
    stage: str
    stages: Mapping[str, ComplexArray]
    r_fitted: Mapping[str, float]
    r_held_out: Mapping[str, float]
    held_out: IndexArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    noise_excess: float = 1.0
    exposures: Exposures | None = None


@dataclass(frozen=True)
class GroupPrediction:
    """What a model says about groups of C patterns.

    Attributes
    ----------
    patches : (g, C, N, N) complex64
        Transmission around each pattern's own position.
    merged : (g, N, N) complex64
        Transmission around the group's centre: the overlapping patches' mean, 0 where none is.
    """

    patches: ComplexArray
    merged: ComplexArray


State = Any
"""Object and probe as a backend keeps them."""


class Engine(Protocol):
    """What a backend computes on one scan, for one model."""

    def start(self, probe: ComplexArray) -> State:
        """Return an empty object under `probe` (m, N, N)."""

    def placed(self, object_: ComplexArray, state: State) -> State:
        """Return `state` with another object (h, w)."""

    def swept(
        self,
        state: State,
        pool: IndexArray,
        sweeps: Sequence[Sweep],
        seed: int,
        on_sweep: Callable[[], None],
    ) -> State:
        """Return the state after sweeps over the patterns `pool`."""

    def corrected(self, state: State, pool: IndexArray, noise_excess: float) -> State:
        """Return the state after the unrolled network.

        It is told of as many photons as make `noise_excess` times the noise power of those of
        `pool`.
        """

    def patches(self, patterns: FloatArray, offsets_px: FloatArray) -> ComplexArray:
        """Return the patches (g, C, N, N) complex64 that 'cnn' says of groups."""

    def photons(self, state: State, pool: IndexArray) -> FloatArray:
        """Return the photons (h, w) float32 of the patterns `pool` on each object pixel."""

    def r_factor(self, state: State, chosen: IndexArray) -> float:
        """Return sum |sqrt I - sqrt k| / sum sqrt k over valid pixels of patterns `chosen`."""

    def misfits(self, state: State, chosen: IndexArray) -> FloatArray:
        """Return sum (I - k)^2 / sum I over valid pixels of each pattern of `chosen` (k,).

        They are about 1 if I are the Poisson rates.
        """

    def export(self, state: State) -> tuple[ComplexArray, ComplexArray]:
        """Return object (h, w) and probe (m, N, N), complex64."""

    def exposures(self, state: State) -> Exposures | None:
        """Return intensities and positions of the patterns, if they were refined."""


class TrainedModel(Protocol):
    """A model of one backend."""

    @property
    def config(self) -> ModelConfig:
        """What the model is."""

    @property
    def calibration(self) -> Calibration:
        """What it knows about the training scans."""

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return fresh copies of the weights under their canonical names."""

    def import_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Take weights; raise `BundleError` that lists all faults and change nothing if any."""

    def engine(self, scan: ScanData, execution: ExecutionConfig) -> AbstractContextManager[Engine]:
        """Return what computes on this scan, step by step, while the context lasts."""

    def reconstruct(
        self,
        scan: ScanData,
        inference: InferenceConfig,
        execution: ExecutionConfig,
        *,
        on_event: OnEvent = ignore_event,
        should_stop: ShouldStop = never_stop,
    ) -> Reconstruction:
        """Turn a scan into an object."""

    def predict(
        self, patterns: FloatArray, offsets_px: FloatArray, *, normalized: bool = False
    ) -> GroupPrediction:
        """Turn groups into patches of the object: the model `diffraction_to_obj` of 'cnn'.

        Parameters
        ----------
        patterns : (g, C, N, N) float32
            Photon counts; bad pixels are 0.
        offsets_px : (g, C, 2) float32
            Positions relative to the centre of their group, [dy, dx].
        normalized
            Whether `patterns` are amplitudes on the network's own scale instead, and the patches
            are to be what the network itself says, without the intensity scale.

        Raises
        ------
        ConfigError
            If the model works on whole scans alone.
        ShapeError
            If the model is for another C or N.
        """

    def predict_patterns(self, scan: ScanData, reconstruction: Reconstruction) -> FloatArray:
        """Return the expected counts (n, N, N) float32 of a reconstruction: the autoencoder."""


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and the way there.

    `stopped` says why training ended early ('patience', 'request'), or is empty.
    """

    model: TrainedModel
    history: Sequence[EpochRecord]
    best_epoch: int | None
    stopped: str = ''
    optimizer: Mapping[str, NDArray[np.float32]] | None = None


class Backend(Protocol):
    """One tensor framework."""

    name: str

    def versions(self) -> dict[str, str]:
        """Return the packages that compute, and their versions."""

    def build(
        self, config: ModelConfig, calibration: Calibration, *, seed: int = 0
    ) -> TrainedModel:
        """Return a model with fresh weights."""

    def fit(
        self,
        model: TrainedModel,
        scans: Sequence[ScanData],
        training: TrainingConfig,
        execution: ExecutionConfig,
        *,
        checkpoint_dir: Path | None = None,
        log_dir: Path | None = None,
        resume: bool = False,
        optimizer: Mapping[str, NDArray[np.float32]] | None = None,
        on_event: OnEvent = ignore_event,
        should_stop: ShouldStop = never_stop,
    ) -> TrainingResult:
        """Train a model on one scan or many; `training` has no None that `for_model` fills in.

        `optimizer` is the state of the optimiser that trained the model so far, under canonical
        names (`TrainingResult.optimizer`), to go on from.
        """


@dataclass(frozen=True)
class Kernel:
    """A computation that shows what the machine can do; whoever asks measures its time.

    Attributes
    ----------
    run
        Computes once, and returns when it is done.
    amount
        How many of `unit` that is.
    unit
        'FLOP' of a convolution, twice its multiplications, or complex 2-D 'transforms'.
    """

    run: Callable[[], object]
    amount: float
    unit: Literal['FLOP', 'transforms']


@runtime_checkable
class OffersLimits(Protocol):
    """What a backend may offer besides: the limits that `benchmarks` compares it with."""

    def limits(self, threads: int) -> Mapping[str, Sequence[Kernel]]:
        """Return kernels for the CPU at so many threads; the fastest of a name is the limit.

        Names are 'convolution 32-true' and 'convolution bf16-mixed', 3 x 3 and channels last, and
        'fft2 64', 'fft2 128' and 'fft2 256', complex64 in batches.
        """
