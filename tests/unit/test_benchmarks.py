"""How the benchmark measures, keeps and shows: with a clock that the tests wind."""

import json
import mmap
import re

import pytest
from skimage.io import imread

from ptychodus_torch_plugin.backends.protocol import Kernel
from ptychodus_torch_plugin.benchmarks import measuring, plots, table
from ptychodus_torch_plugin.benchmarks.flops import forward_flops, training_flops
from ptychodus_torch_plugin.benchmarks.results import Limit, Report, Row, Timing, Work
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError


class Clock:
    """Time that passes when work is done: as much on two threads, so half as long on the wall."""

    def __init__(self):
        self.cpu_s = 0.0

    def __call__(self):
        return Timing(cpu_s=self.cpu_s, wall_s=self.cpu_s / 2)

    def work(self, seconds):
        self.cpu_s += seconds


@pytest.fixture
def clock():
    return Clock()


LIMIT = Limit(backend='pytorch', name='fft2 64', unit='transforms', per_core_s=1000.0, per_s=2000.0)


def timings(*seconds):
    return tuple(Timing(cpu_s=each, wall_s=each / 2) for each in seconds)


def make_row(**values):
    settings = {
        'case': 'sweeps',
        'what': 'sweep',
        'backend': 'pytorch',
        'problem': {'N': 64, 'patterns': 100},
        'timings': timings(4.0, 2.0, 3.0),
        'work': Work(amount=100, unit='visits', limit='fft2 64', limit_units=200),
        'limit': LIMIT,
        'peak_bytes': 3 * 2**20,
    }
    return Row(**settings | values)


def make_report(*rows, **values):
    machine = {
        'processor': 'P',
        'cores': 2,
        'flags': [],
        'python': '3',
        'backends': {'pytorch': 'torch 2'},
    }
    settings = {'date': '2026-01-01', 'size': 'quick', 'threads': 2, 'repeats': 3}
    return Report(**settings | {'machine': machine, 'rows': rows, 'limits': (LIMIT,)} | values)


# Measuring


def test_repetitions_are_timed_one_by_one(clock):
    calls = []

    def run():
        calls.append(None)
        clock.work(len(calls))

    found = measuring.repeat(run, clock, 3, warm_up=False)
    assert [each.cpu_s for each in found] == [1, 2, 3]
    assert [each.wall_s for each in found] == [0.5, 1, 1.5]


def test_a_warm_up_is_not_counted(clock):
    costs = iter([100.0, 1.0, 1.0, 1.0])
    found = measuring.repeat(lambda: clock.work(next(costs)), clock, 2)
    assert [each.cpu_s for each in found] == [1, 1]


def test_short_calls_are_repeated_until_they_last(clock):
    calls = []

    def run():
        calls.append(None)
        clock.work(measuring.SHORTEST_S / 10)

    [found] = measuring.repeat(run, clock, 1)
    assert len(calls) >= 2 + 10
    assert found.cpu_s == pytest.approx(measuring.SHORTEST_S / 10)


def test_marks_are_cut_into_intervals():
    marks = [Timing(cpu_s=a, wall_s=b) for a, b in [(1, 10), (3, 11), (6, 15)]]
    found = measuring.intervals(marks)
    assert [(each.cpu_s, each.wall_s) for each in found] == [(2, 1), (3, 4)]


def test_a_limit_is_the_best_of_its_kernels(clock):
    kernels = [
        Kernel(lambda: clock.work(2.0), 10.0, 'FLOP'),
        Kernel(lambda: clock.work(1.0), 9.0, 'FLOP'),
    ]
    found = measuring.measure_limit('b', 'convolution 32-true', kernels, clock)
    assert (found.per_core_s, found.per_s, found.unit) == (9.0, 18.0, 'FLOP')


@pytest.mark.skipif(not measuring.reset_peak(), reason='this system cannot reset the peak')
def test_the_peak_begins_anew():
    # Of the system, not of a heap that may have kept some.
    size = 2**26
    with mmap.mmap(-1, size) as block:
        block.write(b'x' * size)
    assert measuring.reset_peak()
    before = measuring.resident_bytes('VmHWM')
    with mmap.mmap(-1, size) as block:
        for _ in range(size // 2**20):
            block.write(b'x' * 2**20)
        grown = measuring.resident_bytes('VmHWM') - before
    assert size / 2 < grown < 2 * size


# Results


def test_ratios_follow_from_the_best_and_the_median_time():
    row = make_row()
    assert (row.cpu_s(), row.cpu_s(best=False)) == (2, 3)
    assert row.per_core_s() == 50
    assert row.of_limit() == pytest.approx(200 / 2 / 1000)
    assert row.of_limit(best=False) == pytest.approx(200 / 3 / 1000)
    # Half the time on the wall, against a limit that is twice as high there.
    assert row.of_limit_on_the_wall() == pytest.approx(200 / 1 / 2000)


def test_what_was_not_measured_has_no_figures():
    row = make_row(timings=(), limit=None, status='not run', reason='no such thing')
    assert set(row.figures().values()) == {None}


def test_a_report_comes_back_from_its_json(tmp_path):
    report = make_report(make_row(), make_row(status='failed', timings=(), reason='x'))
    path = tmp_path / 'benchmark.json'
    path.write_text(json.dumps(report.to_json()))
    assert Report.load(path) == report
    stored = json.loads(path.read_text())
    assert stored['rows'][0]['figures']['of_limit'] == pytest.approx(0.1)
    assert [row.reason for row in report.failed] == ['x']


@pytest.mark.parametrize(
    ('text', 'named'),
    [('{', 'no JSON'), ('{"version": 7}', 'version'), ('{"unknown": 1}', 'unknown')],
)
def test_another_file_is_refused(tmp_path, text, named):
    path = tmp_path / 'other.json'
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        Report.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputNotFoundError, match=r'nowhere\.json'):
        Report.load(tmp_path / 'nowhere.json')


