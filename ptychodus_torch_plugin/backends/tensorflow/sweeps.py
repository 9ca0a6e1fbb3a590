"""Whole-scan sweeps in TensorFlow; `ptychodus_torch_plugin.sweeps` says what they compute and why.

Tensors are never changed in place: every update returns new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.arrays import ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors
from ptychodus_torch_plugin.config import SweepConfig
from ptychodus_torch_plugin.probes import center_px, far_field_counts, ramp, tilt_px
from ptychodus_torch_plugin.sweeps import FIRST_PROBE_SWEEP, Sweep, batches, drift_px

PATTERNS_AT_ONCE = 64


@dataclass
class SweepState:
    """Object (h, w) and probe (m, N, N), complex64; the probe carries its checkerboard."""

    object_: Tensor
    probe: Tensor

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


class Batch(NamedTuple):
    """What a batch of B patterns brings: see `ScanTensors`, of whose attributes it has B rows."""

    corners: Tensor
    ramps: Tensor | None
    counts: Tensor
    valid: Tensor


class Lengths(NamedTuple):
    """How far a batch moves object and probe: `Sweep` and `SweepConfig` as tensors () float32."""

    damping: Tensor
    step: Tensor
    probe_damping: Tensor
    probe_step: Tensor


class Sweeper:
    """Sweeps over the patterns `pool` (k,) int64 of one scan."""

    def __init__(self, scan: ScanTensors, config: SweepConfig, pool: IndexArray) -> None:
        self.scan = scan
        self.config = config
        self.pool = pool
        self._update = compiled if scan.on_host else traced

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
        for number, sweep in enumerate(sweeps):
            refine = self.config.refine_probe and number >= FIRST_PROBE_SWEEP
            before = object_, probe
            lengths = self._lengths(sweep)
            for chosen in batches(self.pool, self.config.batch_size, seed, number):
                object_, probe = self._update(
                    object_,
                    probe,
                    self._batch(chosen),
                    lengths,
                    n_px=self.scan.n_px,
                    refine_probe=refine,
                )
            object_velocity = sweep.momentum * object_velocity + (object_ - before[0])
            object_ += sweep.momentum * object_velocity
            if refine:
                beta = min(self.config.probe_momentum, sweep.momentum)
                probe_velocity = beta * probe_velocity + (probe - before[1])
                probe += beta * probe_velocity
                object_, object_velocity, probe, probe_velocity = _kept_gauge(
                    object_, object_velocity, probe, probe_velocity, energy, home
                )
            on_sweep()
        if self.config.refine_probe:
            object_, probe = self._kept_tilt(object_, probe, state.probe)
        return SweepState(object_, probe)

    def _batch(self, chosen: IndexArray) -> Batch:
        scan = self.scan
        return Batch(
            corners=tf.gather(scan.corners, chosen),
            ramps=None if scan.ramps is None else tf.gather(scan.ramps, chosen),
            counts=scan.batch_counts(chosen),
            valid=scan.valid,
        )

    def _lengths(self, sweep: Sweep) -> Lengths:
        config = self.config
        values = sweep.damping, sweep.step, config.probe_damping, sweep.step * config.probe_step
        return Lengths(*(tf.constant(value) for value in values))

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


def _updated(
    object_: Tensor,
    probe: Tensor,
    batch: Batch,
    lengths: Lengths,
    *,
    n_px: int,
    refine_probe: bool,
) -> tuple[Tensor, Tensor]:
    """Return object and probe after a batch; `n_px` is the side N of the probe."""
    shape = tf.shape(object_)
    index = physics.patch_index(batch.corners, n_px, shape[1])
    probes = probe[None] if batch.ramps is None else physics.shift_probe(probe, batch.ramps)
    patches = physics.gather_patches(object_, index, n_px)
    waves = physics.far_field(probes * patches)
    intensity = tf.reduce_sum(physics.absolute_square(waves), 1)
    factor = physics.count_factor(intensity, batch.counts, batch.valid)
    change = physics.near_field(waves * tf.cast(factor, waves.dtype)[:, None])

    pull = tf.reduce_sum(tf.math.conj(probes) * change, 1)
    power = tf.reduce_sum(physics.absolute_square(probes), 1)
    weight = physics.scatter_patches(tf.broadcast_to(power, tf.shape(pull)), index, shape)
    strongest = tf.reduce_max(tf.reduce_sum(physics.absolute_square(probe), 0))
    damping, length, probe_damping, probe_length = (tf.cast(v, weight.dtype) for v in lengths)
    scale = length / (damping * strongest + (1 - damping) * weight)
    step = physics.scatter_patches(pull, index, shape) * tf.cast(scale, object_.dtype)
    if not refine_probe:
        return object_ + step, probe

    step_of_probe = _pull_on_probe(patches, change, batch.ramps)
    seen = tf.reduce_sum(physics.absolute_square(patches), (0, 1))
    scale = probe_length / (probe_damping * tf.reduce_max(seen) + (1 - probe_damping) * seen)
    return object_ + step, probe + step_of_probe * tf.cast(scale, probe.dtype)


def _pull_on_probe(patches: Tensor, change: Tensor, ramps: Tensor | None) -> Tensor:
    """Return sum_j shift(conj(o_j) Delta psi_jm, -r_j), (m, N, N)."""
    pull = tf.math.conj(patches) * change
    if ramps is None:
        return tf.reduce_sum(pull, 0)
    spectra = tf.signal.fft2d(pull) * tf.math.conj(physics.shift_kernel(ramps))
    return tf.signal.ifft2d(tf.reduce_sum(spectra, 0))


traced = tf.function(_updated, reduce_retracing=True, autograph=False)
"""Traced at most twice for all sizes of batch and canvas, for each side N."""

compiled = tf.function(_updated, reduce_retracing=True, autograph=False, jit_compile=True)
"""By XLA, which takes 0.3 s for every new size and saves a third of the time on a CPU.

On a GPU its scatter is slow wherever results must not depend on timing.
"""


def photons_per_pixel(scan: ScanTensors, probe: Tensor, pool: IndexArray) -> Tensor:
    """Return how many photons of the patterns `pool` fell on each canvas pixel, (h, w) float32."""
    canvas = tf.zeros(scan.frame.shape)
    for first in range(0, len(pool), PATTERNS_AT_ONCE):
        chosen = pool[first : first + PATTERNS_AT_ONCE]
        power = tf.reduce_sum(physics.absolute_square(scan.batch_probes(probe, chosen)), 1)
        power = tf.broadcast_to(power, (len(chosen), scan.n_px, scan.n_px))
        canvas += physics.scatter_patches(power, scan.batch_index(chosen), scan.frame.shape)
    return canvas


def _energy(probe: Tensor) -> Tensor:
    return tf.reduce_sum(physics.absolute_square(probe))


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
