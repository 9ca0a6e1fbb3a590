"""Visits of batches of patterns in PyTorch: what they pull on the object and on the probe.

A batch is some 25 operations on buffers that fit into a core's cache and are used again.  On a CPU
it is cut into lanes, each on a thread of its own: waking threads for every operation would take
longer than they save.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ptychodus_torch_plugin.arrays import IndexArray
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.deflection import moment_weights
from ptychodus_torch_plugin.exposures import MOMENTS, Exposures, Refinement
from ptychodus_torch_plugin.physics import Real
from ptychodus_torch_plugin.sweeps import Sweep
from ptychodus_torch_plugin.visiting import PoolVisits

LEAST_IN_A_LANE = 4
"""Patterns of a batch for which another thread is worth waking."""


class Pull(NamedTuple):
    """What b patterns demand.

    `of_object` (b, N, N) is to be added to their patches; `of_probe` (k, m, N, N), for each node,
    and `light` (N, N), the sum of |o|^2, are None unless asked for, and so are `figures` (b, f) of
    the exposures.
    """

    of_object: Tensor
    of_probe: Tensor | None = None
    light: Tensor | None = None
    figures: Tensor | None = None


class Places(NamedTuple):
    """Where the patterns lie and how bright they are.

    `weights` (n, k) of the shifted probes and `pull_weights` of what they pull with.
    """

    scan: ScanTensors
    weights: Tensor
    pull_weights: Tensor


class Beam:
    """A probe, and what it pulls with, at the nodes of the interpolated shift."""

    def __init__(self, nodes_px: Tensor, probe: Tensor) -> None:
        ramps = physics.shift_ramps(nodes_px, probe.shape[-1], probe.dtype)
        self._kernel = physics.shift_kernel(ramps)
        self._modes = probe.shape[0]
        self.probes = self.pulls = torch.empty(0)

    def set(self, probe: Tensor, sweep: Sweep) -> None:
        """Take another `probe` (m, N, N): `probes` and `pulls` become (k, 2 m N N), real pairs."""
        power = physics.absolute_square(probe).sum(0)
        floor = sweep.damping * power.max() + (1 - sweep.damping) * power
        both = torch.cat([probe, probe.conj() * (sweep.step / floor)])
        shifted = physics.ifft2(physics.fft2(both) * self._kernel)
        self.probes, self.pulls = (
            torch.view_as_real(part).reshape(len(part), -1)
            for part in (shifted[:, : self._modes], shifted[:, self._modes :])
        )

    def shifted_back(self, waves: Tensor) -> Tensor:
        """Return the sum (m, N, N) of waves (k, m, N, N), each shifted back by its node."""
        return physics.ifft2((physics.fft2(waves) * self._kernel.conj()).sum(0))


class Lane:
    """Buffers for the patterns that one thread visits at a time."""

    def __init__(
        self, scan: ScanTensors, beam: Beam, refinement: Refinement, like: Tensor, size: int
    ) -> None:
        self._beam, self._wanted = beam, refinement.noted
        modes, n_px, _ = like.shape
        self._patches = like.new_empty(size, n_px, n_px)
        self._factor = like.new_empty(size, 1, n_px, n_px)
        self._exits, self._probes = (like.new_empty(size, modes, n_px, n_px) for _ in range(2))
        self._amplitudes = like.real.new_empty(size, modes, n_px, n_px)
        self._scale = physics.change_scale(scan.valid.to(like.real.dtype))
        dark = scan.background
        self._background = None if dark is None else dark.to(like.real.dtype)
        moments = moment_weights(scan.valid.cpu().numpy() > 0)
        self._moments = torch.from_numpy(moments).to(scan.device, like.real.dtype)
        self._dark_moments = self._moments.new_zeros(4)
        if self._background is not None:
            self._dark_moments = self._background.reshape(-1) @ self._moments

    @torch.no_grad()
    def visit(
        self, places: Places, object_: Tensor, chosen: IndexArray, *, probe_too: bool
    ) -> Pull:
        """Return what patterns `chosen` (b,) demand of an object (h, w) that stays as it is."""
        scan, beam, n = places.scan, self._beam, len(chosen)
        patches, exits, probes = self._patches[:n], self._exits[:n], self._probes[:n]
        indices = scan.on_device(chosen)
        weights = places.weights.index_select(0, indices)
        starts = scan.starts.index_select(0, indices)
        torch.index_select(physics.windows(object_, scan.n_px), 0, starts, out=patches)
        torch.mm(weights, beam.probes, out=_flat(probes))
        waves = physics.far_field(torch.mul(probes, patches[:, None], out=exits))
        counts = scan.batch_counts(chosen).to(self._amplitudes.dtype)
        physics.amplitudes(waves, out=self._amplitudes[:n])
        intensity = physics.total_intensity(self._amplitudes[:n])
        figures = self._noted(intensity, counts)
        factor = physics.change_factor(intensity, counts, self._scale, self._background)
        change = physics.near_field(waves.mul_(self._factor[:n].copy_(factor[:, None])))
        if self._wanted > MOMENTS and figures is not None:
            displacement = physics.displacement_figures(patches, probes, change)
            figures = torch.cat([figures, displacement], 1)
        if places.pull_weights is not places.weights:
            weights = places.pull_weights.index_select(0, indices)
        torch.mm(weights, beam.pulls, out=_flat(probes))
        pull = probes.mul_(change).sum(1) if probes.shape[1] > 1 else probes.mul_(change)[:, 0]
        if not probe_too:
            return Pull(pull, figures=figures)
        torch.mul(change, patches.conj()[:, None], out=exits)
        of_probe = torch.mm(weights.T, _flat(exits)).view(-1, *probes.shape[1:], 2)
        light = physics.amplitudes(patches, out=self._amplitudes[:n, 0]).square_().sum(0)
        return Pull(pull, torch.view_as_complex(of_probe), light, figures)

    def _noted(self, intensity: Tensor, counts: Tensor) -> Tensor | None:
        """Return the moments (b, 8) of expected and of measured counts, if they are wanted."""
        if not self._wanted:
            return None
        expected, measured = (
            torch.mm(each.reshape(len(each), -1), self._moments) for each in (intensity, counts)
        )
        return torch.stack([expected, measured - self._dark_moments], 2).flatten(1)


def _flat(waves: Tensor) -> Tensor:
    """Return waves (n, ...) as pairs of real numbers (n, k), in the same memory."""
    return torch.view_as_real(waves).view(len(waves), -1)


class Visits(PoolVisits):
    """Visits patterns of one scan, from the pool (k,) int64, under a probe (m, N, N)."""

    def __init__(
        self,
        scan: ScanTensors,
        config: SweepConfig,
        pool: IndexArray,
        probe: Tensor,
        exposures: Exposures | None = None,
    ) -> None:
        centered = (probe * physics.checkerboard(scan.n_px, scan.device)).cpu().numpy()
        valid = scan.valid.cpu().numpy() > 0
        super().__init__(scan, valid, centered, config, pool, exposures)
        self._scan, self._dtype = scan, probe.real.dtype
        self._places = self._placed()
        self._beam = Beam(torch.from_numpy(self._nodes_px).to(scan.device), probe)
        n_lanes = _lanes(scan.device, config.batch_size)
        size = -(-config.batch_size // n_lanes)
        self._lanes = [Lane(scan, self._beam, self.refinement, probe, size) for _ in range(n_lanes)]
        self._threads = ThreadPoolExecutor(
            max(1, n_lanes - 1), initializer=torch.set_num_threads, initargs=(1,)
        )

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have the lanes' threads at hand; each of them, and this one, computes on one core."""
        before = torch.get_num_threads()
        if self._scan.device.type == 'cpu':
            torch.set_num_threads(1)
        try:
            with self._threads:
                yield
        finally:
            torch.set_num_threads(before)

    def _placed(self) -> Places:
        scan = self._scan.exposed(self.refinement.exposures)
        weights = self._on_device(self._weights)
        if self._pull_weights is self._weights:
            return Places(scan, weights, weights)
        return Places(scan, weights, self._on_device(self._pull_weights))

    def _on_device(self, weights: Real) -> Tensor:
        return torch.from_numpy(weights).to(self._scan.device, self._dtype)

    def correct(self, number: int, step: float) -> float:
        grown = super().correct(number, step)
        self._places = self._placed()
        return grown

    def look(self, probe: Tensor, sweep: Sweep) -> None:
        """Visit with this probe from now on."""
        self._beam.set(probe, self._fitted(sweep))

    def update(
        self,
        object_: Tensor,
        probe: Tensor,
        chosen: IndexArray,
        sweep: Sweep,
        *,
        refine_probe: bool,
    ) -> None:
        """Visit a batch; change the object and, if so wanted, the probe, in place."""
        n_parts = min(len(self._lanes), len(chosen))
        parts = np.array_split(chosen, n_parts) if n_parts > 1 else [chosen]
        others = [
            self._threads.submit(lane.visit, self._places, object_, part, probe_too=refine_probe)
            for lane, part in zip(self._lanes[1:], parts[1:], strict=False)
        ]
        first = self._lanes[0].visit(self._places, object_, parts[0], probe_too=refine_probe)
        pulls = [first, *(other.result() for other in others)]
        # One after the other: the same sums in the same order every time.
        for part, pull in zip(parts, pulls, strict=True):
            self._places.scan.add_patches(object_, part, pull.of_object)
            if pull.figures is not None:
                figures = pull.figures.cpu().numpy()
                self.refinement.figures[part, : figures.shape[1]] = figures
        if refine_probe:
            self._update_probe(probe, pulls, sweep)

    def _update_probe(self, probe: Tensor, pulls: list[Pull], sweep: Sweep) -> None:
        waves = sum(pull.of_probe for pull in pulls if pull.of_probe is not None)
        light = sum(pull.light for pull in pulls if pull.light is not None)
        assert isinstance(waves, Tensor)
        assert isinstance(light, Tensor)
        damping = self._config.probe_damping
        floor = light * (1 - damping) + damping * light.max()
        probe.add_(self._beam.shifted_back(waves) / floor, alpha=self._probe_length(sweep))
        self.look(probe, sweep)


def _lanes(device: torch.device, batch_size: int) -> int:
    if device.type != 'cpu':
        return 1
    return max(1, min(torch.get_num_threads(), batch_size // LEAST_IN_A_LANE))
