"""Whole-scan sweeps in PyTorch; `ptychodus_torch_plugin.sweeps` says what they compute and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.probes import center_px, far_field_counts, ramp, tilt_px
from ptychodus_torch_plugin.sweeps import FIRST_PROBE_SWEEP, Sweep, batches, drift_px

PROBE_CACHE_BYTES = 2**29
"""Shifted copies of an unchanging probe are kept up to this size."""

VALUES_FOR_THREADS = 400_000
"""Complex values of a batch of exit waves from which on several threads pay."""


@contextmanager
def few_threads(values_per_batch: int) -> Iterator[None]:
    """Compute small batches on one CPU thread: waking others takes longer than they save."""
    before = torch.get_num_threads()
    if values_per_batch < VALUES_FOR_THREADS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class SweepState:
    """Object (h, w) and probe (m, N, N), complex64; the probe carries its checkerboard."""

    object_: Tensor
    probe: Tensor

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
        self._cache: Tensor | None = None

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
        with few_threads(self.config.batch_size * state.probe.numel()):
            return self._run(state, sweeps, seed, on_sweep)

    def _run(
        self,
        state: SweepState,
        sweeps: Sequence[Sweep],
        seed: int,
        on_sweep: Callable[[], None],
    ) -> SweepState:
        object_, probe = state.object_.clone(), state.probe.clone()
        energy, home = physics.absolute_square(probe).sum(), center_px(_numpy(probe))
        object_velocity, probe_velocity = torch.zeros_like(object_), torch.zeros_like(probe)
        for number, sweep in enumerate(sweeps):
            refine = self.config.refine_probe and number >= FIRST_PROBE_SWEEP
            before = object_.clone(), probe.clone()
            for chosen in batches(self.pool, self.config.batch_size, seed, number):
                indices = torch.from_numpy(chosen).to(self.scan.device)
                self._update(object_, probe, indices, sweep, refine_probe=refine)
            object_velocity.mul_(sweep.momentum).add_(object_ - before[0])
            object_.add_(object_velocity, alpha=sweep.momentum)
            if refine:
                beta = min(self.config.probe_momentum, sweep.momentum)
                probe_velocity.mul_(beta).add_(probe - before[1])
                probe.add_(probe_velocity, alpha=beta)
                _keep_gauge(object_, object_velocity, probe, probe_velocity, energy, home)
            on_sweep()
        self._cache = None
        if self.config.refine_probe:
            self._keep_tilt(object_, probe, state.probe)
        return SweepState(object_, probe)

    def _keep_tilt(self, object_: Tensor, probe: Tensor, reference: Tensor) -> None:
        n_px = self.scan.n_px
        # Both carry the same checkerboard, which shifts both far fields alike.
        tilt = tilt_px(*(far_field_counts(_numpy(p)) for p in (probe, reference)))
        for array, sign in ((probe, -1), (object_, 1)):
            factor = ramp(
                (array.shape[-2], array.shape[-1]), (sign * tilt[0], sign * tilt[1]), n_px
            )
            array.mul_(torch.from_numpy(factor).to(array.device, torch.complex64))

    def _update(
        self, object_: Tensor, probe: Tensor, chosen: Tensor, sweep: Sweep, *, refine_probe: bool
    ) -> None:
        scan = self.scan
        index = scan.batch_index(chosen)
        probes = self._probes(probe, chosen)
        patches = physics.gather_patches(object_, index, scan.n_px)
        waves = physics.far_field(probes * patches)
        intensity = physics.absolute_square(waves).sum(1)
        factor = physics.count_factor(intensity, scan.batch_counts(chosen), scan.valid)
        change = physics.near_field(waves * factor[:, None])

        step = physics.scatter_patches((probes.conj() * change).sum(1), index, scan.frame.shape)
        power = physics.absolute_square(probes).sum(1).expand(len(chosen), -1, -1)
        weight = physics.scatter_patches(power, index, scan.frame.shape)
        strongest = physics.absolute_square(probe).sum(0).max()
        floor = weight.mul_(1 - sweep.damping).add_(sweep.damping * strongest)
        object_.add_(step.div_(floor), alpha=sweep.step)
        if refine_probe:
            self._update_probe(probe, patches, change, chosen, sweep.step)

    def _update_probe(
        self, probe: Tensor, patches: Tensor, change: Tensor, chosen: Tensor, length: float
    ) -> None:
        step = patches.conj() * change
        if self.scan.ramps is None:
            total = step.sum(0)
        else:
            kernel = physics.shift_kernel(self.scan.ramps.index_select(0, chosen))
            total = physics.ifft2((physics.fft2(step) * kernel.conj()).sum(0))
        seen = physics.absolute_square(patches).sum((0, 1))
        damping = self.config.probe_damping
        floor = seen * (1 - damping) + damping * seen.max()
        probe.add_(total / floor, alpha=length * self.config.probe_step)

    def _probes(self, probe: Tensor, chosen: Tensor) -> Tensor:
        """Return the shifted probes of a batch, from the cache where the probe never changes."""
        scan = self.scan
        size = len(scan) * probe.numel() * probe.element_size()
        if self.config.refine_probe or scan.ramps is None or size > PROBE_CACHE_BYTES:
            return scan.batch_probes(probe, chosen)
        if self._cache is None:
            self._cache = torch.cat(
                [scan.batch_probes(probe, part) for part in _all(scan).split(64)]
            )
        return self._cache.index_select(0, chosen)


@torch.no_grad()
def photons_per_pixel(scan: ScanTensors, probe: Tensor, pool: IndexArray) -> Tensor:
    """Return how many photons of the patterns `pool` fell on each canvas pixel, (h, w) float32."""
    canvas = torch.zeros(scan.frame.shape, device=scan.device)
    for chosen in torch.from_numpy(pool).to(scan.device).split(64):
        power = physics.absolute_square(scan.batch_probes(probe, chosen)).sum(1)
        power = power.expand(len(chosen), -1, -1)
        canvas += physics.scatter_patches(power, scan.batch_index(chosen), scan.frame.shape)
    return canvas


def _all(scan: ScanTensors) -> Tensor:
    return torch.arange(len(scan), device=scan.device)


def _numpy(probe: Tensor) -> ComplexArray:
    return probe.cpu().numpy()


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
