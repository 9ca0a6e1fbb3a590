"""From a scan to an object, stage by stage, and how well each stage explains the data."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import (
    OnEvent,
    Progress,
    Reconstruction,
    ShouldStop,
)
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.prediction import (
    GROUPS_AT_ONCE,
    groups_of,
    predict_object,
)
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, SweepState, photons_per_pixel
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork, mean_transmission
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.probes import orthogonalise, scale_probe
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import first_probe, schedule, settling_schedule
from ptychodus_torch_plugin.training_plan import held_out_indices

PATTERNS_AT_ONCE = 64

DOSE_RANGE = 2.0
"""By how much the mean counts of a scan may differ from those that 'cnn' was trained on."""

logger = logging.getLogger(__name__)


class Reconstructing(Protocol):
    """What a model must have to reconstruct."""

    config: ModelConfig
    network: nn.Module | None
    calibration: Calibration


@dataclass(frozen=True)
class _Run:
    """One pass through all stages over a pool of patterns."""

    model: Reconstructing
    scan: ScanData
    tensors: ScanTensors
    inference: InferenceConfig
    batch_size: int
    report: _Reporter

    def stages(self, probe: ComplexArray, pool: IndexArray) -> Iterator[tuple[str, SweepState]]:
        """Yield the name and the state of each stage."""
        sweeper = Sweeper(self.tensors, self.model.config.sweeps, pool)
        start = SweepState.start(self.tensors, probe)
        for name, state in self._first_stages(sweeper, start, pool):
            yield name, state
        if count := refining_sweeps(self.model.config, self.inference):
            state = sweeper.run(
                state,
                settling_schedule(count),
                seed=self.inference.seed + 1,
                on_sweep=self._on_sweep,
            )
            yield f'{name} + {_sweeps(count)}', state

    def _first_stages(
        self, sweeper: Sweeper, state: SweepState, pool: IndexArray
    ) -> Iterator[tuple[str, SweepState]]:
        config, network = self.model.config, self.model.network
        if isinstance(network, CnnNetwork):
            yield 'network', SweepState(self._predicted(network, pool), state.probe)
            return
        name = _sweeps(config.sweeps_before)
        plan = schedule(config.sweeps, config.sweeps_before)
        state = sweeper.run(state, plan, seed=self.inference.seed, on_sweep=self._on_sweep)
        yield name, state
        if isinstance(network, UnrolledNetwork):
            corrected = self._corrected(network, state, pool)
            yield f'{name} + network', SweepState(corrected, state.probe)

    def _predicted(self, network: CnnNetwork, pool: IndexArray) -> Tensor:
        object_ = predict_object(
            network,
            self.model.calibration,
            self.scan,
            groups_of(self.scan, network.gridsize, self.inference, pool),
            self.inference.patch_weighting,
            self.batch_size,
            self.report,
        )
        return torch.from_numpy(object_).to(self.tensors.device)

    @torch.no_grad()
    def _corrected(self, network: UnrolledNetwork, state: SweepState, pool: IndexArray) -> Tensor:
        photons = photons_per_pixel(self.tensors, state.probe, pool)
        gauge = mean_transmission(state.object_, photons)
        return network.tiled(state.object_, photons, gauge)

    def _on_sweep(self) -> None:
        self.report(self.scan.n_patterns)


def refining_sweeps(config: ModelConfig, inference: InferenceConfig) -> int:
    """Return the number of sweeps after the network."""
    if inference.refine is not None:
        return inference.refine
    return 0 if config.architecture == 'none' else config.sweeps_after


def _sweeps(count: int) -> str:
    return f'{count} sweep' if count == 1 else f'{count} sweeps'


def reconstruct(
    model: Reconstructing,
    scan: ScanData,
    inference: InferenceConfig,
    execution: ExecutionConfig,
    device: torch.device,
    *,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> Reconstruction:
    """Reconstruct from every pattern; then, to measure R honestly, once more without some."""
    _warn_of_dose(model, scan)
    held_out = held_out_indices(scan, inference.held_out_fraction, inference.seed)
    everything = np.arange(scan.n_patterns)
    pools = [everything, np.setdiff1d(everything, held_out)] if len(held_out) else [everything]
    batch_size = execution.inference_batch_size or GROUPS_AT_ONCE
    total = sum(_work(model.config, inference, len(pool), batch_size) for pool in pools)
    tensors = ScanTensors(scan, device)
    run = _Run(model, scan, tensors, inference, batch_size, _Reporter(total, on_event, should_stop))
    probe = _probe(model, scan)

    objects: dict[str, ComplexArray] = {}
    r_fitted: dict[str, float] = {}
    for name, state in run.stages(probe, everything):
        objects[name] = state.object_.cpu().numpy()
        r_fitted[name] = r_factor(tensors, state, everything)
        last = name, state
    r_held_out = {
        name: r_factor(tensors, state, held_out)
        for pool in pools[1:]
        for name, state in run.stages(probe, pool)
    }
    stage, state = last
    object_, modes = state.export()
    return Reconstruction(
        object_=object_,
        probe=orthogonalise(modes),
        occupancy=photons_per_pixel(tensors, state.probe, everything).cpu().numpy(),
        frame=scan.frame,
        stage=stage,
        stages=objects,
        r_fitted=r_fitted,
        r_held_out=r_held_out,
        held_out=held_out,
    )


def _probe(model: Reconstructing, scan: ScanData) -> ComplexArray:
    """Return the scan's probe, or the one that was trained, scaled to the scan's counts."""
    probe = first_probe(scan, model.config.sweeps)
    if not model.calibration.probe_trained:
        return probe
    return scale_probe(model.calibration.probe, scan.mean_counts(), scan.valid_pixels)


def _work(config: ModelConfig, inference: InferenceConfig, n_groups: int, batch_size: int) -> int:
    """Return the number of reports of one run: sweeps, or batches of groups and sweeps."""
    first = -(-n_groups // batch_size) if config.architecture == 'cnn' else config.sweeps_before
    return first + refining_sweeps(config, inference)


def _warn_of_dose(model: Reconstructing, scan: ScanData) -> None:
    if model.config.architecture != 'cnn':
        return
    trained, found = model.calibration.mean_counts, scan.mean_counts()
    if not 1 / DOSE_RANGE < found / trained < DOSE_RANGE:
        logger.warning(
            '%s has %.3g counts per pattern, but the model was trained on %.3g: its network has '
            'never seen such amplitudes. Train on scans of this dose.',
            scan.name,
            found,
            trained,
        )


class _Reporter:
    """Reports each sweep and each batch of groups, and stops between two of them."""

    def __init__(self, total: int, on_event: OnEvent, should_stop: ShouldStop) -> None:
        self._total, self._on_event, self._should_stop = total, on_event, should_stop
        self._done, self._patterns, self._start = 0, 0, time.perf_counter()

    def __call__(self, n_patterns: int) -> None:
        if self._should_stop():
            raise InterruptedError('reconstruction was stopped on request')
        self._done += 1
        self._patterns += n_patterns
        elapsed = time.perf_counter() - self._start
        self._on_event(
            Progress(
                'reconstruct',
                self._done,
                self._total,
                patterns_per_s=self._patterns / elapsed,
                remaining_s=elapsed / self._done * (self._total - self._done),
            )
        )


@torch.no_grad()
def r_factor(scan: ScanTensors, state: SweepState, chosen: IndexArray) -> float:
    """Return sum |sqrt I - sqrt k| / sum sqrt k over valid pixels of patterns `chosen`."""
    difference = total = 0.0
    for part in torch.from_numpy(chosen).to(scan.device).split(PATTERNS_AT_ONCE):
        measured = scan.batch_counts(part).sqrt() * scan.valid
        predicted = _predict(scan, state, part).sqrt() * scan.valid
        difference += float((predicted - measured).abs().sum(dtype=torch.float64))
        total += float(measured.sum(dtype=torch.float64))
    return difference / total


@torch.no_grad()
def predict_patterns(scan: ScanData, reconstruction: Reconstruction) -> FloatArray:
    """Return the expected counts (n, N, N) float32 of an object under its probe."""
    tensors = ScanTensors(scan, torch.device('cpu'))
    state = SweepState.start(tensors, reconstruction.probe)
    state.object_ = torch.from_numpy(reconstruction.object_)
    everything = torch.arange(scan.n_patterns)
    parts = [_predict(tensors, state, part) for part in everything.split(PATTERNS_AT_ONCE)]
    return torch.cat(parts).numpy()


def _predict(scan: ScanTensors, state: SweepState, chosen: Tensor) -> Tensor:
    patches = physics.gather_patches(state.object_, scan.batch_index(chosen), scan.n_px)
    return physics.predict_counts(patches, scan.batch_probes(state.probe, chosen))
