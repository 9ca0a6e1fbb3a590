"""Which stages a reconstruction has, over which patterns, and what it reports: no framework."""

import logging

import numpy as np
import pytest

from ptychodus_torch_plugin.backends.protocol import ignore_event, never_stop
from ptychodus_torch_plugin.backends.stages import reconstruct
from ptychodus_torch_plugin.calibration import Calibration, scan_probe
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.sweeps import schedule, settling_schedule
from ptychodus_torch_plugin.training_plan import held_out_indices
from tests.parity.scenes import lopsided_scan

UNROLLED = ModelConfig(N=32, sweeps_before=4, sweeps_after=2)
NONE = ModelConfig(N=32, architecture='none', sweeps_before=4)
CNN = ModelConfig(architecture='cnn', gridsize=2, n_filters_scale=1)
INFERENCE = InferenceConfig(held_out_fraction=0.2, seed=7)


class WrittenDown:
    """An engine whose states are lists of what was done."""

    def __init__(self, scan, others_misfit=1.0):
        self.scan, self.batches, self.scored = scan, [], []
        self.others_misfit, self.fitted = others_misfit, []

    def start(self, probe):
        self.probe = probe
        return ['start']

    def placed(self, object_, state):
        self.object_ = object_
        return [*state, 'placed']

    def swept(self, state, pool, sweeps, seed, on_sweep):
        for _ in sweeps:
            on_sweep()
        return [*state, ('swept', tuple(pool), tuple(sweeps), seed)]

    def corrected(self, state, pool, noise_excess):
        return [*state, ('corrected', tuple(pool), noise_excess)]

    def patches(self, patterns, offsets_px):
        self.batches.append(patterns)
        return np.full(patterns.shape, 2j, np.complex64)

    def photons(self, state, pool):
        return np.full(self.scan.frame.shape, len(pool), np.float32)

    def r_factor(self, state, chosen):
        self.scored.append((state, tuple(chosen)))
        return 1 / len(self.scored)

    def misfits(self, state, chosen):
        self.fitted.append((state, tuple(chosen)))
        inside = set(chosen) <= set(state[-1][1])
        found = np.full(len(chosen), 0.5 if inside else self.others_misfit)
        found[:2] = 1e6, np.nan  # frames that are no measure of the others
        return found

    def export(self, state):
        return np.full(self.scan.frame.shape, len(state), np.complex64), 1j * self.probe

    def exposures(self, state):
        return None


@pytest.fixture(scope='module')
def scan():
    return lopsided_scan(32, 3, whole=False)


@pytest.fixture(scope='module')
def wide():
    """30 patterns of 64 px whose bad pixels hold large numbers."""
    return lopsided_scan(64, 1, whole=False)


def run(scan, config, inference=INFERENCE, *, counts=1.0, others_misfit=1.0, **options):
    """Reconstruct a scan whose model was trained at `counts` times its mean counts.

    Held-out patterns have the misfit `others_misfit`, others 0.5.
    """
    calibration = Calibration(scan.probe, counts * scan.mean_counts())
    engine = WrittenDown(scan, others_misfit)
    options = {'on_event': ignore_event, 'should_stop': never_stop} | options
    execution = ExecutionConfig(inference_batch_size=options.pop('batch_size', None))
    arguments = engine, config, calibration, scan, inference, execution
    return engine, reconstruct(*arguments, **options), calibration


def test_both_runs_pass_all_stages_over_their_own_patterns(scan):
    engine, result, calibration = run(scan, UNROLLED)
    held = held_out_indices(scan, 0.2, seed=7)
    everything = tuple(range(30))
    seen = tuple(i for i in everything if i not in held)
    assert len(held) == 6
    expected, start, plan = [], ['start'], tuple(schedule(UNROLLED.sweeps, 4))
    for pool in (seen, everything):
        states = [start]
        for done in (
            ('swept', pool, plan, 7),
            ('corrected', pool, 2.0),
            ('swept', pool, tuple(settling_schedule(2)), 8),
        ):
            states.append([*states[-1], done])
        # R of the first run is over patterns that it never saw, that of the second over all.
        scored = everything if pool == everything else tuple(held)
        expected += [(state, scored) for state in states[1:]]
        # The second run goes on from the sweeps of the first one.
        start, plan = states[1], plan[-2:]
    assert engine.scored == expected
    names = ['4 sweeps', '4 sweeps + network', '4 sweeps + network + 2 sweeps']
    assert dict(result.r_held_out) == dict(zip(names, (1, 1 / 2, 1 / 3), strict=True))
    assert dict(result.r_fitted) == dict(zip(names, (1 / 4, 1 / 5, 1 / 6), strict=True))
    assert [object_[0, 0] for object_ in result.stages.values()] == [3, 4, 5]
    assert result.object_[0, 0] == 5
    assert result.occupancy[0, 0] == 30
    np.testing.assert_array_equal(result.held_out, held)
    np.testing.assert_array_equal(engine.probe, scan_probe(scan, UNROLLED, calibration))