def test_the_best_of_each_limit_is_kept():
    better = LIMIT.model_copy(update={'per_core_s': 1500.0})
    other = LIMIT.model_copy(update={'backend': 'tensorflow'})
    found = make_report(limits=(LIMIT, other, better)).best_limits()
    assert found == [better, other]


# Tables and pictures


def test_a_row_of_the_table():
    assert table.cells(make_row()) == [
        'sweeps: sweep',
        'N 64, patterns 100',
        'pytorch',
        '2.00 s',
        '3.00 s',
        '50.0 visits',
        '10 %',
        '3 MiB',
    ]


def test_the_table_says_why_something_was_not_measured():
    row = make_row(timings=(), status='not run', reason='no a|b here\n')
    text = table.markdown(make_report(row))
    assert '| not run: no a\\|b here |' in text
    rows = [line for line in text.splitlines() if line.startswith('| sweep')]
    # A bar that is written as one does not end a cell.
    assert [len(re.findall(r'(?<!\\)\|', line)) for line in rows] == [len(table.HEADINGS) + 1]


def test_a_backend_without_limits_is_told_apart():
    assert 'not offered' in table.cells(make_row(limit=None))


def test_plain_text_stands_in_columns():
    rows = [table.cells(make_row()), table.cells(make_row(status='failed', reason='x' * 99))]
    lines = table.aligned(table.HEADINGS, rows).splitlines()
    assert lines[0].index('By') == lines[1].index('pytorch') == lines[2].index('pytorch')
    assert lines[2].endswith('x' * 99)


@pytest.mark.parametrize(
    ('value', 'text'),
    [(0.0, '0 µs'), (2e-6, '2.00 µs'), (0.0123, '12.3 ms'), (12.34, '12.3 s'), (None, '-')],
)
def test_times_have_the_unit_that_fits(value, text):
    assert table.seconds(value) == text


@pytest.mark.parametrize(
    ('value', 'text'), [(1234567, '1 230 000'), (99.95, '100'), (0.5, '0.500')]
)
def test_numbers_have_three_digits(value, text):
    assert table.rounded(value).startswith(text[:3])
    assert table.rounded(value) in (text, '100.0')


def test_two_runs_are_compared_where_both_measured():
    now = make_report(make_row(), make_row(problem={'N': 128}), make_row(what='new'))
    before = make_report(
        make_row(timings=timings(6.0), peak_bytes=6 * 2**20), make_row(problem={'N': 256})
    )
    [line] = table.compared(now, before)
    assert line[3:] == ['6.00 s', '2.00 s', '3.00 x', '3.3 %', '10 %', '0.50 x']


def test_curves_are_drawn_against_the_size(tmp_path):
    rows = [make_row(problem={'N': n_px, 'patterns': n}) for n_px in (64, 128) for n in (1000, 100)]
    lonely = make_row(case='end-to-end', problem={'patterns': 100})
    found = plots.curves([*rows, lonely], 'patterns')
    assert {name: [x for x, _ in curve] for name, curve in found.items()} == {
        'pytorch, sweep, N 64': [100, 1000],
        'pytorch, sweep, N 128': [100, 1000],
    }
    files = plots.draw(tmp_path, make_report(*rows, lonely))
    assert list(files) == ['sweeps-patterns', 'sweeps-N']
    assert all(imread(path).shape[1] > 500 for path in files.values())


# Arithmetic


ENCODER = 9 * ((1 + 32) * 32 * 64**2 + (32 + 64) * 64 * 32**2 + (64 + 128) * 128 * 16**2)
DECODER = 9 * ((128 + 64) * 64 * 8**2 + (64 + 32) * 32 * 16**2)
CENTER, BORDER = 9 * 28 * 32**2, 9 * ((4 + 32) * 32 * 32**2 + 32 * 64**2)


def test_the_arithmetic_of_the_reference_network():
    config = ModelConfig(architecture='cnn', n_filters_scale=1)
    assert forward_flops(config) == 2 * (ENCODER + 2 * (DECODER + CENTER + BORDER)) == 409_190_400
    assert training_flops(config) == 3 * forward_flops(config)


@pytest.mark.parametrize(
    ('settings', 'difference'),
    [
        ({'probe_big': False}, -2 * BORDER),
        ({'gridsize': 2}, 9 * 3 * 32 * 64**2 + 2 * 3 * 9 * (28 * 32**2 + 32 * 64**2)),
        ({'gridsize': 2, 'object_big': False}, 9 * 3 * 32 * 64**2),
        ({'pad_object': False}, 2 * (9 * (28 * 32 * 32**2) - CENTER)),
    ],
)
def test_options_change_it(settings, difference):
    base = forward_flops(ModelConfig(architecture='cnn', n_filters_scale=1))
    changed = forward_flops(ModelConfig(architecture='cnn', n_filters_scale=1, **settings))
    assert changed - base == 2 * difference


def test_twice_the_filters_are_nearly_four_times_the_work():
    one, two = (forward_flops(ModelConfig(architecture='cnn', n_filters_scale=s)) for s in (1, 2))
    assert 3.8 < two / one < 4


def test_there_is_nothing_to_count_without_groups():
    with pytest.raises(ConfigError, match="'unrolled'"):
        forward_flops(ModelConfig())
