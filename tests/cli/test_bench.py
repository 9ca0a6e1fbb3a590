"""The command `bench`, on cases that take no time."""

import json

import pytest

from ptychodus_torch_plugin.benchmarks.cases import CASES
from ptychodus_torch_plugin.benchmarks.results import Report


@pytest.fixture(scope='module')
def measured(tmp_path_factory, call):
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp('bench') / 'out'
    call('bench', '--case', 'grouping', '--repeats', 1, '--output_dir', folder, '--quiet')
    return folder


def test_it_writes_json_table_and_picture(measured):
    files = {path.name for path in measured.iterdir()}
    pictures = {'grouping-positions.png', 'grouping-gridsize.png'}
    assert files == {'benchmark.json', 'table.md', *pictures}
    report = Report.load(measured / 'benchmark.json')
    assert (report.size, report.threads, report.repeats) == ('quick', 1, 1)
    assert {row.case for row in report.rows} == {'grouping'}
    assert '| groups | gs 2, positions 10000 |' in (measured / 'table.md').read_text()


def test_json_alone_goes_to_stdout(call):
    ran = call('bench', '--case', 'group*', '--repeats', 1, '--json', '--quiet')
    assert {row['case'] for row in ran.json['rows']} == {'grouping'}
    assert ran.err == ''


def test_an_earlier_run_is_compared(call, measured):
    earlier = measured / 'benchmark.json'
    ran = call('bench', '--case', 'grouping', '--repeats', 1, '--compare', earlier, '--quiet')
    lines = [line for line in ran.out.splitlines() if line.startswith('grouping: groups')]
    rows = len(json.loads(earlier.read_text())['rows'])
    assert len(lines) == 2 * rows
    assert all(' x' in line for line in lines[rows:])


def test_a_case_that_fails_is_exit_code_1(command_line, monkeypatch):
    monkeypatch.setattr('ptychodus_torch_plugin.benchmarks.driver.CHILD', 'no_such_module')
    ran = command_line('bench', '--case', 'grouping', '--quiet')
    assert ran.code == 1
    assert 'failed: its process ended' in ran.out


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['--case', 'raeding'], "'raeding' matches none"),
        (['--backend', 'no-such'], "'no-such' is not known"),
        (['--compare', 'missing.json'], 'missing.json does not exist'),
        (['--size', 'huge'], '--size'),
    ],
)
def test_what_cannot_be_is_refused(here, fail, arguments, named):
    assert named in fail('bench', *arguments).last


def test_the_help_names_every_case(call):
    text = ' '.join(call('bench', '--help').out.split())
    for name in CASES:
        assert name in text
