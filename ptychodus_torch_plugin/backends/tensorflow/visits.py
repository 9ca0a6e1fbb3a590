"""Visits of batches of patterns in TensorFlow: what they pull on the object and on the probe.

On a device, many batches are one call of a traced loop, for a call costs more than a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import fft
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import IndexArray
from ptychodus_torch_plugin.backends.processor_visits import Fourier, Measured, ProcessorVisits
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.deflection import moment_weights
from ptychodus_torch_plugin.exposures import MOMENTS, Exposures
from ptychodus_torch_plugin.sweeps import Sweep, probe_interval
from ptychodus_torch_plugin.visiting import PoolVisits

BATCHES_AT_ONCE, BYTES_AT_ONCE = 32, 2**25
"""Batches of a call, and bytes of their counts, at most."""


# TensorFlow's own take twice as long on a processor.
SCIPY = Fourier(
    partial(fft.fft2, norm='ortho', overwrite_x=True),
    partial(fft.ifft2, norm='ortho', overwrite_x=True),
)


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
        super().__init__(
            scan,
            Measured(scan.patterns, scan.valid.numpy() > 0, scan.background.numpy()),
            config,
            pool,
            probe.numpy(),
            exposures,
            SCIPY,
        )

    def sweep(
        self,
        object_: Tensor,
        probe: Tensor,
        drawn: Sequence[IndexArray],
        sweep: Sweep,
        *,
        refine_probe: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return object and probe after the batches `drawn`."""
        arrays = object_.numpy().copy(), probe.numpy().copy()
        self.sweep_arrays(*arrays, drawn, sweep, refine_probe=refine_probe)
        return tf.constant(arrays[0]), tf.constant(arrays[1])


class Batches(NamedTuple):
    """S batches of B patterns; those that fill up the last one have weights and shares of zero.

    starts (S, B, 2) int32, weights of shifted probes and of what they pull with (S, B, k), shares
    (S, B), counts (S, B, N, N) float32.
    """

    starts: Tensor
    weights: Tensor
    pull_weights: Tensor
    shares: Tensor
    counts: Tensor


