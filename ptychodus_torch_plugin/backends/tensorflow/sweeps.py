"""Whole-scan sweeps in TensorFlow; `ptychodus_torch_plugin.sweeps` says what they compute and why.

Tensors are never changed in place: every update returns new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.backends.tensorflow.visits import visits_of
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.exposures import Exposures
from ptychodus_torch_plugin.lattice import Lattice
from ptychodus_torch_plugin.probes import center_px, far_field_counts, ramp, tilt_px
from ptychodus_torch_plugin.sweeps import FIRST_PROBE_SWEEP, Sweep, batches, drift_px

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
        modes = tf.constant(probe.astype(np.complex64)) * physics.checkerboard(scan.n_px)
        return cls(tf.ones(scan.frame.shape, tf.complex64), modes)

    def export(self) -> tuple[ComplexArray, ComplexArray]:
        """Return object and probe, without its checkerboard, as NumPy arrays."""
        board = physics.checkerboard(self.probe.shape[-1])
        probe = self.probe * tf.cast(board, self.probe.dtype)
        return self.object_.numpy(), probe.numpy()


class Sweeper:
    """Sweeps over the patterns `pool` (k,) int64 of one scan."""

    def __init__(self, scan: ScanTensors, config: SweepConfig, pool: IndexArray) -> None:
        self.scan = scan
        self.config = config
        self.pool = pool

    def run(
        self,
        state: SweepState,
        sweeps: Sequence[Sweep],
        *,
        seed: int = 0,
        on_sweep: Callable[[], None] = lambda: None,
    ) -> SweepState:
        """Return the state after `sweeps`."""
        object_, probe = state.object_, state.probe
        energy, home = _energy(probe), center_px(probe.numpy())
        object_velocity, probe_velocity = tf.zeros_like(object_), tf.zeros_like(probe)
        exposures = state.exposures
        visits = visits_of(self.scan, self.config, self.pool, probe, exposures)
        for number, sweep in enumerate(sweeps):
            refine = self.config.refine_probe and number >= FIRST_PROBE_SWEEP
            before = object_, probe
            drawn = batches(self.pool, self.config.batch_size, seed, number)
            object_, probe = visits.sweep(object_, probe, drawn, sweep, refine_probe=refine)
            phase = None
            if sweep.deflection:
                phase = visits.missing_phase((object_ * tf.math.conj(before[0])).numpy())
            object_velocity = sweep.momentum * object_velocity + (object_ - before[0])
            object_ += sweep.momentum * object_velocity
            if refine:
                beta = min(self.config.probe_momentum, sweep.momentum)
                probe_velocity = beta * probe_velocity + (probe - before[1])
                probe += beta * probe_velocity
                object_, object_velocity, probe, probe_velocity = _undone_net(
                    visits.lattice, object_, object_velocity, probe, probe_velocity
                )
                object_, object_velocity, probe, probe_velocity = _kept_gauge(
                    object_, object_velocity, probe, probe_velocity, energy, home
                )
            if phase is not None:
                factor = tf.cast(np.exp(1j * sweep.deflection * phase), object_.dtype)
                object_, object_velocity = object_ * factor, object_velocity * factor
            if visits.refinement.wanted:
                grown = visits.correct(number, sweep.step)
                object_, object_velocity = object_ * grown, object_velocity * grown
            on_sweep()
        if visits.refinement.wanted:
            exposures = self._completed(object_, probe, visits.refinement.outcome())
        if self.config.refine_probe:
            object_, probe = self._kept_tilt(object_, probe, state.probe)
        return SweepState(object_, probe, exposures)

    def _completed(self, object_: Tensor, probe: Tensor, exposures: Exposures) -> Exposures:
        """Return all exposures, with the intensities of patterns outside the pool."""
        others = np.setdiff1d(np.arange(len(self.scan)), self.pool)
        if not (len(others) and self.config.refine_intensity):
            return exposures
        scan, totals = self.scan.exposed(exposures), []
        for first in range(0, len(others), PATTERNS_AT_ONCE):
            chosen = others[first : first + PATTERNS_AT_ONCE]
            patches = physics.gather_patches(object_, scan.batch_index(chosen), scan.n_px)
            expected = physics.predict_counts(patches, scan.batch_probes(probe, chosen))
            measured = scan.batch_counts(chosen) - scan.background
            both = tf.stack([tf.cast(expected, tf.float64), tf.cast(measured, tf.float64)])
            both *= tf.cast(scan.valid, tf.float64)
            totals.append(tf.reduce_sum(both, (2, 3)).numpy())
        return exposures.scaled(others, *np.concatenate(totals, axis=1))

    def _kept_tilt(
        self, object_: Tensor, probe: Tensor, reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        n_px = self.scan.n_px
        # Both carry the same checkerboard, which shifts both far fields alike.
        tilt = tilt_px(*(far_field_counts(p.numpy()) for p in (probe, reference)))
        straight, opposite = (
            tf.constant(ramp(tuple(shape), (sign * tilt[0], sign * tilt[1]), n_px), tf.complex64)
            for shape, sign in ((probe.shape[-2:], -1), (object_.shape, 1))
        )
        return object_ * tf.cast(opposite, object_.dtype), probe * tf.cast(straight, probe.dtype)


def photons_per_pixel(scan: ScanTensors, probe: Tensor, pool: IndexArray) -> Tensor:
    """Return how many photons of the patterns `pool` fell on each canvas pixel, (h, w) float32.

    Of a scan with the exposures of the sweeps, if there are any.
    """
    canvas = tf.zeros(scan.frame.shape)
    for first in range(0, len(pool), PATTERNS_AT_ONCE):
        chosen = pool[first : first + PATTERNS_AT_ONCE]
        power = tf.reduce_sum(physics.absolute_square(scan.batch_probes(probe, chosen)), 1)
        power = tf.broadcast_to(power, (len(chosen), scan.n_px, scan.n_px))
        canvas += physics.scatter_patches(power, scan.batch_index(chosen), scan.frame.shape)
    return canvas


def _energy(probe: Tensor) -> Tensor:
    return tf.reduce_sum(physics.absolute_square(probe))


def _undone_net(
    lattice: Lattice | None,
    object_: Tensor,
    object_velocity: Tensor,
    probe: Tensor,
    probe_velocity: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Undo what a regular scan cannot know: functions that repeat from position to position."""
    if lattice is None:
        return object_, object_velocity, probe, probe_velocity
    centered = probe * tf.cast(physics.checkerboard(probe.shape[-1]), probe.dtype)
    of_probe, of_object = (
        tf.cast(factor, probe.dtype) for factor in lattice.factors(centered.numpy())
    )
    objects = [array * of_object for array in (object_, object_velocity)]
    probes = [array * of_probe for array in (probe, probe_velocity)]
    return objects[0], objects[1], probes[0], probes[1]


def _kept_gauge(
    object_: Tensor,
    object_velocity: Tensor,
    probe: Tensor,
    probe_velocity: Tensor,
    energy: Tensor,
    home: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Undo what the data cannot know: how energy and place are shared by probe and object."""
    factor = tf.cast(tf.sqrt(energy / _energy(probe)), probe.dtype)
    objects = [array / factor for array in (object_, object_velocity)]
    probes = [array * factor for array in (probe, probe_velocity)]
    shift = [-d for d in drift_px(probe.numpy(), home)]
    if any(shift):
        # The checkerboard moves with the probe: an odd shift turns its sign.
        sign = (-1) ** (sum(shift) % 2)
        objects = [tf.roll(array, shift, (-2, -1)) for array in objects]
        probes = [tf.roll(array, shift, (-2, -1)) * sign for array in probes]
    return objects[0], objects[1], probes[0], probes[1]
