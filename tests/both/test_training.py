"""Training: what is learnt, from which patterns, with which seed."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.errors import TrainingError
from ptychodus_torch_plugin.object_targets import object_target, target_region
from ptychodus_torch_plugin.training_plan import LOOKS, TURNS, TrainingPlan, held_out_indices

from .quick import MODEL, STEPS, TRAINING, assert_same_arrays, assert_same_run, same_weights

# Learning


def test_the_network_learns_what_noise_is(quick, simulated):
    """Held-out patterns are predicted better than by sweeps alone, and training's loss falls."""
    scan = simulated(photons=1e3, n_positions=64)
    result = quick.fit(scan, epochs=10, learning_rate=1e-2)
    sweeps_alone = quick.fit(scan, epochs=1, learning_rate=1e-12).history[0].validation_loss
    losses = [record.loss for record in result.history]
    assert [record.epoch for record in result.history] == list(range(1, 11))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    # What the truth itself would cost: no network can do better than this.
    held = held_out_indices(scan, TRAINING.held_out_fraction, TRAINING.seed)
    truth = scan.object_guess.astype(complex), scan.probe.astype(complex)
    expected = oracle.predict_counts(*truth, *scan.frame.corners(scan.positions_px[held], 32))
    mean_count = scan.mean_counts() / scan.valid_pixels.sum()
    floor = oracle.poisson_loss(expected, scan.patterns[held], scan.valid_pixels, mean_count)
    best = min(record.validation_loss for record in result.history)
    assert floor < best < floor + 0.93 * (sweeps_alone - floor)


def with_refinement(*names):
    """Return the model with more that sweeps refine."""
    sweeps = MODEL.sweeps.model_copy(update=dict.fromkeys(names, True))
    return MODEL.model_copy(update={'sweeps': sweeps})


def oracle_loss_of_held_out(scan, held, config):
    """Return the loss of held-out patterns after sweeps over all others, by the oracle."""
    probe = plain.first_probe(scan, config.sweeps).astype(complex)
    state = plain.SweepState(np.ones(scan.frame.shape, dtype=complex), probe)
    pool = np.setdiff1d(np.arange(scan.n_patterns), held)
    sweeps = plain.schedule(config.sweeps, config.sweeps_before)
    plain.sweep_oracle(scan, state, config.sweeps, sweeps, pool=pool, seed=TRAINING.seed)
    where = scan.frame.corners(scan.positions_px[held], scan.n_px)
    predicted = oracle.predict_counts(state.object_, state.probe, *where)
    if state.exposures is not None:
        predicted *= state.exposures.intensities[held, None, None]
    if scan.background is not None:
        predicted += scan.background
    mean_count = scan.mean_counts() / scan.valid_pixels.sum()
    return oracle.poisson_loss(predicted, scan.patterns[held], scan.valid_pixels, mean_count)


@pytest.mark.parametrize(
    ('objective', 'beam', 'refined'),
    [
        ('thinned', {}, ()),
        ('thinned-objects', {}, ()),
        ('poisson', {}, ()),
        ('thinned', {'background': 5.0}, ()),
        ('thinned', {'intensity_variation': 0.3}, ('refine_intensity', 'refine_positions')),
    ],
)
def test_the_validation_loss_is_the_likelihood_of_unseen_patterns(
    quick, simulated, objective, beam, refined
):
    """An untrained network changes nothing: what is left is the oracle's own figure."""
    scan = simulated(photons=1e4, n_positions=144, **beam)
    config = with_refinement(*refined)
    changes = {'objective': objective, 'held_out_fraction': 0.5, 'patterns_per_step': 100}
    changes['sweeps'] = config.sweeps
    result = quick.fit(scan, epochs=1, learning_rate=1e-12, **changes)
    held = held_out_indices(scan, 0.5, TRAINING.seed)
    assert len(held) == 72
    expected = oracle_loss_of_held_out(scan, held, config)
    assert result.history[0].validation_loss == pytest.approx(expected, rel=5e-3)


