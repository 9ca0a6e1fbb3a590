"""The command `quality`, on one tiny case."""

import json

import pytest

from ptychodus_torch_plugin.benchmarks.quality import cases
from ptychodus_torch_plugin.benchmarks.quality.results import Report

BRIEF = {
    'sweeps': {'settings': {'model': {'sweeps_before': 2}}},
    'damped': {'like': 'sweeps', 'settings': {'model': {'sweeps': {'damping_start': 0.9}}}},
}


@pytest.fixture(autouse=True, scope='module')
def tiny():
    """Put one case of a few patterns in the place of the quick set."""
    base = cases.SETS['quick'][0]
    changed = base.simulation.model_copy(update={'n_positions': 16})
    case = base.model_copy(update={'name': 'tiny', 'simulation': changed})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cases.SETS, 'quick', (case,))
        yield case


@pytest.fixture(scope='module')
def changes(tmp_path_factory):
    path = tmp_path_factory.mktemp('methods') / 'methods.json'
    path.write_text(json.dumps(BRIEF))
    return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory, call, changes):
    """The folder of a run, with a peer that nobody has."""
    path = tmp_path_factory.mktemp('quality') / 'out'
    names = 'sweeps,ptychi-rpie'
    call('quality', '--methods', names, '--methods_file', changes, '--output_dir', path, '--quiet')
    return path


def test_it_writes_json_table_and_a_picture_of_each_case(folder):
    files = {path.name for path in folder.iterdir()}
    assert files == {'quality.json', 'table.md', 'courses.png', 'tiny.png'}
    report = Report.load(folder / 'quality.json')
    sweeps, peer = report.outcomes
    assert sweeps.best.stage == '2 sweeps'
    assert sweeps.cpu_s() > 0
    assert 5 < sweeps.metric('phase_psnr_dB') < 40
    assert (peer.status, report.peers) == ('not run', ('ptychi-rpie',))
    assert '| Case | sweeps | pty-chi rPIE |' in (folder / 'table.md').read_text()


def test_an_earlier_run_stands_beside(folder, call, changes):
    earlier = folder / 'quality.json'
    options = ('--methods', 'damped', '--methods_file', changes, '--beside', earlier)
    ran = call('quality', *options, '--json', '--quiet')
    assert ran.err == ''
    found = {each['method']: each for each in ran.json['outcomes']}
    assert list(found) == ['damped', 'sweeps', 'ptychi-rpie']
    one, other = (found[name]['points'][0]['metrics'] for name in ('damped', 'sweeps'))
    assert one['phase_psnr_dB'] != other['phase_psnr_dB']


def test_a_method_that_fails_is_exit_code_1(command_line, monkeypatch):
    monkeypatch.setattr(
        'ptychodus_torch_plugin.benchmarks.quality.driver.OWN_CHILD', 'no_such_module'
    )
    ran = command_line('quality', '--methods', 'sweeps')
    assert ran.code == 1
    assert '| tiny | failed |' in ran.out
    assert 'failed: ChildError: its process ended with exit code 1' in ran.err


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['--case', 'tniy'], "'tniy' matches none"),
        (['--methods', 'swepes'], "'swepes' is not known"),
        (['--backend', 'no-such'], 'no-such'),
        (['--methods_file', 'missing.json'], 'missing.json does not exist'),
        (['--beside', 'missing.json'], 'missing.json does not exist'),
        (['--set', 'huge'], '--set'),
    ],
)
def test_what_cannot_be_is_refused(here, fail, arguments, named):
    assert named in fail('quality', *arguments).last