class Settings(NamedTuple):
    """How far a batch moves object and probe, and when; all () or without batches.

    kernel (k, 1, N, N) complex shifts to the nodes; moments (N * N, 4), valid and background (N, N)
    float32; damping and step (`pull`) of the object, probe_damping and probe_step float32; the
    probe is updated after every `interval` int32 batches, or never if it is zero.
    """

    kernel: Tensor
    moments: Tensor
    valid: Tensor
    background: Tensor
    damping: Tensor
    pull: Tensor
    probe_damping: Tensor
    probe_step: Tensor
    interval: Tensor


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
        centered = (probe * tf.cast(physics.checkerboard(scan.n_px), probe.dtype)).numpy()
        valid = scan.valid.numpy() > 0
        super().__init__(scan, valid, centered, config, pool, exposures)
        self._scan = scan
        self._moments = tf.constant(moment_weights(valid))
        ramps = physics.shift_ramps(tf.constant(self._nodes_px), scan.n_px, probe.dtype)
        self._kernel = physics.shift_kernel(ramps)
        per_batch = 4 * config.batch_size * scan.n_px**2
        at_most = max(1, min(BATCHES_AT_ONCE, BYTES_AT_ONCE // per_batch))
        # Of the whole scan: without some of its patterns it is not compiled again.
        self._at_once = min(at_most, math.ceil(len(scan) / config.batch_size))

    def sweep(
        self,
        object_: Tensor,
        probe: Tensor,
        drawn: Sequence[IndexArray],
        sweep: Sweep,
        *,
        refine_probe: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return object and probe after the batches `drawn`."""
        settings = self._settings(sweep, probe_interval(len(drawn)) if refine_probe else 0)
        noted = self.refinement.noted
        for first in range(0, len(drawn), self._at_once):
            some = drawn[first : first + self._at_once]
            object_, probe, figures = traced(
                object_,
                probe,
                self._batches(some),
                settings,
                tf.constant(first, tf.int32),
                tf.constant(len(some), tf.int32),
                modes=tuple(probe.shape),
                noted=noted,
            )
            if noted:
                chosen = np.concatenate(some)
                seen = figures.numpy().reshape(-1, noted)[: len(chosen)]
                self.refinement.figures[chosen, :noted] = seen
        return object_, probe

    def _settings(self, sweep: Sweep, interval: int) -> Settings:
        fitted = self._fitted(sweep)
        return Settings(
            kernel=self._kernel,
            moments=self._moments,
            valid=self._scan.valid,
            background=self._scan.background,
            damping=tf.constant(fitted.damping, tf.float32),
            pull=tf.constant(fitted.step, tf.float32),
            probe_damping=tf.constant(self._config.probe_damping, tf.float32),
            probe_step=tf.constant(self._probe_length(sweep), tf.float32),
            interval=tf.constant(interval, tf.int32),
        )

    def _batches(self, drawn: Sequence[IndexArray]) -> Batches:
        chosen = np.concatenate(drawn)
        shape = self._at_once, self._config.batch_size
        filled = np.resize(chosen, shape)
        shares = np.zeros(shape, np.float32)
        shares.reshape(-1)[: len(chosen)] = 1
        weights, pull_weights = (
            tf.constant(each[filled] * shares[..., None])
            for each in (self._weights, self._pull_weights)
        )
        counts = self._scan.batch_counts(filled.reshape(-1))
        return Batches(
            starts=tf.constant(self._corners[filled], tf.int32),
            weights=weights,
            pull_weights=pull_weights,
            shares=tf.constant(shares),
            counts=tf.reshape(counts, (*shape, *counts.shape[1:])),
        )


def _updated(
    object_: Tensor,
    probe: Tensor,
    batches: Batches,
    settings: Settings,
    first: Tensor,
    count: Tensor,
    *,
    modes: tuple[int, int, int],
    noted: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return object and probe (`modes`) after `count` () batches, the `first` () of a sweep.

    The third result is the first `noted` figures of each exposure, (S, B, noted).
    """
    probe = tf.ensure_shape(probe, modes)
    rows = tf.range(tf.shape(batches.starts)[0])[:, None, None]

    def until_update(
        start: Tensor, object_: Tensor, probe: Tensor, figures: Tensor
    ) -> tuple[Tensor, ...]:
        """Visit batches until the probe is due; what changes with it is computed once."""
        interval = tf.maximum(settings.interval, 1)
        end = first + start + interval - (first + start) % interval - first
        end = tf.where(settings.interval > 0, tf.minimum(end, count), count)
        beam = _beam(probe, settings)

        def visited(
            k: Tensor, object_: Tensor, _: Tensor, __: Tensor, figures: Tensor
        ) -> tuple[Tensor, ...]:
            batch = Batches(*(tf.gather(each, k) for each in batches))
            pull, patches, change, seen = _demanded(
                object_, batch, beam, settings, modes=modes, noted=noted
            )
            after = physics.with_patches_added(object_, batch.starts, pull)
            if seen is not None:
                figures = tf.where(rows == k, seen[None], figures)
            return k + 1, after, patches, change, figures

        size = tf.shape(batches.starts)[1]
        patches = tf.zeros((size, *modes[1:]), probe.dtype)
        change = tf.zeros((size, *modes), probe.dtype)
        carried = start, object_, patches, change, figures
        _, object_, patches, change, figures = tf.while_loop(
            lambda k, *_: k < end, visited, carried
        )
        due = (settings.interval > 0) & ((first + end) % interval == 0)
        last = Batches(*(tf.gather(each, end - 1) for each in batches))
        probe = tf.cond(
            due, lambda: _refined(probe, patches, change, last, settings), lambda: probe
        )
        return end, object_, probe, figures

    n_batches, size = tf.unstack(tf.shape(batches.shares))
    figures = tf.zeros((n_batches, size, noted), tf.math.real(probe).dtype)
    begin = tf.constant(0), object_, probe, figures
    _, object_, probe, figures = tf.while_loop(lambda k, *_: k < count, until_update, begin)
    return object_, probe, figures


def _demanded(
    object_: Tensor,
    batch: Batches,
    beam: tuple[Tensor, Tensor],
    settings: Settings,
    *,
    modes: tuple[int, int, int],
    noted: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return what is to be added to the patches of a batch (B, N, N), and what it was made of.

    That is the patches (B, N, N), the change of their exit waves (B, m, N, N), and the figures of
    their exposures (B, noted), if there are any.
    """
    probes, pulls = beam
    weights, pull_weights = (
        tf.cast(each, probes.dtype) for each in (batch.weights, batch.pull_weights)
    )
    patches = physics.window_patches(object_, batch.starts, modes[-1])
    shifted = _waves(weights @ probes, modes)
    waves = physics.far_field(shifted * patches[:, None])
    intensity = tf.reduce_sum(physics.absolute_square(waves), 1)
    factor = physics.count_factor(intensity, batch.counts, settings.valid, settings.background)
    change = physics.near_field(waves * tf.cast(factor, waves.dtype)[:, None])
    pull = tf.reduce_sum(_waves(pull_weights @ pulls, modes) * change, 1)
    figures = _moments(intensity, batch.counts, settings) if noted else None
    if noted > MOMENTS:
        displacement = physics.displacement_figures(patches, shifted, change)
        figures = tf.concat([figures, displacement], 1)
    return pull, patches, change, figures


def _moments(intensity: Tensor, counts: Tensor, settings: Settings) -> Tensor:
    """Return the moments (B, 8) of expected and of measured counts, without the background."""
    counts, background, moments = (
        tf.cast(each, intensity.dtype) for each in (counts, settings.background, settings.moments)
    )
    flat = (tf.shape(counts)[0], moments.shape[0])
    both = [tf.reshape(each, flat) @ moments for each in (intensity, counts - background)]
    return tf.reshape(tf.stack(both, 2), (flat[0], MOMENTS))


def _beam(probe: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return a probe and what it pulls with at the nodes, each (k, 2 m N N): pairs of numbers."""
    power = tf.reduce_sum(physics.absolute_square(probe), 0)
    damping, length = (tf.cast(v, power.dtype) for v in (settings.damping, settings.pull))
    scale = length / (damping * tf.reduce_max(power) + (1 - damping) * power)
    both = tf.concat([probe, tf.math.conj(probe) * tf.cast(scale, probe.dtype)], 0)
    shifted = tf.signal.ifft2d(tf.signal.fft2d(both) * settings.kernel)
    modes = probe.shape[0]
    return _pairs(shifted[:, :modes]), _pairs(shifted[:, modes:])


def _refined(
    probe: Tensor, patches: Tensor, change: Tensor, batch: Batches, settings: Settings
) -> Tensor:
    """Return the probe after a batch with these patches (B, N, N) and changes (B, m, N, N)."""
    pulls = _pairs(tf.math.conj(patches)[:, None] * change)
    weights, shares = (tf.cast(each, pulls.dtype) for each in (batch.pull_weights, batch.shares))
    waves = _waves(tf.matmul(weights, pulls, transpose_a=True), tuple(probe.shape))
    spectra = tf.signal.fft2d(waves) * tf.math.conj(settings.kernel)
    step = tf.signal.ifft2d(tf.reduce_sum(spectra, 0))
    light = tf.reduce_sum(physics.absolute_square(patches) * shares[:, None, None], 0)
    damping, length = (
        tf.cast(v, light.dtype) for v in (settings.probe_damping, settings.probe_step)
    )
    scale = length / (damping * tf.reduce_max(light) + (1 - damping) * light)
    return probe + step * tf.cast(scale, probe.dtype)


def _pairs(waves: Tensor) -> Tensor:
    """Return waves (n, ...) as pairs of real numbers, (n, k)."""
    parts = tf.stack([tf.math.real(waves), tf.math.imag(waves)], -1)
    return tf.reshape(parts, (tf.shape(waves)[0], -1))


def _waves(pairs: Tensor, modes: tuple[int, ...]) -> Tensor:
    """Invert `_pairs` for waves (n, *modes)."""
    parts = tf.reshape(pairs, (-1, *modes, 2))
    return tf.complex(parts[..., 0], parts[..., 1])


traced = tf.function(_updated, reduce_retracing=True, autograph=False)


def visits_of(
    scan: ScanTensors,
    config: SweepConfig,
    pool: IndexArray,
    probe: Tensor,
    exposures: Exposures | None = None,
) -> HostVisits | DeviceVisits:
    """Return what visits patterns where the scan lies."""
    kind = HostVisits if scan.on_host else DeviceVisits
    return kind(scan, config, pool, probe, exposures)