def test_few_patterns_are_swept_more_often(scan):
    config = ModelConfig(N=32, architecture='none', sweeps_before=None)
    events = []
    engine, result, _ = run(scan, config, on_event=events.append)
    assert result.stage == '80 sweeps'
    assert [[len(done[2]) for done in state[1:]] for state, _ in engine.scored] == [[80], [80, 40]]
    assert len(events) == events[0].total == 80 + 40


@pytest.mark.parametrize(
    ('others_misfit', 'positions', 'held_out', 'excess'),
    [(2.0, False, 0.2, 4.0), (0.4, False, 0.2, 1.0), (2.0, True, 0.2, 1.0), (2.0, False, 0.0, 1.0)],
)
def test_the_network_is_told_of_noise_that_held_out_patterns_show(
    scan, others_misfit, positions, held_out, excess
):
    sweeps = UNROLLED.sweeps.model_copy(update={'refine_positions': positions})
    config = UNROLLED.model_copy(update={'sweeps': sweeps})
    inference = INFERENCE.model_copy(update={'held_out_fraction': held_out})
    engine, result, _ = run(scan, config, inference, others_misfit=others_misfit)
    assert result.noise_excess == excess
    told = {state[-1][-1] for state, _ in engine.scored if state[-1][0] == 'corrected'}
    assert told == {excess}
    assert bool(engine.fitted) == (held_out > 0 and not positions)
    # Misfits are those of sweeps that never saw the held-out patterns.
    assert all(state[-1][0] == 'swept' and len(state[-1][1]) == 24 for state, _ in engine.fitted)


@pytest.mark.parametrize(
    ('config', 'refine', 'names'),
    [
        (UNROLLED, 0, ['4 sweeps', '4 sweeps + network']),
        (NONE, None, ['4 sweeps']),
        (NONE, 1, ['4 sweeps', '4 sweeps + 1 sweep']),
        (CNN, None, ['network']),
        (CNN, 2, ['network', 'network + 2 sweeps']),
    ],
)
def test_stages_are_those_of_the_architecture(scan, wide, config, refine, names):
    inference = InferenceConfig(refine=refine, held_out_fraction=0.0)
    _, result, _ = run(wide if config is CNN else scan, config, inference)
    assert list(result.stages) == list(result.r_fitted) == names
    assert result.stage == names[-1]
    assert result.r_held_out == {}


def test_the_reference_network_sees_groups_without_bad_pixels(wide):
    engine, _, _ = run(wide, CNN, InferenceConfig(held_out_fraction=0.0), batch_size=7)
    assert [len(batch) for batch in engine.batches] == [7, 7, 7, 7, 2]
    for batch in engine.batches:
        assert batch.shape[1:] == (4, 64, 64)
        assert not batch[:, :, wide.bad_pixels].any()
    # Patches that are the same everywhere make an object that is so, wherever one lies.
    values = np.unique(np.round(engine.object_[np.abs(engine.object_) > 0], 5))
    assert values.tolist() == [2j]
    clean = wide.patterns * wide.valid_pixels
    seen = np.concatenate(engine.batches).reshape(-1, 64, 64)
    assert {int(np.argmin(np.abs(clean - each).sum((1, 2)))) for each in seen} == set(range(30))


@pytest.mark.parametrize(('config', 'steps'), [(UNROLLED, 4 + 2 + 2 + 2), (CNN, 5 + 4)])
def test_every_sweep_and_every_batch_is_reported(scan, wide, config, steps):
    events = []
    scan = wide if config is CNN else scan
    run(scan, config, batch_size=7, on_event=events.append)
    assert [event.done for event in events] == list(range(1, steps + 1))
    assert {(event.total, event.phase) for event in events} == {(steps, 'reconstruct')}
    assert events[-1].remaining_s == 0


def test_a_stop_interrupts_between_two_of_them(scan):
    events = []
    with pytest.raises(InterruptedError, match='stopped on request'):
        run(scan, UNROLLED, on_event=events.append, should_stop=lambda: len(events) >= 3)
    assert len(events) == 3


@pytest.mark.parametrize(
    ('config', 'counts', 'warned'),
    [
        (CNN, 1.9, False),
        (CNN, 2.1, True),
        (CNN, 0.4, True),
        (CNN.model_copy(update={'input_scaling': 'scan'}), 0.4, False),
        (UNROLLED, 0.4, False),
    ],
)
def test_amplitudes_that_a_network_never_saw_are_warned_of(
    scan, wide, caplog, config, counts, warned
):
    scan = scan if config is UNROLLED else wide
    with caplog.at_level(logging.WARNING):
        run(scan, config, InferenceConfig(held_out_fraction=0.0), counts=counts)
    assert [record.levelname for record in caplog.records] == ['WARNING'] * warned