def test_the_thinned_loss_is_that_of_the_other_half(inside, quick, simulated, monkeypatch):
    """Scored counts are the complement of those that sweeps saw, on the scale of their share."""
    scan = simulated(photons=1e4, background=4.0)
    scored = inside.spy(monkeypatch)
    quick.fit(scan, epochs=1, thinning_fraction=0.3, learning_rate=1e-12)
    plan = TrainingPlan([scan], TRAINING.model_copy(update={'thinning_fraction': 0.3}))
    training = [call for call in scored if call.training]
    assert training
    for call in training:
        seen = plan.seen_counts(plan.views[0], call.patterns)
        np.testing.assert_array_equal(call.counts + seen, scan.patterns[call.patterns])
        assert call.scale == pytest.approx(7 / 3)
        # The probe explains what was seen: 30 % of the photons that the beam made.
        energy = np.sum(np.abs(call.probe) ** 2)
        assert energy == pytest.approx(0.3 * scan.mean_signal(), rel=1e-3)
        np.testing.assert_allclose(call.background, np.full((32, 32), 0.7 * 4.0), rtol=1e-6)
        assert call.mean_count == pytest.approx(0.7 * scan.mean_counts() / 32**2)


def turned(canvas, turn):
    rotated = np.rot90(canvas, turn % 4)
    return np.flip(rotated, 0) if turn >= 4 else rotated


def test_a_canvas_is_turned_and_mirrored_as_numpy_would(inside):
    real = np.arange(35, dtype=np.float32).reshape(5, 7)
    for canvas in (real, (real + 1j * np.sqrt(real)).astype(np.complex64)):
        seen = [inside.turned(canvas, turn) for turn in range(TURNS)]
        for turn, found in enumerate(seen):
            np.testing.assert_array_equal(found, turned(canvas, turn))
        assert len({found.tobytes() + bytes(found.shape) for found in seen}) == TURNS == 8


def test_the_distance_of_objects_is_a_weighted_mean(inside):
    rng = np.random.default_rng(6)
    object_, target = rng.normal(size=(2, 9, 28)).astype(np.float32).view(np.complex64)
    weight = rng.uniform(size=(9, 14)).astype(np.float32)
    expected = np.mean(weight * np.abs(object_ - target) ** 2)
    assert inside.distance(object_, target, weight) == pytest.approx(expected, rel=1e-5)


def swept_by_oracle(scan, plan, view, config):
    """Return object and photons per pixel that the counts of a view make."""
    probe = math.sqrt(view.share) * plain.first_probe(scan, config.sweeps).astype(complex)
    state = plain.SweepState(np.ones(scan.frame.shape, dtype=complex), probe)
    seen = replace(scan, patterns=plan.seen_counts(view), background=view.share * scan.background)
    sweeps, pool = plain.schedule(config.sweeps, config.sweeps_before), plan.pools[view.scan]
    plain.sweep_oracle(seen, state, config.sweeps, sweeps, pool=pool, seed=TRAINING.seed)
    corners, remainders = scan.frame.corners(scan.positions_px[pool], scan.n_px)
    beams = np.abs(oracle.shift_probe(state.probe, remainders)) ** 2
    photons = np.zeros(scan.frame.shape)
    oracle.scatter_patches(beams.sum(axis=1), corners, photons)
    return state.object_, photons


@pytest.mark.parametrize('least', [None, 0.3], ids=['equal parts', 'unequal parts'])
def test_objects_are_compared_with_those_of_the_other_photons(
    inside, quick, simulated, monkeypatch, least
):
    """An untrained network changes nothing: both objects are the oracle's, turned alike."""
    scan = simulated(photons=1e4, n_positions=36, background=2.0)
    compared = inside.spy_on_objects(monkeypatch)
    changes = {'objective': 'thinned-objects', 'least_fraction': least, 'window_px': 48}
    events = []
    options = {'on_event': events.append}
    quick.fit(scan, epochs=1, learning_rate=1e-12, options=options, **changes)
    plan = TrainingPlan([scan], quick.changed(changes).training)
    prepared = [event for event in events if event.phase == 'prepare']
    # Two objects, and that of all counts for validation.
    assert len(prepared) == 3 * MODEL.sweeps_before == prepared[-1].total
    assert (plan.views[0].fraction == 0.5) == (least is None)
    swept = {view: swept_by_oracle(scan, plan, view, MODEL) for view in plan.swept_views}
    steps = plan.steps(0)
    assert len(compared) == len(steps) >= LOOKS
    assert len({step.turn for step in steps}) > 2
    for call, step in zip(compared, steps, strict=True):
        view = plan.views[step.view]
        object_, photons = swept[view]
        other, _ = swept[view.other]
        single = (a.astype(d) for a, d in ((object_, 'c8'), (photons, 'f4'), (other, 'c8')))
        target = object_target(*single, target_region(scan), view.share)
        y, x = step.window
        for found, canvas, phase_rad in (
            (call.object_, object_, step.phase_rad),
            (call.photons, photons, 0),
            (call.target, target.object_, step.phase_rad),
            (call.weight, target.weight, 0),
        ):
            expected = turned(canvas[y : y + 48, x : x + 48], step.turn) * np.exp(1j * phase_rad)
            error = np.sqrt(np.mean(np.abs(found - expected) ** 2))
            assert error < 2e-3 * np.sqrt(np.mean(np.abs(expected) ** 2))
        expected = np.mean(call.weight * np.abs(call.object_ - call.target) ** 2)
        assert call.loss == pytest.approx(expected, rel=1e-5)


