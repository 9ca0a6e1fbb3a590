"""PyTorch against the stored values of the oracle: parity where it is the only backend."""

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.illumination import Illumination, merge
from ptychodus_torch_plugin.backends.torch.sweeps import Sweeper, SweepState
from tests.parity import stored
from tests.parity.golden import R_FITTED, check_golden
from tests.parity.stored import SCHEDULE, SEED, SWEEPS, GroupScene

CPU = torch.device('cpu')


def test_a_whole_scan():
    scene = stored.scene()
    tensors = ScanTensors(scene.scan, CPU)
    chosen = torch.arange(len(tensors))
    object_ = torch.from_numpy(scene.object_).requires_grad_()
    probe = torch.from_numpy(scene.probe).requires_grad_()
    patches = physics.gather_patches(object_, tensors.batch_index(chosen), scene.n_px)
    board = physics.checkerboard(scene.n_px, CPU)
    predicted = physics.predict_counts(patches, tensors.batch_probes(probe * board, chosen))
    loss = physics.poisson_loss(predicted, tensors.counts, tensors.valid, tensors.mean_count)
    loss.backward()

    start = SweepState.start(tensors, scene.probe)
    start.object_ = torch.from_numpy(scene.object_.copy())
    sweeper = Sweeper(tensors, SWEEPS, np.arange(len(tensors)))
    swept = sweeper.run(start, SCHEDULE, seed=SEED).export()
    stored.check_whole_scan(
        {
            'intensity': predicted.detach().numpy(),
            'loss': loss.detach().numpy(),
            'gradient_object': object_.grad.numpy(),
            'gradient_probe': probe.grad.numpy(),
            'swept_object': swept[0],
            'swept_probe': swept[1],
        }
    )


def test_groups():
    groups = GroupScene()
    illumination = Illumination([groups.scan], groups.config, groups.calibration, trainable=True)
    [shape] = illumination.shapes
    patches = torch.from_numpy(groups.patches).requires_grad_()
    counts, truth, weight, offsets, valid = (
        torch.from_numpy(array.copy())
        for array in (
            groups.counts,
            groups.truth,
            groups.weight,
            groups.offsets_px,
            groups.scan.valid_pixels.astype(np.float32),
        )
    )
    merged = merge(patches, offsets, weight, groups.side_px)
    predicted = illumination(merged.seen, 0)
    compared = predicted.flatten(0, 1), counts.flatten(0, 1), valid, groups.mean_count
    losses = {
        'nll': physics.poisson_loss(*compared),
        'mae': physics.amplitude_error(*compared),
        'realspace': physics.object_error(patches.flatten(0, 1), truth.flatten(0, 1), weight),
        'tv': physics.total_variation(merged.center),
    }
    terms = {}
    for name, loss in losses.items():
        by_patches, by_shape = torch.autograd.grad(
            loss, [patches, shape], retain_graph=True, allow_unused=True
        )
        by_shape = None if by_shape is None else torch.view_as_complex(by_shape).numpy()
        terms[name] = float(loss.detach()), by_patches.numpy(), by_shape
    seen = predicted.detach().numpy()[:, 1, ::2, ::2]
    stored.check_groups(seen, terms, groups)


@pytest.mark.parametrize('writer', R_FITTED)
def test_golden_bundles(writer):
    check_golden('pytorch', writer)
