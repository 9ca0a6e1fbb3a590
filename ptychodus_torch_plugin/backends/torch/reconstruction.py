"""From a scan to an object: sweeps, network, sweeps, and how well each stage explains the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import (
    OnEvent,
    Progress,
    Reconstruction,
    ShouldStop,
)
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, SweepState, photons_per_pixel
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork, mean_transmission
from ptychodus_torch_plugin.config import InferenceConfig, ModelConfig
from ptychodus_torch_plugin.probes import orthogonalise
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import first_probe, schedule, settling_schedule
from ptychodus_torch_plugin.training_plan import held_out_indices

PATTERNS_AT_ONCE = 64


@dataclass(frozen=True)
class _Run:
    """One pass through all stages over a pool of patterns."""

    config: ModelConfig
    network: UnrolledNetwork | None
    refine: int
    seed: int
    on_sweep: Callable[[], None]

    def stages(
        self, scan: ScanTensors, probe: ComplexArray, pool: IndexArray
    ) -> Iterator[tuple[str, SweepState]]:
        """Yield the name and the state of each stage."""
        sweeps, n_before = self.config.sweeps, self.config.sweeps_before
        sweeper = Sweeper(scan, sweeps, pool)
        state = sweeper.run(
            SweepState.start(scan, probe),
            schedule(sweeps, n_before),
            seed=self.seed,
            on_sweep=self.on_sweep,
        )
        name = _sweeps(n_before)
        yield name, state
        if self.network is not None:
            state = SweepState(self._corrected(scan, state, pool), state.probe)
            name += ' + network'
            yield name, state
        if self.refine:
            state = sweeper.run(
                state,
                settling_schedule(self.refine),
                seed=self.seed + 1,
                on_sweep=self.on_sweep,
            )
            yield f'{name} + {_sweeps(self.refine)}', state

    @torch.no_grad()
    def _corrected(self, scan: ScanTensors, state: SweepState, pool: IndexArray) -> Tensor:
        assert self.network is not None
        photons = photons_per_pixel(scan, state.probe, pool)
        gauge = mean_transmission(state.object_, photons)
        return self.network.tiled(state.object_, photons, gauge)


def _sweeps(count: int) -> str:
    return f'{count} sweep' if count == 1 else f'{count} sweeps'


def reconstruct(
    config: ModelConfig,
    network: UnrolledNetwork | None,
    scan: ScanData,
    inference: InferenceConfig,
    device: torch.device,
    *,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> Reconstruction:
    """Reconstruct from every pattern; then, to measure R honestly, once more without some."""
    refine = 0 if network is None and inference.refine is None else inference.refine
    refine = config.sweeps_after if refine is None else refine
    held_out = held_out_indices(scan, inference.held_out_fraction, inference.seed)
    runs = 2 if len(held_out) else 1
    report = _Reporter(scan, runs * (config.sweeps_before + refine), on_event, should_stop)
    run = _Run(config, network, refine, inference.seed, report)
    tensors = ScanTensors(scan, device)
    everything = np.arange(scan.n_patterns)
    probe = first_probe(scan, config.sweeps)

    objects: dict[str, ComplexArray] = {}
    r_fitted: dict[str, float] = {}
    for name, state in run.stages(tensors, probe, everything):
        objects[name] = state.object_.cpu().numpy()
        r_fitted[name] = r_factor(tensors, state, everything)
        last = name, state
    r_held_out = {
        name: r_factor(tensors, state, held_out)
        for name, state in (
            run.stages(tensors, probe, np.setdiff1d(everything, held_out)) if len(held_out) else ()
        )
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


class _Reporter:
    """Reports each sweep and stops between two of them."""

    def __init__(
        self, scan: ScanData, total: int, on_event: OnEvent, should_stop: ShouldStop
    ) -> None:
        self._n_patterns, self._total = scan.n_patterns, total
        self._on_event, self._should_stop = on_event, should_stop
        self._done, self._start = 0, time.perf_counter()

    def __call__(self) -> None:
        if self._should_stop():
            raise InterruptedError('reconstruction was stopped on request')
        self._done += 1
        elapsed = time.perf_counter() - self._start
        self._on_event(
            Progress(
                'reconstruct',
                self._done,
                self._total,
                patterns_per_s=self._n_patterns * self._done / elapsed,
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