def test_the_recorded_loss_is_the_mean_over_patterns(inside, quick, noisy, monkeypatch):
    scored = inside.spy(monkeypatch)
    result = quick.fit(noisy, epochs=1, window_px=40)
    sizes = [len(call.patterns) for call in scored if call.training]
    losses = [call.loss for call in scored if call.training]
    assert len(set(sizes)) > 1
    expected = np.average(losses, weights=sizes)
    assert result.history[0].loss == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(np.mean(losses), rel=1e-4)


def test_every_epoch_follows_the_plan(inside, quick, noisy, monkeypatch):
    scored = inside.spy(monkeypatch)
    quick.fit(noisy)
    plan = TrainingPlan([noisy], TRAINING)
    planned = [step for epoch in range(3) for step in plan.steps(epoch)]
    trained = [call for call in scored if call.training]
    assert len(trained) == len(planned) == 3 * STEPS
    for call, step in zip(trained, planned, strict=True):
        np.testing.assert_array_equal(call.patterns, step.patterns)
        counts = plan.scored_counts(plan.views[step.view], step.patterns)
        np.testing.assert_array_equal(call.counts, counts)


def biases(quick, noisy, n_steps, **changes):
    """Train and return the head's biases after each of the first steps."""
    model = quick.build([noisy])
    seen = [model.export_weights()['unet.head.bias']]

    def on_event(event):
        if event.phase == 'train' and event.done <= n_steps:
            seen.append(model.export_weights()['unet.head.bias'])

    result = quick.fit(noisy, built=model, options={'on_event': on_event}, **changes)
    return np.diff(seen, axis=0), result


def test_the_learning_rate_is_the_length_of_the_first_step(quick, noisy):
    """Adam's first step has the length of its rate whatever the gradient; one-cycle starts low."""
    constant, _ = biases(quick, noisy, 1, epochs=1, scheduler='constant', learning_rate=3e-3)
    np.testing.assert_allclose(np.abs(constant[0]), 3e-3, rtol=1e-3)
    cycle, _ = biases(quick, noisy, 1, epochs=1, scheduler='one-cycle', learning_rate=3e-3)
    np.testing.assert_allclose(np.abs(cycle[0]), 3e-3 / 25, rtol=1e-3)


def test_gradients_are_clipped_on_request(quick, noisy):
    """Moments are averages of gradients, and so no longer than the longest of them."""
    norms = []
    for clip in (None, 1e-4):
        _, result = biases(quick, noisy, 0, epochs=1, gradient_clip_val=clip)
        moments = [m for name, m in result.optimizer.items() if name.startswith('exp_avg/')]
        norms.append(np.sqrt(sum(np.sum(m**2) for m in moments)))
    assert norms[0] > 1e-3
    assert 0 < norms[1] <= 1e-4


# Held-out patterns


def test_held_out_patterns_are_scored_for_validation_alone(inside, quick, noisy, held, monkeypatch):
    scored = inside.spy(monkeypatch)
    quick.fit(noisy, epochs=2)
    trained = np.concatenate([call.patterns for call in scored if call.training])
    validated = np.concatenate([call.patterns for call in scored if not call.training])
    assert len(held) == 10
    assert not set(trained.tolist()) & set(held.tolist())
    assert Counter(validated.tolist()) == dict.fromkeys(held.tolist(), 2)


@pytest.mark.parametrize('objective', ['thinned', 'thinned-objects'])
def test_what_held_out_patterns_show_changes_no_weight(quick, noisy, held, whole, objective):
    """Exchange them among themselves: not even the mean of all patterns is another one."""
    patterns = noisy.patterns.copy()
    patterns[held] = patterns[np.roll(held, 1)]
    changes = {'objective': objective}
    first = whole.result if objective == TRAINING.objective else quick.fit(noisy, **changes)
    other = quick.fit(replace(noisy, patterns=patterns), **changes)
    for record, expected in zip(other.history, first.history, strict=True):
        assert record.loss == expected.loss
        assert record.validation_loss != expected.validation_loss
    for name, moment in first.optimizer.items():
        np.testing.assert_array_equal(other.optimizer[name], moment)


