"""Visits of batches of patterns in PyTorch: what they pull on the object and on the probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.processor_visits import Fourier, Measured, ProcessorVisits
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.deflection import moment_weights
from ptychodus_torch_plugin.exposures import MOMENTS, Exposures
from ptychodus_torch_plugin.physics import Real
from ptychodus_torch_plugin.sweeps import Sweep, probe_interval
from ptychodus_torch_plugin.visiting import PoolVisits


class HostVisits(ProcessorVisits):
    """Visits on a processor; all is as for `DeviceVisits`."""

    def __init__(
        self,
        scan: ScanTensors,
        config: SweepConfig,
        pool: IndexArray,
        probe: Tensor,
        exposures: Exposures | None = None,
    ) -> None:
        dark = scan.background
        measured = Measured(
            scan.patterns, scan.valid.numpy() > 0, None if dark is None else dark.numpy()
        )
        super().__init__(
            scan,
            measured,
            config,
            pool,
            probe.numpy(),
            exposures,
            Fourier(_on_arrays(physics.far_field), _on_arrays(physics.near_field)),
        )

    def sweep(
        self,
        object_: Tensor,
        probe: Tensor,
        drawn: Sequence[IndexArray],
        sweep: Sweep,
        *,
        refine_probe: bool,
    ) -> None:
        """Change object and probe in place, as the batches `drawn` demand."""
        # Waking threads for every operation would take longer than they save.
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self.sweep_arrays(
                object_.numpy(), probe.numpy(), drawn, sweep, refine_probe=refine_probe
            )
        finally:
            torch.set_num_threads(before)


def _on_arrays(transform: Callable[[Tensor], Tensor]) -> Callable[[ComplexArray], ComplexArray]:
    def transformed(waves: ComplexArray) -> ComplexArray:
        return transform(torch.from_numpy(waves)).contiguous().numpy()

    return transformed


class Pull(NamedTuple):
    """What b patterns demand.

    `of_object` (b, N, N) is to be added to their patches (b, N, N); `change` (b, m, N, N) is that
    of their exit waves, and `figures` (b, f) those of their exposures, None unless asked for.
    """

    of_object: Tensor
    patches: Tensor
    change: Tensor
    figures: Tensor | None


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
            _pairs(part) for part in (shifted[:, : self._modes], shifted[:, self._modes :])
        )

    def shifted_back(self, waves: Tensor) -> Tensor:
        """Return the sum (m, N, N) of waves (k, m, N, N), each shifted back by its node."""
        return physics.ifft2((physics.fft2(waves) * self._kernel.conj()).sum(0))


class DeviceVisits(PoolVisits):
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
        self._moments = self._on_device(moment_weights(valid))
        dark = scan.background
        self._dark_moments = 0 if dark is None else dark.flatten().to(self._dtype) @ self._moments

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

    def sweep(
        self,
        object_: Tensor,
        probe: Tensor,
        drawn: Sequence[IndexArray],
        sweep: Sweep,
        *,
        refine_probe: bool,
    ) -> None:
        """Change object and probe in place, as the batches `drawn` demand."""
        self._look(probe, sweep)
        noted: list[Tensor] = []
        for k, chosen in enumerate(drawn, 1):
            pull = self._demanded(object_, chosen)
            self._places.scan.add_patches(object_, chosen, pull.of_object)
            if pull.figures is not None:
                noted.append(pull.figures)
            if refine_probe and k % probe_interval(len(drawn)) == 0:
                self._update_probe(probe, chosen, pull, sweep)
        if noted:
            # Once a sweep: the host would wait for the device each time.
            figures = torch.cat(noted).cpu().numpy()
            self.refinement.figures[np.concatenate(drawn), : figures.shape[1]] = figures

    def _look(self, probe: Tensor, sweep: Sweep) -> None:
        """Visit with this probe from now on."""
        self._beam.set(probe, self._fitted(sweep))

    def _demanded(self, object_: Tensor, chosen: IndexArray) -> Pull:
        """Return what patterns `chosen` (b,) demand of an object (h, w)."""
        (scan, *weighed), beam = self._places, self._beam
        indices = scan.on_device(chosen)
        weights, pull_weights = (each.index_select(0, indices) for each in weighed)
        starts = scan.starts.index_select(0, indices)
        patches = physics.windows(object_, scan.n_px).index_select(0, starts)
        shape = len(chosen), -1, scan.n_px, scan.n_px
        probes = _waves(weights @ beam.probes, shape)
        waves = physics.far_field(probes * patches[:, None])
        intensity = physics.absolute_square(waves).sum(1)
        counts = scan.batch_counts(chosen).to(self._dtype)
        factor = physics.count_factor(intensity, counts, scan.valid, scan.background)
        change = physics.near_field(waves * factor[:, None])
        pull = (_waves(pull_weights @ beam.pulls, shape) * change).sum(1)
        noted = self.refinement.noted
        figures = self._moments_of(intensity, counts) if noted else None
        if figures is not None and noted > MOMENTS:
            displacement = physics.displacement_figures(patches, probes, change)
            figures = torch.cat([figures, displacement], 1)
        return Pull(pull, patches, change, figures)

    def _moments_of(self, intensity: Tensor, counts: Tensor) -> Tensor:
        """Return the moments (b, 8) of expected and of measured counts, without background."""
        expected, measured = (each.flatten(1) @ self._moments for each in (intensity, counts))
        return torch.stack([expected, measured - self._dark_moments], 2).flatten(1)

    def _update_probe(self, probe: Tensor, chosen: IndexArray, pull: Pull, sweep: Sweep) -> None:
        weights = self._places.pull_weights.index_select(0, self._scan.on_device(chosen))
        waves = weights.T @ _pairs(pull.change * pull.patches.conj()[:, None])
        step = self._beam.shifted_back(_waves(waves, (len(waves), *probe.shape)))
        light = physics.absolute_square(pull.patches).sum(0)
        damping = self._config.probe_damping
        floor = light * (1 - damping) + damping * light.max()
        probe.add_(step / floor, alpha=self._probe_length(sweep))
        self._look(probe, sweep)


def visits_of(
    scan: ScanTensors,
    config: SweepConfig,
    pool: IndexArray,
    probe: Tensor,
    exposures: Exposures | None = None,
) -> HostVisits | DeviceVisits:
    """Return what visits patterns where the scan lies."""
    kind = HostVisits if scan.device.type == 'cpu' else DeviceVisits
    return kind(scan, config, pool, probe, exposures)


def _pairs(waves: Tensor) -> Tensor:
    """Return waves (n, ...) as pairs of real numbers (n, k)."""
    return torch.view_as_real(waves.resolve_conj()).reshape(len(waves), -1)


def _waves(pairs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Invert `_pairs` for waves of this shape."""
    return torch.view_as_complex(pairs.view(*shape, 2))
