"""Objects of two halves of a scan, compared in one call, and R as the backend finds it."""

import logging

import pytest

from ptychodus_torch_plugin import InferenceConfig, ModelConfig, reconstruct, train
from ptychodus_torch_plugin.evaluation import evaluate, evaluate_halves, halves

from .quick import EXECUTION, MODEL

SWEEPS = ModelConfig(N=32, architecture='none', sweeps_before=12, sweeps=MODEL.sweeps)


@pytest.fixture(scope='module')
def model(backend, noisy):
    return train([noisy], SWEEPS, execution=EXECUTION, backend=backend)


def test_r_is_that_of_the_backend(model, noisy):
    inference = InferenceConfig(held_out_fraction=0)
    result = reconstruct(model, noisy, inference, EXECUTION)
    r = evaluate(result, scan=noisy).r
    assert r.r_all == pytest.approx(result.r_fitted[result.stage], rel=2e-3)


def test_two_halves_in_one_call(model, simulated):
    settings = InferenceConfig(held_out_fraction=0.3, seed=4)
    dim, bright = (
        simulated(photons=photons, n_positions=144, step_px=2.7) for photons in (300, 1e5)
    )
    found = evaluate_halves(model, dim, settings, EXECUTION)
    assert (found.compared_with, found.patterns_in_both) == ('half', 0)
    assert (found.r.fitted_patterns, found.r.held_out_patterns) == tuple(map(len, halves(dim)))
    assert found.r.r_held_out > 1.02 * found.r.r_fitted
    # More photons: the halves agree better.
    better = evaluate_halves(model, bright, settings, EXECUTION)
    assert better.metrics.complex_error < 0.7 * found.metrics.complex_error
    assert better.metrics.frc_nyquist_fraction > found.metrics.frc_nyquist_fraction


def test_a_network_that_knows_both_halves_is_told_of(quick, noisy, simulated, caplog, backend):
    trained = train([noisy], quick.model, quick.training, EXECUTION, backend=backend)
    with caplog.at_level(logging.WARNING):
        evaluate_halves(trained, simulated(photons=3e3, seed=9), None, EXECUTION)
        assert 'was trained on' not in caplog.text
        evaluate_halves(trained, noisy, None, EXECUTION)
    assert 'on both halves of it' in caplog.text
