"""The registry of methods: which settings a case gets, and how a file changes them."""

import json

import pytest

from ptychodus_torch_plugin.benchmarks.quality import cases, methods
from ptychodus_torch_plugin.benchmarks.quality.own_child import Request, settings_of
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

STANDARD = {case.name: case for case in cases.SETS['standard']}
TRUE, WRONG = STANDARD['natural-39-1e4'], STANDARD['natural-39-1e4-wrong']
MOVED = STANDARD['star-positions']


@pytest.fixture
def written(tmp_path):
    """Write a file of changes."""

    def write(content):
        path = tmp_path / 'methods.json'
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def all_settings(method, case):
    request = Request(
        scan='scan.npz', object_file='o.npy', backend='pytorch', settings=method.for_case(case)
    )
    return settings_of(request, 64)


@pytest.mark.parametrize('case', [TRUE, WRONG, MOVED], ids=lambda case: case.name)
def test_every_method_of_ours_has_settings_that_the_package_takes(case):
    own = [each for each in methods.METHODS.values() if isinstance(each, methods.Own)]
    assert own
    for method in own:
        settings = all_settings(method, case)
        assert settings.model.sweeps.refine_probe
        assert settings.model.sweeps.refine_positions == case.positions_wrong
        assert settings.inference.held_out_fraction == 0
        assert settings.execution.num_threads == 1


def test_names_of_methods_tell_what_they_are():
    for name, method in methods.METHODS.items():
        assert name.startswith('ptychi-') == isinstance(method, methods.Peer)


def test_peers_find_what_is_wrong_and_nothing_else():
    for method in methods.METHODS.values():
        if isinstance(method, methods.Peer):
            found = [
                (
                    values['probe_options.optimizable'],
                    'probe_position_options.optimizable' in values,
                )
                for values in map(method.for_case, (TRUE, WRONG, MOVED))
            ]
            assert found == [(False, False), (True, False), (False, True)]


def test_groups_of_settings_are_merged():
    below = {'a': {'b': 1, 'c': {'d': 2}}, 'e': 3}
    above = {'a': {'c': {'f': 4}}, 'e': {'g': 5}}
    assert methods.laid_over(below, above) == {
        'a': {'b': 1, 'c': {'d': 2, 'f': 4}},
        'e': {'g': 5},
    }
    assert below == {'a': {'b': 1, 'c': {'d': 2}}, 'e': 3}


def test_methods_come_in_the_order_of_asking():
    assert list(methods.choose(('thinned', 'sweeps', 'thinned'))) == ['thinned', 'sweeps']


def test_a_file_changes_methods_and_adds_some(written):
    path = written(
        {
            'sweeps': {'settings': {'model': {'sweeps_before': 7}}},
            'damped': {
                'like': 'sweeps',
                'settings': {'model': {'sweeps': {'damping_start': 0.5}}},
            },
        }
    )
    found = methods.choose(('sweeps', 'damped', 'ptychi-lsqml'), path)
    assert all_settings(found['sweeps'], TRUE).model.sweeps_before == 7
    damped = all_settings(found['damped'], TRUE).model
    assert damped.sweeps.damping_start == 0.5
    assert damped.sweeps_before == all_settings(methods.METHODS['sweeps'], TRUE).model.sweeps_before
    assert found['damped'].title == 'damped'
    assert found['ptychi-lsqml'] is methods.METHODS['ptychi-lsqml']


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        ('{', 'is no JSON'),
        ([1], 'no dictionary of methods'),
        ({'sweeps': 3}, 'no dictionary of methods'),
        ({'new': {'settings': {}}}, "new is like 'new'"),
        ({'sweeps': {'setings': {}}}, 'setings is not a known setting'),
        ({'ptychi-rpie': {'engine': 'DM'}}, 'engine'),
    ],
)
def test_a_faulty_file_is_refused(written, content, named):
    with pytest.raises(ConfigError, match=named):
        methods.choose(('sweeps',), written(content))


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match=r'no\.json does not exist'):
        methods.choose(('sweeps',), tmp_path / 'no.json')
    with pytest.raises(ConfigError, match=r"method = 'swepes' is not known"):
        methods.choose(('swepes',))
