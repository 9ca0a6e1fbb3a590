"""How the processes of the quality set are run, with programs that stand in for the real ones."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from ptychodus_torch_plugin.benchmarks.quality import cases, driver, pictures
from ptychodus_torch_plugin.benchmarks.quality.driver import Plan
from ptychodus_torch_plugin.benchmarks.quality.methods import Own, Peer
from ptychodus_torch_plugin.benchmarks.quality.results import Point

PEER = Peer(title='Peer', engine='rPIE', settings={'option': 1})
OWN = Own(title='Ours', settings={'model': {'sweeps_before': 3}})

FAKE = """
import json, sys
import numpy as np
scan = np.load({scan})
truth = np.load({truth!r})
assert (scan['object'] == 1).all()
noise = np.random.default_rng(0).standard_normal(truth.shape)
"""
FAKE_PEER = """
engine, options = sys.argv[3:]
assert (engine, json.loads(options)) == ('rPIE', {'option': 1})
done = 0
for line in sys.stdin:
    epochs, file = line.split()
    done += int(epochs)
    # Best after 16 epochs.
    np.save(file, truth * np.exp(1j * 0.01 * (1 + abs(done - 16)) * noise))
    print(json.dumps({'cpu_s': 2.0 * done, 'versions': {'peer': '1'}}), flush=True)
