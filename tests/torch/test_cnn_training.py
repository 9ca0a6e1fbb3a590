"""The reference network learns what it should, from what it should, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin.backends.torch.cnn_training import CnnTraining, GroupData
from ptychodus_torch_plugin.backends.torch.model import build_network
from ptychodus_torch_plugin.backends.torch.training import Task
from ptychodus_torch_plugin.backends.training_log import TrainingLog
from ptychodus_torch_plugin.calibration import Calibration, group_energy
from ptychodus_torch_plugin.config import SweepConfig, TrainingConfig
from ptychodus_torch_plugin.errors import TrainingError
from ptychodus_torch_plugin.group_plan import GroupPlan
from ptychodus_torch_plugin.physics import far_field, shape_exit_waves
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.stitching import canvas_px, merge_group, probe_weight, read_group
from ptychodus_torch_plugin.sweeps import first_probe

from . import quick
from .small import EXECUTION, MODEL, TRAINING, assert_equal_weights, fit, model_with

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def scan() -> ScanData:
    """30 patterns with a known object, two probe modes, and bad pixels full of nonsense."""
    scan = simulate_scan(
        SimulationConfig(
            N=64, n_positions=30, object_kind='dead-leaves', probe_modes=2, photons=2e4, seed=5
        )
    )
    bad_pixels = np.random.default_rng(1).random((64, 64)) < 0.03
    patterns = scan.patterns.copy()
    patterns[:, bad_pixels] = 65535
    return replace(scan, patterns=patterns, bad_pixels=bad_pixels)


def training_of(scan, **changes):
    """Return a module that is ready to train."""
    model, others = model_with(changes)
    torch.manual_seed(3)
    network = build_network(model)
    settings, execution = quick.changed(TRAINING, EXECUTION, **others)
    settings = settings.for_model(model)
    known = Calibration.of([scan], model)
    log = TrainingLog(settings.epochs, lambda _: None, lambda: False)
    return CnnTraining.prepare(Task(network, model, known, [scan], settings, execution, CPU, log))


def expected_terms(training, scan, batch):
    """Return each term of the loss, from the network's patches on in NumPy."""
    model = training._task.model
    known = training._task.calibration
    patterns = scan.patterns[batch.indices] * scan.valid_pixels
    with torch.no_grad():
        amplitudes = torch.from_numpy(np.sqrt(patterns) / np.float32(known.input_scale))
        patches = (training.network(amplitudes) * training.network.intensity_scale).numpy()
    weight = probe_weight(known.probe)
    probe = first_probe(scan, model.sweeps)
    energy = group_energy(probe, scan.valid_pixels, model)
    probe = probe * np.sqrt(energy / np.sum(np.abs(probe) ** 2))
    side = canvas_px(64, np.abs(batch.offsets_px).max())
    seen, centers = [], []
    for group, offsets in zip(patches, batch.offsets_px, strict=True):
        if len(group) == len(offsets) > 1:
            canvas, _ = merge_group(group, offsets, weight, side)
        else:
            canvas = np.pad(group[0], (side - 64) // 2)
        seen.append(read_group(canvas, offsets, 64))
        margin = (side - 64) // 2
        centers.append(canvas[margin : margin + 64, margin : margin + 64])
    seen = np.array(seen)
    waves = shape_exit_waves(
        probe * seen[:, :, None], model.gaussian_smoothing_sigma, masked=model.probe_mask
    )
    predicted = np.sum(np.abs(far_field(waves)) ** 2, axis=2)[batch.scored]
    counts = scan.patterns[batch.indices][batch.scored]
    mean = scan.mean_counts() / scan.valid_pixels.sum()
    truth = np.array(
        [
            scan.object_guess[y : y + 64, x : x + 64]
            for y, x in np.round(scan.positions_px[batch.indices] - 31.5).astype(int).reshape(-1, 2)
        ]
    ).reshape(*batch.indices.shape, 64, 64)
    said = patches if model.object_big else seen
    return {
        'nll_weight': oracle.poisson_loss(predicted, counts, scan.valid_pixels, mean),
        'mae_weight': oracle.amplitude_error(predicted, counts, scan.valid_pixels, mean),
        'realspace_mae_weight': oracle.object_error(
            said[batch.scored], truth[batch.scored], weight
        ),
        'tv_weight': oracle.total_variation(np.array(centers)),
    }


@pytest.fixture(scope='module')
def on_whole_pixels(scan) -> ScanData:
    return replace(scan, positions_px=np.round(scan.positions_px - 0.5) + 0.5)


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'gridsize': 1},
        {'gridsize': 3},
        {'object_big': False},
        {'probe_mask': True, 'gaussian_smoothing_sigma': 0.7},
        {'amp_activation': 'softplus', 'pad_object': False},
    ],
    ids=str,
)
def test_every_term_is_that_of_the_oracle(on_whole_pixels, options):
    weights = {'nll_weight': 1.0, 'mae_weight': 0.5, 'realspace_mae_weight': 0.3, 'tv_weight': 0.2}
    training = training_of(on_whole_pixels, **weights, **options)
    data = GroupData(training._plan, training._plan.validation_batches())
    batch, tensors = data._batches[0], data[0]
    assert not batch.scored.all() or options == {'gridsize': 1}
    expected = expected_terms(training, on_whole_pixels, batch)

    total = sum(weights[name] * expected[name] for name in weights)
    assert float(training.loss(tensors).detach()) == pytest.approx(total, rel=1e-4)
    for name, value in expected.items():
        alone = {other: float(other == name) for other in weights}
        if name in ('tv_weight', 'realspace_mae_weight'):
            alone['nll_weight'] = 1e-9  # a 'pinn' model has to look at its patterns
        one = training_of(on_whole_pixels, **alone, **options)
        assert float(one.loss(tensors).detach()) == pytest.approx(value, rel=1e-4), name


