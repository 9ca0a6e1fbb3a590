"""TensorFlow against the stored values of the oracle: parity where it is the only backend."""

import numpy as np
import pytest
import tensorflow as tf

from ptychodus_torch_plugin.backends.tensorflow import physics
from ptychodus_torch_plugin.backends.tensorflow.data import ScanTensors, channels_last
from ptychodus_torch_plugin.backends.tensorflow.illumination import Illumination, merge
from ptychodus_torch_plugin.backends.tensorflow.sweeps import Sweeper, SweepState
from tests.parity import stored
from tests.parity.golden import R_FITTED, check_golden
from tests.parity.stored import SCHEDULE, SEED, SWEEPS, GroupScene


def test_a_whole_scan():
    scene = stored.scene()
    tensors = ScanTensors(scene.scan)
    chosen = np.arange(len(tensors))
    object_, probe = tf.constant(scene.object_), tf.constant(scene.probe)
    with tf.GradientTape() as tape:
        tape.watch([object_, probe])
        patches = physics.gather_patches(object_, tensors.batch_index(chosen), scene.n_px)
        probes = tensors.batch_probes(probe * physics.checkerboard(scene.n_px), chosen)
        predicted = physics.predict_counts(patches, probes)
        loss = physics.poisson_loss(
            predicted, scene.scan.patterns, tensors.valid, tensors.mean_count
        )
    by_object, by_probe = tape.gradient(loss, [object_, probe])

    start = SweepState(object_, SweepState.start(tensors, scene.probe).probe)
    sweeper = Sweeper(tensors, SWEEPS, np.arange(len(tensors)))
    swept = sweeper.run(start, SCHEDULE, seed=SEED).export()
    stored.check_whole_scan(
        {
            'intensity': predicted.numpy(),
            'loss': loss.numpy(),
            'gradient_object': by_object.numpy(),
            'gradient_probe': by_probe.numpy(),
            'swept_object': swept[0],
            'swept_probe': swept[1],
        }
    )


def test_groups():
    groups = GroupScene()
    n_px, valid = groups.n_px, groups.scan.valid_pixels.astype(np.float32)
    illumination = Illumination([groups.scan], groups.config, groups.calibration, trainable=True)
    shape, patches = illumination.shapes.value, tf.constant(groups.patches)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(patches)
        last = channels_last(patches)
        merged = merge(last, tf.constant(groups.offsets_px), groups.weight, groups.side_px)
        predicted = illumination(merged.seen, scan=0)
        flat = [tf.reshape(each, (-1, n_px, n_px)) for each in (predicted, groups.counts)]
        said, truth = (tf.reshape(each, (-1, n_px, n_px)) for each in (patches, groups.truth))
        losses = {
            'nll': physics.poisson_loss(*flat, valid, groups.mean_count),
            'mae': physics.amplitude_error(*flat, valid, groups.mean_count),
            'realspace': physics.object_error(said, truth, groups.weight),
            'tv': physics.total_variation(merged.center),
        }
    terms = {}
    for name, loss in losses.items():
        by_patches, by_shape = tape.gradient(loss, [patches, shape])
        if by_shape is not None:
            by_shape = by_shape.numpy() @ [1, 1j]
        terms[name] = float(loss), by_patches.numpy(), by_shape
    seen = predicted.numpy()[:, 1, ::2, ::2]
    stored.check_groups(seen, terms, groups)


@pytest.mark.parametrize('writer', R_FITTED)
def test_golden_bundles(writer):
    check_golden('tensorflow', writer)