def test_nothing_needs_to_be_held_out(inside, quick, noisy, monkeypatch):
    scored = inside.spy(monkeypatch)
    result = quick.fit(noisy, epochs=2, held_out_fraction=0.0)
    assert [record.validation_loss for record in result.history] == [None, None]
    losses = [record.loss for record in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert all(call.training for call in scored)


# Determinism


def test_the_same_seed_gives_the_same_bits(quick, noisy, whole):
    again = quick.fit(noisy)
    assert_same_run(again, whole.result)


def test_another_seed_gives_another_model(quick, noisy, whole):
    other = quick.fit(noisy, seed=2)
    assert other.history[0].loss != whole.result.history[0].loss
    assert not same_weights(other, whole.result)


def test_fresh_weights_depend_on_the_seed_alone(quick):
    one, third = (quick.build(seed=seed).export_weights() for seed in (1, 2))
    np.random.seed(77)  # noqa: NPY002 - somebody else's program may do so
    assert_same_arrays(quick.build(seed=1).export_weights(), one)
    assert all((one[name] != third[name]).any() for name in one if 'head' not in name)


# Objectives, architectures, scans


@pytest.mark.parametrize(
    'changes',
    [
        {'objective': 'poisson'},
        {'thinnings': 2, 'thinning_fraction': 0.7},
        {'objective': 'thinned-objects', 'thinnings': 2, 'least_fraction': 0.1},
        {'window_px': 32, 'patterns_per_step': 5},
        {'window_px': None, 'gradient_clip_val': None, 'scheduler': 'constant'},
    ],
    ids=['poisson', 'unequal parts', 'objects', 'smallest window', 'whole canvas'],
)
def test_other_settings_train_as_well(quick, noisy, changes):
    result = quick.fit(noisy, epochs=2, **changes)
    assert len(result.history) == 2
    assert all(math.isfinite(record.loss) for record in result.history)
    fresh = quick.build().export_weights()
    assert all(
        (array != fresh[name]).any() for name, array in result.model.export_weights().items()
    )


def test_reduced_precision_of_the_network(quick, noisy, whole):
    result = quick.fit(noisy, precision='bf16-mixed')
    for record, full in zip(result.history, whole.result.history, strict=True):
        assert record.loss == pytest.approx(full.loss, rel=0.02)
    weights, precise = (run.model.export_weights() for run in (result, whole.result))
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    name = 'unet.head.weight'
    assert not np.array_equal(weights[name], precise[name])
    np.testing.assert_allclose(weights[name], precise[name], atol=0.1 * np.abs(precise[name]).max())


def test_thinning_needs_whole_counts(quick, noisy):
    amplitudes = replace(noisy, patterns=np.sqrt(noisy.patterns), name='roots')
    with pytest.raises(TrainingError, match='roots: patterns are not whole counts'):
        quick.fit(amplitudes)
    result = quick.fit(amplitudes, objective='poisson', epochs=1)
    assert math.isfinite(result.history[0].loss)


def test_sweeps_alone_have_nothing_to_train(quick, noisy):
    events = []
    result = quick.fit(noisy, architecture='none', options={'on_event': events.append})
    assert (list(result.history), result.best_epoch, result.optimizer) == ([], None, None)
    assert result.model.export_weights() == {}
    assert events == []


def test_several_scans_of_unequal_canvases(inside, quick, noisy, simulated, lopsided, monkeypatch):
    scans = [noisy, lopsided(32, 3, whole=True), simulated(n_positions=16, seed=8)]
    assert len({s.frame.shape for s in scans}) == 3
    scored = inside.spy(monkeypatch)
    result = quick.fit(scans, epochs=2, held_out_fraction=0.2)
    assert len(result.history) == 2
    shapes = {call.canvas for call in scored}
    assert shapes == {s.frame.shape for s in scans}
    validated = [len(call.patterns) for call in scored if not call.training]
    assert validated == [10, 6, 3] * 2
    # The validation loss is the mean over all held-out patterns.
    losses = [call.loss for call in scored if not call.training][:3]
    expected = np.average(losses, weights=[10, 6, 3])
    assert result.history[0].validation_loss == pytest.approx(expected, rel=1e-5)


def test_two_unequal_scans_are_two_scans(quick, noisy, simulated):
    other = simulated(photons=3e3, seed=8)
    one, both = quick.fit(noisy, epochs=1), quick.fit([noisy, other], epochs=1)
    assert one.history[0].loss != both.history[0].loss