def test_labels_lie_at_the_true_positions(scan):
    """Not mirrored about the centre of the group, and not at the positions of other channels."""
    training = training_of(scan, realspace_mae_weight=1.0)
    data = GroupData(training._plan, training._plan.batches(0))
    batch, tensors = data._batches[0], data[0]
    assert np.abs(batch.offsets_px).max() > 2
    position = scan.positions_px[batch.indices[0, 3]] - 31.5
    y, x = np.floor(position).astype(int)
    dy, dx = position - (y, x)
    corners = [
        scan.object_guess[y + i : y + i + 64, x + j : x + j + 64] for i in (0, 1) for j in (0, 1)
    ]
    shares = [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]
    expected = sum(share * corner for share, corner in zip(shares, corners, strict=True))

    np.testing.assert_allclose(tensors.truth[0, 3].numpy(), expected, atol=1e-5)


def test_training_by_physics_lowers_both_losses(scan):
    result = fit(scan, epochs=4)

    assert result.history[-1].loss < 0.8 * result.history[0].loss
    assert result.history[-1].validation_loss < result.history[0].validation_loss


def test_supervised_training_learns_the_known_object(scan):
    result = fit(scan, epochs=6, model_type='supervised')
    flat = fit(scan, epochs=1, model_type='supervised', learning_rate=1e-9)

    assert result.history[-1].validation_loss < 0.8 * flat.history[-1].validation_loss


def test_supervised_training_needs_a_known_object(scan):
    with pytest.raises(TrainingError, match='no known object'):
        fit(replace(scan, object_guess=None), model_type='supervised')


@pytest.mark.parametrize('wanted', [True, False])
def test_the_probe_moves_if_and_only_if_it_is_trained(scan, wanted):
    before = Calibration.of([scan], MODEL).probe
    result = fit(scan, probe_trainable=wanted)
    after = result.model.calibration.probe

    assert after.dtype == np.complex64
    assert result.model.calibration.probe_trained == wanted
    if not wanted:
        np.testing.assert_array_equal(after, before)
        assert not any('probe' in name for name in result.optimizer)
        return
    for mode, old in zip(after, before, strict=True):
        assert np.linalg.norm(mode - old) > 1e-3 * np.linalg.norm(old)
    # The gauge stays: what changes is the shape.
    assert np.sum(np.abs(after) ** 2) == pytest.approx(np.sum(np.abs(before) ** 2), rel=1e-5)
    assert result.optimizer['exp_avg/probe'].shape == (*before.shape, 2)


@pytest.mark.parametrize('wanted', [True, False])
def test_the_intensity_scale_moves_if_and_only_if_it_is_trained(scan, wanted):
    result = fit(scan, intensity_scale_trainable=wanted)
    scale = result.model.export_weights()['log_intensity_scale']

    assert (scale != np.log(np.float32(2))) == wanted
    assert abs(scale - np.log(2)) < 0.5
    assert ('exp_avg/log_intensity_scale' in result.optimizer) == wanted


def test_held_out_patterns_and_bad_pixels_teach_nothing(scan):
    held = GroupPlan([scan], MODEL, TRAINING).held_out[0]
    spoilt = scan.patterns.copy()
    # The same counts elsewhere: scales that come from all patterns stay.
    good = np.argwhere(scan.valid_pixels).T
    spoilt[held[:, None], *good] = spoilt[held[:, None], *good[:, ::-1]]
    spoilt[:, scan.bad_pixels] = 7
    settings = {
        # A probe that sweeps do not refine is not tilted to the mean pattern either.
        'sweeps': SweepConfig(refine_probe=False),
        # Held-out patterns say which epoch is the best: take the last one.
        'checkpoint_save_top_k': 0,
    }

    one, other = (fit(replace(scan, patterns=p), **settings) for p in (scan.patterns, spoilt))

    assert [r.loss for r in one.history] == [r.loss for r in other.history]
    assert_equal_weights(one, other)
    checks = [[record.validation_loss for record in each.history] for each in (one, other)]
    assert np.min(np.abs(np.subtract(*checks))) > 1e-3


def test_two_runs_are_bit_equal_and_seeds_differ(scan):
    one, same, other = fit(scan), fit(scan), fit(scan, seed=2)

    assert one.history == same.history
    assert_equal_weights(one, same)
    assert one.history != other.history


def test_workers_change_nothing(scan):
    one = fit(scan, epochs=1)
    other = fit(scan, epochs=1, num_workers=2, prefetch_factor=1, persistent_workers=True)

    assert_equal_weights(one, other)


def test_several_scans_of_unequal_dose_are_trained_together(scan):
    bright = simulate_scan(
        SimulationConfig(
            N=64, n_positions=20, object_kind='dead-leaves', probe_modes=2, photons=8e4, seed=6
        )
    )
    result = fit([scan, bright], gridsize=1, probe_trainable=True)

    assert result.history[-1].loss < result.history[0].loss
    mean = (scan.mean_counts() + bright.mean_counts()) / 2
    assert result.model.calibration.mean_counts == pytest.approx(mean)
    energy = np.sum(np.abs(result.model.calibration.probe) ** 2)
    before = np.sum(np.abs(Calibration.of([scan], MODEL).probe) ** 2)
    assert energy == pytest.approx(before, rel=1e-5)


def test_settings_of_the_optimiser_are_no_settings_of_training():
    assert not set(TrainingConfig.model_fields) & set(EXECUTION.course())
