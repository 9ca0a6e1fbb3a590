"""The scans of the quality set: seeded, named, and wrong where they are said to be."""

import numpy as np
import pytest
from scipy import ndimage

from ptychodus_torch_plugin.aberrations import overlap, with_aberrations
from ptychodus_torch_plugin.benchmarks.quality import cases
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError
from ptychodus_torch_plugin.physics import far_field
from ptychodus_torch_plugin.simulate import diameter_of, zone_plate_probe

FULL = {case.name: case for case in cases.SETS['full']}


def small(name, **simulation):
    """A case of the set with fewer positions."""
    case = FULL[name]
    changed = case.simulation.model_copy(update={'n_positions': 25, **simulation})
    return case.model_copy(update={'simulation': changed})


def same(first, second):
    return all(
        np.array_equal(getattr(first.scan, name), getattr(second.scan, name))
        for name in ('patterns', 'positions_px', 'probe')
    ) and np.array_equal(first.truth, second.truth)


def test_names_are_unique_and_sets_grow():
    names = {set_name: [case.name for case in found] for set_name, found in cases.SETS.items()}
    assert all(len(set(each)) == len(each) for each in names.values())
    assert set(names['quick']) < set(names['standard']) < set(names['full'])


def test_standard_covers_what_the_set_promises():
    found = [case.simulation for case in cases.SETS['standard']]
    assert {each.object_kind for each in found} == {
        'natural',
        'dead-leaves',
        'siemens-star',
        'circuit',
    }
    assert {each.photons for each in found} == {1e2, 1e3, 1e4, 1e5, 1e6}
    assert {each.probe_modes for each in found} == {1, 2, 3}
    assert {each.scan for each in found} == {'raster', 'spiral'}
    assert {each.jitter == 0 for each in found if each.scan == 'raster'} == {True, False}
    overlaps = [case.overlap for case in cases.SETS['standard']]
    assert min(overlaps) == pytest.approx(0.3)
    assert max(overlaps) == pytest.approx(0.8)
    assert any(case.probe_wrong for case in cases.SETS['standard'])
    assert any(case.positions_wrong for case in cases.SETS['standard'])


def test_the_quick_set_is_small():
    assert all(case.simulation.n_positions <= 256 for case in cases.SETS['quick'])


@pytest.mark.parametrize(('percent', 'n'), [(74, 1024), (39, 256)])
@pytest.mark.parametrize('dose', ['1e6', '1e4', '1e3'])
@pytest.mark.parametrize('wrong', ['', '-wrong'])
def test_the_grid_has_two_overlaps_three_doses_and_two_probes(percent, n, dose, wrong):
    case = FULL[f'natural-{percent}-{dose}{wrong}']
    assert case.simulation.n_positions == n
    assert case.simulation.photons == float(dose)
    assert case.overlap == pytest.approx(percent / 100)
    assert case.probe_wrong == bool(wrong)


def test_neighbouring_positions_overlap_as_stated():
    problem = cases.make_problem(small('natural-74-1e4', jitter=0.0))
    diameter = diameter_of(problem.probe[0])
    rows = np.unique(np.round(problem.scan.positions_px[:, 0], 6))
    assert 1 - np.diff(rows) / diameter == pytest.approx(0.74, abs=0.005)


def test_the_same_case_gives_the_same_bits_and_another_seed_others():
    case = small('dead-leaves-39-1e4-wrong')
    first = cases.make_problem(case)
    assert same(first, cases.make_problem(case))
    other = cases.make_problem(case.reseeded(1))
    for one, two in ((first.truth, other.truth), (first.scan.patterns, other.scan.patterns)):
        assert not np.array_equal(one, two)
    assert overlap(first.probe[0], other.probe[0]) < 0.999


