"""Cases run, in this process and in one of their own; what fails says so."""

import pytest

from ptychodus_torch_plugin.benchmarks import driver
from ptychodus_torch_plugin.benchmarks.cases import CASES, Case, peers
from ptychodus_torch_plugin.benchmarks.child import Limits, Request, rows_of, run
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.measuring import process_clock
from ptychodus_torch_plugin.benchmarks.scans import make_scan, positions
from ptychodus_torch_plugin.benchmarks.sizes import SIZES, Size
from ptychodus_torch_plugin.errors import ConfigError, UnknownBackendError

TINY = Size(
    positions=(16, 64),
    patterns=(4, 40),
    scans=(16,),
    swept=(16,),
    sides_px=(64,),
    gridsizes=(1, 2),
    modes=(1,),
    filters=(1,),
    batches=(1,),
    steps=2,
    repeats=1,
)
WITHOUT_BACKEND = ('reading', 'grouping', 'preparation', 'ground-truth', 'stitching')


@pytest.fixture
def context(tmp_path):
    return Context(size=TINY, threads=1, folder=tmp_path)


@pytest.fixture
def rows(context):
    """Run a case in this process."""

    def measure(name):
        return list(rows_of(name, context, Limits('', {}, process_clock), 1, process_clock))

    return measure


@pytest.mark.parametrize('name', WITHOUT_BACKEND)
def test_a_case_without_a_backend(rows, name, tmp_path):
    found = rows(name)
    assert {row.case for row in found} == {name}
    assert {row.status for row in found} == {'ok'}, found[-1].reason
    assert all(row.per_core_s() > 0 for row in found)
    assert len({row.key for row in found}) == len(found)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_a_row_and_ends_only_its_case(rows, monkeypatch):
    def broken(_):
        yield from ()
        raise ValueError('no luck')

    monkeypatch.setitem(CASES, 'broken', Case('', broken))
    [row] = rows('broken')
    assert (row.status, row.reason) == ('failed', 'ValueError: no luck')


def test_a_peer_that_is_not_there_is_not_run(rows):
    found = rows('peer-ptychi')
    assert [row.status for row in found] == ['not run'] * 2 * len(peers.ENGINES)
    assert '--ptychi_python' in found[0].reason


def test_a_python_without_the_peer_says_what_it_lacks(context, tmp_path):
    import sys

    assert 'ptychi' in peers._missing(sys.executable)
    assert 'does not start' in peers._missing(tmp_path / 'python')


def test_a_process_says_its_rows_and_nothing_else():
    request = Request(cases=('grouping',), repeats=1)
    report = driver.run(request, [])
    assert {row.status for row in report.rows} == {'ok'}
    assert len(report.rows) == len(SIZES['quick'].positions) * len(SIZES['quick'].gridsizes)
    assert report.machine['cores'] >= 1


def test_a_process_that_dies_is_a_row(monkeypatch):
    monkeypatch.setattr(driver, 'CHILD', 'no_such_module')
    report = driver.run(Request(cases=('grouping', 'reading'), repeats=1), [])
    assert [row.case for row in report.failed] == ['grouping', 'reading']
    assert 'no_such_module' in report.failed[0].reason


def test_a_backend_without_limits_is_measured_without_ratios(monkeypatch):
    class Plain:
        name = 'plain'

    monkeypatch.setattr('ptychodus_torch_plugin.benchmarks.child.get_backend', lambda _: Plain())
    [row, *_] = run(Request(cases=('grouping',), backend='plain', repeats=1))
    assert (row.backend, row.status, row.limit) == ('plain', 'ok', None)


def test_only_quick_cases_share_a_process():
    names = ('grouping', 'training', 'sweeps')
    quick = driver.requests(Request(cases=names), ['a', 'b'])
    assert [(each.cases, each.backend) for each in quick] == [
        (('grouping',), ''),
        (('training', 'sweeps'), 'a'),
        (('training', 'sweeps'), 'b'),
    ]
    standard = driver.requests(Request(cases=names, size='standard'), ['a'])
    assert [each.cases for each in standard] == [('grouping',), ('training',), ('sweeps',)]
    assert driver.requests(Request(cases=('grouping',)), ['a']) == [Request(cases=('grouping',))]


def test_cases_are_chosen_by_pattern():
    assert driver.choose_cases([]) == list(CASES)
    assert driver.choose_cases(['*start', 'reading']) == ['start', 'reading', 'backend-start']
    with pytest.raises(ConfigError, match='raeding'):
        driver.choose_cases(['raeding'])


def test_an_unknown_backend_is_named():
    with pytest.raises(UnknownBackendError, match='no-such'):
        driver.choose_backends(['no-such'])


def test_scans_have_any_size_and_lie_on_their_frame():
    scan = make_scan(300, 64)
    assert scan.n_patterns == 300
    assert scan.frame.origin_px[0] >= 0
    whole = positions(50, 64, subpixel=False)
    assert ((whole - 31.5) % 1 == 0).all()
    assert not ((positions(50, 64) - 31.5) % 1 == 0).all()


def test_large_patterns_are_fewer():
    assert SIZES['full'].fitting((100, 1_000, 10_000), 256) == (100,)
    assert SIZES['full'].fitting((100, 1_000), 64) == (100, 1_000)
