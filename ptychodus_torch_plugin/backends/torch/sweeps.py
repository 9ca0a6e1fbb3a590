"""Whole-scan sweeps in PyTorch; `ptychodus_torch_plugin.sweeps` says what they compute and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.visits import visits_of
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.exposures import Exposures
from ptychodus_torch_plugin.lattice import Lattice
from ptychodus_torch_plugin.probes import center_px, far_field_counts, ramp, tilt_px
from ptychodus_torch_plugin.sweeps import (
    FIRST_PROBE_SWEEP,
    Sweep,
    batches,
    drift_px,
)

PATTERNS_AT_ONCE = 64


@dataclass
class SweepState:
    """Object (h, w) and probe (m, N, N), complex64; the probe carries its checkerboard.

    `exposures` are there once intensities or positions have been refined.
    """

    object_: Tensor
    probe: Tensor
    exposures: Exposures | None = None

    @classmethod
    def start(cls, scan: ScanTensors, probe: ComplexArray) -> SweepState:
        """Return an empty object under `probe` (m, N, N), which is already scaled to the counts."""
        modes = torch.from_numpy(probe.astype(np.complex64)).to(scan.device)
        empty = torch.ones(scan.frame.shape, dtype=torch.complex64, device=scan.device)
        return cls(empty, modes * physics.checkerboard(scan.n_px, scan.device))

    def export(self) -> tuple[ComplexArray, ComplexArray]:
        """Return object and probe, without its checkerboard, as NumPy arrays."""
        board = physics.checkerboard(self.probe.shape[-1], self.probe.device)
        return self.object_.cpu().numpy(), (self.probe * board).cpu().numpy()


class Sweeper:
    """Sweeps over the patterns `pool` (k,) int64 of one scan."""

    def __init__(self, scan: ScanTensors, config: SweepConfig, pool: IndexArray) -> None:
        self.scan = scan
        self.config = config
        self.pool = pool

    @torch.no_grad()
    def run(
        self,
        state: SweepState,
        sweeps: Sequence[Sweep],
        *,
        seed: int = 0,
        on_sweep: Callable[[], None] = lambda: None,
    ) -> SweepState:
        """Return the state after `sweeps`; `state` itself is left alone."""
        config = self.config
        object_, probe = state.object_.clone(), state.probe.clone()
        energy, home = physics.absolute_square(probe).sum(), center_px(_numpy(probe))
        object_velocity, probe_velocity = torch.zeros_like(object_), torch.zeros_like(probe)
        exposures = state.exposures
        visits = visits_of(self.scan, config, self.pool, probe, exposures)
        for number, sweep in enumerate(sweeps):
            refine = config.refine_probe and number >= FIRST_PROBE_SWEEP
            before = object_.clone(), probe.clone()
            drawn = batches(self.pool, config.batch_size, seed, number)
            visits.sweep(object_, probe, drawn, sweep, refine_probe=refine)
            phase = None
            if sweep.deflection:
                phase = visits.missing_phase(_numpy(object_ * before[0].conj()))
            object_velocity.mul_(sweep.momentum).add_(object_).sub_(before[0])
            object_.add_(object_velocity, alpha=sweep.momentum)
            if refine:
                beta = min(config.probe_momentum, sweep.momentum)
                probe_velocity.mul_(beta).add_(probe - before[1])
                probe.add_(probe_velocity, alpha=beta)
                _undo_net(visits.lattice, object_, object_velocity, probe, probe_velocity)
                _keep_gauge(object_, object_velocity, probe, probe_velocity, energy, home)
            if phase is not None:
                angle = torch.from_numpy(sweep.deflection * phase).to(object_.device)
                factor = torch.polar(torch.ones_like(angle), angle)
                object_.mul_(factor)
                object_velocity.mul_(factor)
            if visits.refinement.wanted:
                grown = visits.correct(number, sweep.step)
                object_.mul_(grown)
                object_velocity.mul_(grown)
            on_sweep()
        if visits.refinement.wanted:
            exposures = self._completed(object_, probe, visits.refinement.outcome())
        if config.refine_probe:
            self._keep_tilt(object_, probe, state.probe)
        return SweepState(object_, probe, exposures)

    def _completed(self, object_: Tensor, probe: Tensor, exposures: Exposures) -> Exposures:
        """Return all exposures, with the intensities of patterns outside the pool."""
        others = np.setdiff1d(np.arange(len(self.scan)), self.pool)
        if not (len(others) and self.config.refine_intensity):
            return exposures
        scan, totals = self.scan.exposed(exposures), []
        for first in range(0, len(others), PATTERNS_AT_ONCE):
            chosen = others[first : first + PATTERNS_AT_ONCE]
            indices = scan.on_device(chosen)
            patches = physics.gather_patches(object_, scan.batch_index(indices), scan.n_px)
            expected = physics.predict_counts(patches, scan.batch_probes(probe, indices))
            measured = scan.batch_counts(chosen) - scan.with_background(torch.zeros_like(expected))
            both = torch.stack([expected, measured]) * scan.valid
            totals.append(both.sum((2, 3), dtype=torch.float64).cpu().numpy())
        return exposures.scaled(others, *np.concatenate(totals, axis=1))

    def _keep_tilt(self, object_: Tensor, probe: Tensor, reference: Tensor) -> None:
        n_px = self.scan.n_px
        # Both carry the same checkerboard, which shifts both far fields alike.
        tilt = tilt_px(*(far_field_counts(_numpy(p)) for p in (probe, reference)))
        for array, sign in ((probe, -1), (object_, 1)):
            factor = ramp(
                (array.shape[-2], array.shape[-1]), (sign * tilt[0], sign * tilt[1]), n_px
            )
            array.mul_(torch.from_numpy(factor).to(array.device, torch.complex64))


@torch.no_grad()
def photons_per_pixel(scan: ScanTensors, probe: Tensor, pool: IndexArray) -> Tensor:
    """Return how many photons of the patterns `pool` fell on each canvas pixel, (h, w) float32.

    Of a scan with the exposures of the sweeps, if there are any.
    """
    canvas = torch.zeros(scan.frame.shape, device=scan.device)
    for first in range(0, len(pool), PATTERNS_AT_ONCE):
        chosen = pool[first : first + PATTERNS_AT_ONCE]
        probes = scan.batch_probes(probe, scan.on_device(chosen))
        power = physics.absolute_square(probes).sum(1).expand(len(chosen), -1, -1)
        scan.add_patches(canvas, chosen, power)
    return canvas


def _numpy(probe: Tensor) -> ComplexArray:
    return probe.cpu().numpy()


def _undo_net(
    lattice: Lattice | None,
    object_: Tensor,
    object_velocity: Tensor,
    probe: Tensor,
    probe_velocity: Tensor,
) -> None:
    """Undo what a regular scan cannot know: functions that repeat from position to position."""
    if lattice is None:
        return
    centered = probe * physics.checkerboard(probe.shape[-1], probe.device)
    of_probe, of_object = lattice.factors(_numpy(centered))
    for array in (probe, probe_velocity):
        array.mul_(torch.from_numpy(of_probe).to(array.device))
    for array in (object_, object_velocity):
        array.mul_(torch.from_numpy(of_object).to(array.device))


def _keep_gauge(
    object_: Tensor,
    object_velocity: Tensor,
    probe: Tensor,
    probe_velocity: Tensor,
    energy: Tensor,
    home: tuple[float, float],
) -> None:
    """Undo what the data cannot know: how energy and place are shared by probe and object."""
    factor = torch.sqrt(energy / physics.absolute_square(probe).sum())
    for array, scale in (
        (object_, 1 / factor),
        (object_velocity, 1 / factor),
        (probe, factor),
        (probe_velocity, factor),
    ):
        array.mul_(scale)
    shift = [-d for d in drift_px(_numpy(probe), home)]
    if any(shift):
        # The checkerboard moves with the probe: an odd shift turns its sign.
        sign = (-1) ** sum(shift)
        for array in (object_, object_velocity):
            array.copy_(array.roll(shift, (-2, -1)))
        for array in (probe, probe_velocity):
            array.copy_(array.roll(shift, (-2, -1)) * sign)