"""
FAKE_OWN = """
request = json.loads(sys.argv[1])
assert request['settings'] == {'model': {'sweeps_before': 3}}
np.save(request['object_file'], truth * np.exp(1j * 0.02 * noise))
print(json.dumps({'cpu_s': 7.0, 'stage': '3 sweeps', 'versions': {'ours': '2'}}))
"""
BROKEN = 'raise ValueError("nobody knows")'


@pytest.fixture(scope='module')
def case():
    """A case of 16 patterns."""
    base = {case.name: case for case in cases.SETS['quick']}['natural-39-1e4-wrong']
    changed = base.simulation.model_copy(update={'n_positions': 16})
    return base.model_copy(update={'name': 'tiny', 'simulation': changed})


@pytest.fixture
def stand_in(tmp_path, monkeypatch, case):
    """Return what makes a Python that runs a fake whatever script it is given."""
    truth = tmp_path / 'truth.npy'
    np.save(truth, cases.make_problem(case).truth)

    def make(name, scan, body):
        script = tmp_path / f'{name}.py'
        script.write_text(FAKE.format(scan=scan, truth=str(truth)) + body)
        return script

    def python(body):
        script = make('peer_stand_in', 'sys.argv[2]', body)
        path = tmp_path / 'python'
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        path.chmod(0o755)
        return path

    def own(body):
        make('own_stand_in', "json.loads(sys.argv[1])['scan']", body)
        monkeypatch.setenv('PYTHONPATH', str(tmp_path))
        monkeypatch.setattr(driver, 'OWN_CHILD', 'own_stand_in')

    return {'python': python, 'own': own}


def test_a_peer_runs_until_it_gets_no_better_and_its_best_counts(stand_in, case):
    python = stand_in['python'](FAKE_PEER)
    said, shown = [], []
    report = driver.run(
        Plan('quick', [case], {'peer': PEER}, max_epochs=1000, ptychi_python=python),
        said.append,
        lambda *found: shown.append(found),
    )
    (outcome,) = report.outcomes
    assert said == [outcome]
    assert outcome.best.stage == '16 epochs'
    epochs = [int(point.stage.split()[0]) for point in outcome.points]
    assert epochs == driver.looks_up_to(1000)[: len(epochs)]
    assert driver.FEWEST_EPOCHS <= epochs[-1] < 100
    assert not outcome.exhausted
    assert outcome.versions == {'peer': '1'}
    assert outcome.cpu_s() <= outcome.best.cpu_s
    assert report.peers == ('peer',)
    ((_, problem, (found,)),) = shown
    aligned = np.angle(found.object_ * problem.truth.conj())
    assert np.std(aligned) < 0.03


def test_a_peer_that_has_to_stop_says_so(stand_in, case):
    python = stand_in['python'](FAKE_PEER)
    plan = Plan('quick', [case], {'peer': PEER}, max_epochs=8, ptychi_python=python)
    (outcome,) = driver.run(plan).outcomes
    assert [point.stage for point in outcome.points] == [f'{n} epochs' for n in (4, 5, 7, 8)]
    assert outcome.exhausted


def test_a_peer_that_diverges_keeps_what_it_had(stand_in, case):
    python = stand_in['python'](FAKE_PEER.replace('noise))', 'noise) / (done < 20))'))
    plan = Plan('quick', [case], {'peer': PEER}, ptychi_python=python)
    (outcome,) = driver.run(plan).outcomes
    assert [point.stage for point in outcome.points][-1] == '16 epochs'
    assert outcome.status == 'ok'
    python = stand_in['python'](FAKE_PEER.replace('noise))', 'noise) / 0)'))
    (outcome,) = driver.run(plan).outcomes
    assert outcome.status == 'failed'
    assert 'not finite after 4 epochs' in outcome.reason


def test_a_method_of_ours_has_one_object(stand_in, case, tmp_path):
    stand_in['own'](FAKE_OWN)
    drawn = []
    report = driver.run(
        Plan('quick', [case], {'ours': OWN}, backend='pytorch'),
        on_case=lambda report, problem, found: drawn.append(
            pictures.draw(tmp_path, problem, found, report.titles)
        ),
    )
    (outcome,) = report.outcomes
    assert (outcome.best.stage, outcome.cpu_s(), outcome.backend) == ('3 sweeps', 7, 'pytorch')
    assert outcome.best.phase_psnr_dB > 30
    assert outcome.settings == OWN.settings
    assert drawn == [tmp_path / 'tiny.png']
    assert drawn[0].stat().st_size > 10_000


def test_without_a_python_a_peer_is_not_run(case):
    (outcome,) = driver.run(Plan('quick', [case], {'peer': PEER})).outcomes
    assert outcome.status == 'not run'
    assert '--ptychi_python' in outcome.reason


def test_what_breaks_is_a_result_and_the_next_one_goes_on(stand_in, case):
    stand_in['own'](FAKE_OWN)
    python = stand_in['python'](BROKEN)
    plan = Plan(
        'quick', [case], {'peer': PEER, 'ours': OWN}, backend='pytorch', ptychi_python=python
    )
    report = driver.run(plan)
    broken, ours = report.outcomes
    assert broken.status == 'failed'
    assert broken.reason.endswith('its process ended with exit code 1: ValueError: nobody knows')
    assert ours.status == 'ok'
    assert report.failed == [broken]


def test_cases_at_the_same_time_are_kept_in_order(stand_in, case):
    stand_in['own'](FAKE_OWN)
    twins = [case, case.model_copy(update={'name': 'twin'})]
    plan = Plan('quick', twins, {'ours': OWN}, backend='pytorch', jobs=2)
    assert [outcome.case for outcome in driver.run(plan).outcomes] == ['tiny', 'twin']


def test_everybody_gets_a_probe_of_the_right_scale(tmp_path, case):
    problem = cases.make_problem(case)
    driver.write_scan(tmp_path / 'scan.npz', problem)
    with np.load(tmp_path / 'scan.npz') as scan:
        energy = float(np.sum(np.abs(scan['probe']) ** 2))
        assert energy == pytest.approx(problem.scan.mean_counts(), rel=1e-5)
        assert set(scan.files) == {'counts', 'positions_px', 'probe', 'object'}
        assert scan['object'].shape == problem.truth.shape


# When a peer is looked at, and when it stops


def points(*decibels):
    return [Point(stage='', cpu_s=1, metrics={'phase_psnr_dB': each}) for each in decibels]


def test_looks_grow_by_a_factor_and_end_at_the_limit():
    looks = driver.looks_up_to(100)
    assert looks[0] == driver.FIRST_LOOK
    assert looks[-1] == 100
    assert all(1 < b / a <= 1.5 for a, b in pairwise(looks))
    assert driver.looks_up_to(3) == [3]


def test_it_stops_when_twice_the_time_made_nothing_better():
    assert driver.has_converged([20, 40, 60], points(10, 20, 20.05)) is False
    assert driver.has_converged([20, 40, 80], points(10, 20, 20.05)) is True
    assert driver.has_converged([20, 40, 80], points(10, 20, 20.5)) is False


def test_it_runs_on_for_some_epochs_however_bad_it_becomes():
    assert driver.has_converged([4, 8, 16], points(20, 15, 10)) is False
    assert driver.has_converged([4, 8, 40], points(20, 15, 10)) is True