def test_doses_of_the_grid_share_object_probe_and_positions():
    low, high = (cases.make_problem(small(f'natural-39-{dose}')) for dose in ('1e3', '1e6'))
    assert np.array_equal(low.truth, high.truth)
    assert np.array_equal(low.scan.positions_px, high.scan.positions_px)
    assert overlap(low.probe[0], high.probe[0]) == pytest.approx(1)


def test_a_wrong_probe_overlaps_the_true_one_by_two_thirds():
    for seed in range(4):
        problem = cases.make_problem(small('natural-39-1e4-wrong').reseeded(seed))
        found = overlap(problem.probe[0], problem.scan.probe[0])
        assert found == pytest.approx(cases.WRONG_OVERLAP, abs=1e-3)


def test_without_a_mark_everything_is_true():
    problem = cases.make_problem(small('circuit-2-modes'))
    assert np.array_equal(problem.scan.probe, problem.probe)
    assert len(problem.probe) == 2


def test_position_errors_are_in_the_positions_alone():
    wrong = small('star-positions', n_positions=400)
    right = wrong.model_copy(
        update={'simulation': wrong.simulation.model_copy(update={'position_error_px': 0.0})}
    )
    told, true = cases.make_problem(wrong), cases.make_problem(right)
    assert np.std(told.scan.positions_px - true.scan.positions_px) == pytest.approx(1, abs=0.1)
    assert np.array_equal(told.scan.patterns, true.scan.patterns)
    assert np.array_equal(told.region, true.region)


def test_nothing_of_the_truth_is_in_the_scan():
    problem = cases.make_problem(small('natural-74-1e6'))
    assert np.array_equal(problem.scan.object_guess, np.ones_like(problem.truth))


def test_the_beam_has_been_in_the_region_alone():
    problem = cases.make_problem(small('natural-74-1e6'))
    assert ndimage.label(problem.region)[1] == 1
    assert 0.1 < problem.region.mean() < 0.6


# The wrong probe


def probe_of(seed=0):
    return zone_plate_probe(64, 24.0, seed)[None]


def test_aberrations_leave_the_intensity_of_the_far_field():
    true = probe_of()
    wrong = with_aberrations(true, 0.66, seed=1)
    before, after = (np.abs(far_field(probe)) ** 2 for probe in (true, wrong))
    assert np.allclose(after, before, atol=1e-5 * before.max())


def test_all_modes_get_the_same_aberrations():
    true = np.concatenate([probe_of(), probe_of(5)])
    wrong = with_aberrations(true, 0.66, seed=1)
    alone = with_aberrations(true[:1], 0.66, seed=1)
    assert np.array_equal(wrong[:1], alone)
    assert not np.allclose(wrong[1], true[1])


def test_less_overlap_takes_more_aberrations():
    true = probe_of()
    found = [overlap(true[0], with_aberrations(true, w, seed=2)[0]) for w in (0.95, 0.8, 0.5)]
    assert found == pytest.approx([0.95, 0.8, 0.5], abs=1e-3)


@pytest.mark.parametrize('wanted', [0.0, 1.0, 1.5, -0.2])
def test_an_overlap_that_cannot_be_is_refused(wanted):
    with pytest.raises(ScanValueError, match=r'overlap of'):
        with_aberrations(probe_of(), wanted, seed=0)


# Choosing


def test_cases_are_chosen_by_patterns_of_a_shell():
    chosen = cases.choose('standard', ('*-wrong', 'natural-80-*'))
    assert {case.name for case in chosen} == {
        case.name
        for case in cases.SETS['standard']
        if case.probe_wrong or case.name == 'natural-80-1e2'
    }
    assert cases.choose('quick') == list(cases.SETS['quick'])


def test_reseeding_changes_every_seed():
    before, after = cases.choose('quick'), cases.choose('quick', reseed=7)
    assert [b.simulation.seed - a.simulation.seed for a, b in zip(before, after, strict=True)] == [
        7
    ] * len(before)


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"'\*-wrogn' matches none of the set 'quick'"):
        cases.choose('quick', ('*-wrogn',))
