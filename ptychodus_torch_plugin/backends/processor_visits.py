"""Visits of batches of patterns on a processor, the same for all backends.

A visit is two Fourier transforms, which are the backend's, and compiled kernels around them
(`kernels`).  All is done by one thread: to wake another one twice in every batch takes as long as
it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ptychodus_torch_plugin.arrays import BoolArray, FloatArray, IndexArray
from ptychodus_torch_plugin.backends import kernels
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.deflection import moment_weights
from ptychodus_torch_plugin.exposures import MOMENTS, Exposures
from ptychodus_torch_plugin.pattern_store import Patterns
from ptychodus_torch_plugin.physics import POISSON_OVERSHOOT, Complex, Real
from ptychodus_torch_plugin.sweeps import Sweep, probe_interval
from ptychodus_torch_plugin.visiting import Placed, PoolVisits


class Fourier(NamedTuple):
    """Transforms of the last two axes that keep the sum of squares.

    They use one thread, may use up the memory of what they are given, and return contiguous arrays.
    """

    forward: Callable[[Complex], Complex]
    inverse: Callable[[Complex], Complex]


class Measured(NamedTuple):
    """What a detector says: patterns (n, N, N), valid (N, N), background (N, N) or None."""

    patterns: Patterns
    valid: BoolArray
    background: FloatArray | None


class Visited(NamedTuple):
    """Patterns in the order in which they are visited, and what that tells.

    chosen (b,), corners (b, 2), weights (b, k) of shifted probes and of what they pull with;
    moments and displacements (b, f), some of `exposures.FIGURES`.
    """

    chosen: IndexArray
    corners: IndexArray
    weights: Real
    pull_weights: Real
    moments: Real
    displacements: Real

    def part(self, first: int, end: int) -> Visited:
        """Return some of them, in the same memory."""
        return Visited(
            self.chosen[first:end],
            self.corners[first:end],
            self.weights[first:end],
            self.pull_weights[first:end],
            self.moments[first:end],
            self.displacements[first:end],
        )


class ProcessorVisits(PoolVisits):
    """Visits patterns of one scan, from the pool (k,) int64, under a probe (m, N, N).

    Object and probe carry a checkerboard, as `far_field` of the backends wants it.

    Parameters
    ----------
    placed, measured
        The scan.
    config, pool, exposures
        As for `PoolVisits`.
    probe : (m, N, N) complex
        The first probe, with its checkerboard.
    fourier
        The backend's transforms.
    """

    def __init__(
        self,
        placed: Placed,
        measured: Measured,
        config: SweepConfig,
        pool: IndexArray,
        probe: Complex,
        exposures: Exposures | None,
        fourier: Fourier,
    ) -> None:
        line = 1 - 2 * (np.arange(placed.n_px) % 2)
        centered = probe * np.outer(line, line)
        super().__init__(placed, measured.valid, centered, config, pool, exposures)
        self._fourier, self._patterns, real = fourier, measured.patterns, probe.real.dtype
        valid = measured.valid.reshape(-1).astype(real)
        self._scale = valid * real.type(POISSON_OVERSHOOT / 4)
        self._offset = valid * real.type(-0.75 * POISSON_OVERSHOOT)
        dark = measured.background
        self._background = np.zeros_like(valid) if dark is None else dark.reshape(-1).astype(real)
        self._moments = np.ascontiguousarray(moment_weights(measured.valid).T, real)
        self._kernel = shift_kernel(self._nodes_px, placed.n_px).astype(probe.dtype)
        self._exits = np.empty((config.batch_size, *probe.shape), probe.dtype)
        # Of the probe at the nodes, and what it pulls with: (k, m N N).
        self._probes = self._pulls = np.empty((0, probe.size), probe.dtype)

    def sweep_arrays(
        self,
        object_: Complex,
        probe: Complex,
        drawn: Sequence[IndexArray],
        sweep: Sweep,
        *,
        refine_probe: bool,
    ) -> None:
        """Visit the batches `drawn`; change object and, if so wanted, probe, in place."""
        self._look(probe, sweep)
        interval, patterns, first = probe_interval(len(drawn)), self._in_order(drawn), 0
        for k, chosen in enumerate(drawn, 1):
            batch = patterns.part(first, first + len(chosen))
            change = self._visit(object_, batch)
            # Object and probe both answer to what they were before the batch.
            due = refine_probe and k % interval == 0
            pulled = self._pulled_probe(object_, batch, change) if due else None
            kernels.pull_object(object_, batch.corners, batch.pull_weights, self._pulls, change)
            if pulled is not None:
                self._update_probe(probe, *pulled, sweep)
            first += len(chosen)
        noted = np.hstack([patterns.moments, patterns.displacements])
        self.refinement.figures[patterns.chosen, : noted.shape[1]] = noted

    def _in_order(self, drawn: Sequence[IndexArray]) -> Visited:
        chosen, noted = np.concatenate(drawn), self.refinement.noted
        return Visited(
            chosen,
            self._corners[chosen],
            self._weights[chosen],
            self._pull_weights[chosen],
            np.empty((len(chosen), min(noted, MOMENTS))),
            np.empty((len(chosen), max(noted - MOMENTS, 0))),
        )

    def _look(self, probe: Complex, sweep: Sweep) -> None:
        """Visit with this probe from now on."""
        fitted = self._fitted(sweep)
        power = np.sum(probe.real**2 + probe.imag**2, axis=0)
        floor = fitted.damping * power.max() + (1 - fitted.damping) * power
        pull = probe.conj() * (fitted.step / floor).astype(power.dtype)
        self._probes, self._pulls = (self._at_nodes(each) for each in (probe.copy(), pull))

    def _at_nodes(self, waves: Complex) -> Complex:
        """Return waves (m, N, N) shifted to each node, (k, m N N)."""
        shifted = np.empty((len(self._kernel), *waves.shape), waves.dtype)
        kernels.multiply(shifted, self._fourier.forward(waves), self._kernel)
        return self._fourier.inverse(shifted).reshape(len(shifted), -1)

    def _from_nodes(self, waves: Complex, like: Complex) -> Complex:
        """Return the sum, shaped `like` (m, N, N), of waves (k, m N N), shifted back."""
        total = np.empty_like(like)
        spectra = self._fourier.forward(waves.reshape(-1, *like.shape))
        kernels.sum_products(total, spectra, self._kernel)
        return self._fourier.inverse(total)

    def _visit(self, object_: Complex, batch: Visited) -> Complex:
        """Return by what exit waves change, (b, m, N, N); note what the patterns tell."""
        n_patterns, probes = len(batch.chosen), self._probes
        exits = self._exits[:n_patterns]
        kernels.expose(exits, object_, batch.corners, batch.weights, probes)
        waves = self._fourier.forward(exits)
        kernels.impose_counts(
            waves.reshape(n_patterns, -1, self._n_px**2),
            batch.moments,
            self._patterns[batch.chosen].reshape(n_patterns, -1),
            self._scale,
            self._offset,
            self._background,
            self._moments,
        )
        change = self._fourier.inverse(waves)
        if batch.displacements.size:
            kernels.note_displacements(
                batch.displacements, object_, batch.corners, batch.weights, probes, change
            )
        return change

    def _pulled_probe(
        self, object_: Complex, batch: Visited, change: Complex
    ) -> tuple[Complex, Real]:
        """Return what changes (b, m, N, N) demand of the probe at the nodes, and sum |o|^2.

        The former (k, m N N), the latter (N, N).
        """
        waves = np.empty_like(self._probes)
        light = np.empty((self._n_px, self._n_px), self._scale.dtype)
        kernels.pull_probe(waves, light, object_, batch.corners, batch.pull_weights, change)
        return waves, light

    def _update_probe(self, probe: Complex, waves: Complex, light: Real, sweep: Sweep) -> None:
        damping = self._config.probe_damping
        floor = light * (1 - damping) + damping * light.max()
        length = (self._probe_length(sweep) / floor).astype(light.dtype)
        probe += self._from_nodes(waves, probe) * length
        self._look(probe, sweep)


def shift_kernel(nodes_px: Real, n_px: int) -> Complex:
    """Return (k, N, N) complex128: what shifts a probe with checkerboard to each node (k, 2)."""
    # The checkerboard centres the spectrum of such a probe.
    frequency = np.fft.fftshift(np.fft.fftfreq(n_px))
    ramps = np.exp(-2j * np.pi * nodes_px[:, :, None] * frequency)
    return np.asarray(ramps[:, 0, :, None] * ramps[:, 1, None, :])
