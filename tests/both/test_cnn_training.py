"""The reference network learns what it should, from what it should, and nothing else."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin.calibration import Calibration, group_energy
from ptychodus_torch_plugin.config import SweepConfig, TrainingConfig
from ptychodus_torch_plugin.errors import TrainingError
from ptychodus_torch_plugin.group_plan import GroupPlan
from ptychodus_torch_plugin.physics import far_field, shape_exit_waves
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from ptychodus_torch_plugin.stitching import canvas_px, merge_group, probe_weight, read_group
from ptychodus_torch_plugin.sweeps import first_probe
from tests.parity.scenes import darkened

from .quick import (
    CNN,
    CNN_EXECUTION,
    CNN_TRAINING,
    assert_same_arrays,
    assert_same_run,
    same_weights,
)


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


def expected_terms(model, scan, batch):
    """Return each term of the loss, from the network's patches on in NumPy."""
    config, known = model.config, model.calibration
    patterns = scan.patterns[batch.indices] * scan.valid_pixels
    said = model.predict(patterns, batch.offsets_px)
    probe = first_probe(scan, config.sweeps)
    energy = group_energy(probe, scan.valid_pixels, config)
    probe = probe * np.sqrt(energy / np.sum(np.abs(probe) ** 2))
    weight = probe_weight(known.probe)
    side = canvas_px(64, np.abs(batch.offsets_px).max())
    margin = (side - 64) // 2
    seen, centers = [], []
    for patches, merged, offsets in zip(said.patches, said.merged, batch.offsets_px, strict=True):
        if config.object_big and len(offsets) > 1:
            canvas, _ = merge_group(patches, offsets, weight, side)
        else:
            canvas = np.pad(merged, margin)
        seen.append(read_group(canvas, offsets, 64))
        centers.append(canvas[margin : margin + 64, margin : margin + 64])
    seen = np.array(seen)
    waves = shape_exit_waves(
        probe * seen[:, :, None], config.gaussian_smoothing_sigma, masked=config.probe_mask
    )
    predicted = np.sum(np.abs(far_field(waves)) ** 2, axis=2)[batch.scored]
    if scan.background is not None:
        predicted += scan.background
    counts = scan.patterns[batch.indices][batch.scored]
    mean = scan.mean_counts() / scan.valid_pixels.sum()
    corners = np.round(scan.positions_px[batch.indices] - 31.5).astype(int)[batch.scored]
    truth = np.array([scan.object_guess[y : y + 64, x : x + 64] for y, x in corners])
    said = (said.patches if config.object_big else seen)[batch.scored]
    return {
        'nll_weight': oracle.poisson_loss(predicted, counts, scan.valid_pixels, mean),
        'mae_weight': oracle.amplitude_error(predicted, counts, scan.valid_pixels, mean),
        'realspace_mae_weight': oracle.object_error(said, truth, weight),
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
def test_every_term_is_that_of_the_oracle(inside, quick_cnn, on_whole_pixels, options):
    scan = darkened(on_whole_pixels) if options == {'gridsize': 1} else on_whole_pixels
    weights = {'nll_weight': 1.0, 'mae_weight': 0.5, 'realspace_mae_weight': 0.3, 'tv_weight': 0.2}
    model = quick_cnn.build([scan], **options)
    batch = GroupPlan([scan], model.config, CNN_TRAINING).validation_batches()[0]
    assert not batch.scored.all() or options == {'gridsize': 1}
    expected = expected_terms(model, scan, batch)

    def loss(**changes):
        training = quick_cnn.changed(changes).training.for_model(model.config)
        return inside.CnnLoss(model, [scan], training, CNN_EXECUTION)(batch)

    total = sum(weights[name] * expected[name] for name in weights)
    assert loss(**weights) == pytest.approx(total, rel=1e-4)
    for name, value in expected.items():
        alone = {other: float(other == name) for other in weights}
        if name in ('tv_weight', 'realspace_mae_weight'):
            alone['nll_weight'] = 1e-9  # a 'pinn' model has to look at its patterns
        assert loss(**alone) == pytest.approx(value, rel=1e-4), name


def test_gradients_are_differences_of_the_loss(inside, quick_cnn, scan):
    """Along the gradient of each variable, among them the probe and the intensity scale."""
    model = quick_cnn.build([scan])
    batch = GroupPlan([scan], model.config, CNN_TRAINING).batches(0)[0]
    trained = {'probe_trainable': True, 'intensity_scale_trainable': True}
    weights = {'mae_weight': 0.5, 'realspace_mae_weight': 0.3, 'tv_weight': 0.2}
    training = quick_cnn.changed(trained | weights).training.for_model(model.config)
    loss = inside.CnnLoss(model, [scan], training, CNN_EXECUTION)
    gradients = loss.gradients(batch)

    assert gradients.keys() == model.export_weights().keys() | {'probe'}
    # Dark pixels of the far field make the loss bend where the probe changes.
    lengths = {'probe': 3e-5, 'log_intensity_scale': 1e-3, 'encoder.1.conv2.weight': 1e-3}
    for name, length in lengths.items():
        size = np.linalg.norm(gradients[name])
        step = np.asarray(gradients[name] / size * length, np.float32)
        losses = []
        for change in (step, -2 * step):
            loss.move(name, change)
            losses.append(loss(batch))
        loss.move(name, step)
        assert (losses[0] - losses[1]) / (2 * length) == pytest.approx(size, rel=0.02), name


STEADY = {
    'learning_rate': 2e-4,  # large steps would amplify roundings
    'scheduler': 'constant',
    # A probe that sweeps do not refine is not tilted to the mean pattern either.
    'sweeps': SweepConfig(refine_probe=False),
    # Held-out patterns say which epoch is the best: take the last one.
    'checkpoint_save_top_k': 0,
}


@pytest.fixture(scope='module')
def steady(quick_cnn, scan):
    """A training of the weights alone."""
    return quick_cnn.fit(scan, **STEADY)


@pytest.fixture(scope='module')
def learnt(quick_cnn, scan):
    """A training by physics of all that can be trained, and the threads that made batches."""
    makers, counts = [], GroupPlan.counts

    def watched(plan, batch):
        makers.append(threading.current_thread())
        return counts(plan, batch)

    everything = {'probe_trainable': True, 'intensity_scale_trainable': True}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(GroupPlan, 'counts', watched)
        return quick_cnn.fit(scan, epochs=4, **everything), makers


def test_training_by_physics_lowers_both_losses(learnt):
    history = learnt[0].history

    assert history[-1].loss < 0.8 * history[0].loss
    assert history[-1].validation_loss < history[0].validation_loss


@pytest.mark.slow_in('tensorflow')
def test_supervised_training_learns_the_known_object(quick_cnn, scan):
    history = quick_cnn.fit(scan, epochs=6, model_type='supervised').history

    # The rate begins low: the first epoch leaves nearly all to be learnt.
    assert history[-1].validation_loss < 0.8 * history[0].validation_loss


def test_supervised_training_needs_a_known_object(quick_cnn, scan):
    with pytest.raises(TrainingError, match='no known object'):
        quick_cnn.fit(replace(scan, object_guess=None), model_type='supervised')


def test_the_probe_moves_where_it_is_trained(learnt, scan):
    before, (result, _) = Calibration.of([scan], CNN).probe, learnt
    after = result.model.calibration.probe

    assert after.dtype == np.complex64
    assert result.model.calibration.probe_trained
    for mode, old in zip(after, before, strict=True):
        assert np.linalg.norm(mode - old) > 1e-3 * np.linalg.norm(old)
    # The gauge stays: what changes is the shape.
    assert np.sum(np.abs(after) ** 2) == pytest.approx(np.sum(np.abs(before) ** 2), rel=1e-5)
    assert result.optimizer['exp_avg/probe'].shape == (*before.shape, 2)


def test_the_intensity_scale_moves_where_it_is_trained(learnt):
    result, _ = learnt
    scale = result.model.export_weights()['log_intensity_scale']

    assert scale != np.log(np.float32(2))
    assert abs(scale - np.log(2)) < 0.5
    assert 'exp_avg/log_intensity_scale' in result.optimizer


def test_what_is_not_trained_stays(quick_cnn, steady, scan):
    config = quick_cnn.changed(STEADY).model
    known = steady.model.calibration

    np.testing.assert_array_equal(known.probe, Calibration.of([scan], config).probe)
    assert not known.probe_trained
    assert steady.model.export_weights()['log_intensity_scale'] == np.log(np.float32(2))
    assert not [name for name in steady.optimizer if 'probe' in name or 'intensity' in name]


def test_held_out_patterns_and_bad_pixels_teach_nothing(quick_cnn, steady, scan):
    held = GroupPlan([scan], CNN, CNN_TRAINING).held_out[0]
    spoilt = scan.patterns.copy()
    # The same counts elsewhere: scales that come from all patterns stay.
    good = np.argwhere(scan.valid_pixels).T
    spoilt[held[:, None], *good] = spoilt[held[:, None], *good[:, ::-1]]
    spoilt[:, scan.bad_pixels] = 7
    other = quick_cnn.fit(replace(scan, patterns=spoilt), **STEADY)

    assert [r.loss for r in steady.history] == [r.loss for r in other.history]
    assert_same_arrays(steady.model.export_weights(), other.model.export_weights())
    checks = [[record.validation_loss for record in each.history] for each in (steady, other)]
    assert np.min(np.abs(np.subtract(*checks))) > 1e-3


@pytest.mark.slow
def test_two_runs_are_bit_equal(quick_cnn, scan):
    one, same = (quick_cnn.fit(scan, epochs=2, num_threads=2) for _ in range(2))

    assert_same_run(one, same)


@pytest.mark.slow
def test_seeds_differ(quick_cnn, scan):
    one, other = (quick_cnn.fit(scan, epochs=1, seed=seed) for seed in (1, 2))

    assert one.history != other.history
    assert not same_weights(one, other)


@pytest.mark.slow
def test_workers_change_nothing(quick_cnn, scan):
    one = quick_cnn.fit(scan, epochs=2)
    workers = {'num_workers': 2, 'prefetch_factor': 1, 'persistent_workers': True}
    other = quick_cnn.fit(scan, epochs=2, pin_memory=True, **workers)

    assert_same_run(one, other)


@pytest.mark.slow
def test_a_supervised_loss_leaves_the_probe_alone(quick_cnn, scan):
    result = quick_cnn.fit(scan, epochs=1, model_type='supervised', probe_trainable=True)

    before = Calibration.of([scan], CNN).probe
    np.testing.assert_allclose(result.model.calibration.probe, before, atol=1e-6 * before.max())


@pytest.mark.slow_in('tensorflow')
@pytest.mark.parametrize(
    'trained',
    [
        pytest.param(True, id='probe trained'),
        pytest.param(False, id='probe kept', marks=pytest.mark.slow),
    ],
)
def test_several_scans_of_unequal_dose_and_modes_are_trained_together(quick_cnn, scan, trained):
    """The first scan's probe, if it is trained, serves all; else each has its own."""
    bright, one_mode = (
        simulate_scan(
            SimulationConfig(
                N=64,
                n_positions=20,
                object_kind='dead-leaves',
                probe_modes=modes,
                photons=photons,
                seed=6,
            )
        )
        for modes, photons in ((3, 8e4), (1, 4e4))
    )
    scans = [scan, bright, one_mode]
    result = quick_cnn.fit(scans, epochs=2, gridsize=1, probe_trainable=trained)

    assert result.history[-1].loss < result.history[0].loss
    mean = np.mean([each.mean_counts() for each in scans])
    assert result.model.calibration.mean_counts == pytest.approx(mean)
    before, after = Calibration.of([scan], CNN).probe, result.model.calibration.probe
    assert after.shape == before.shape == (2, 64, 64)
    assert np.sum(np.abs(after) ** 2) == pytest.approx(np.sum(np.abs(before) ** 2), rel=1e-5)
    assert np.array_equal(after, before) != trained


def test_the_order_of_scans_is_that_of_their_probes(inside, quick_cnn, scan):
    """A scan with the probe of another one would be predicted wrongly."""
    other = simulate_scan(
        SimulationConfig(N=64, n_positions=30, object_kind='dead-leaves', photons=2e4, seed=5)
    )
    model = quick_cnn.build([scan, other])
    settings = quick_cnn.changed({}).training.for_model(model.config)
    losses = []
    for scans in ([scan, other], [other, scan]):
        batches = GroupPlan(scans, model.config, CNN_TRAINING).validation_batches()
        loss = inside.CnnLoss(model, scans, settings, CNN_EXECUTION)
        losses.append({len(scans[b.scan].probe): loss(b) for b in batches})

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][1] != pytest.approx(losses[0][2], rel=1e-3)


@pytest.mark.slow_in('tensorflow')
def test_reduced_precision_of_the_network(quick_cnn, scan):
    slow = {'learning_rate': 2e-4, 'scheduler': 'constant'}  # large steps would amplify roundings
    short, full = (
        quick_cnn.fit(scan, precision=each, **slow) for each in ('bf16-mixed', '32-true')
    )

    for one, other in zip(short.history, full.history, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=0.02)
    name = 'phase.center.weight'
    assert not np.array_equal(*(run.model.export_weights()[name] for run in (short, full)))
    arrays = [*short.model.export_weights().values(), *short.optimizer.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_settings_of_the_optimiser_are_no_settings_of_training():
    assert not set(TrainingConfig.model_fields) & set(CNN_EXECUTION.course())


def test_batches_are_made_while_others_are_in_use(learnt):
    _, makers = learnt

    assert makers
    assert threading.main_thread() not in makers
    assert not any(thread.is_alive() for thread in makers)
