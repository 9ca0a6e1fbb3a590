"""What is kept of a run of the quality set, and its tables."""

import json

import pytest
from skimage.io import imread

from ptychodus_torch_plugin.benchmarks.quality import cases, pictures, table
from ptychodus_torch_plugin.benchmarks.quality.results import Outcome, Point, Report
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

CASES = {case.name: case for case in cases.SETS['standard']}
LOW, HIGH = CASES['natural-39-1e3'], CASES['natural-74-1e6-wrong']
TITLES = {'sweeps': 'sweeps', 'one': 'Peer One', 'two': 'Peer Two'}


def point(psnr_dB, cpu_s, ssim=0.5, amplitude_dB=20.0, stage='x'):
    return Point(
        stage=stage,
        cpu_s=cpu_s,
        metrics={
            'phase_psnr_dB': psnr_dB,
            'phase_ssim': ssim,
            'amplitude_psnr_dB': amplitude_dB,
            'amplitude_ssim': 0.25,
            'complex_error': 0.125,
            'frc_resolution_px': None,
        },
    )


def outcome(case, method, *points, **values):
    backend = 'pytorch' if method == 'sweeps' else ''
    return Outcome(case=case.name, method=method, backend=backend, points=points, **values)


def report(*outcomes, found=(LOW, HIGH), **values):
    settings = {
        'date': '2026-01-01',
        'set_name': 'standard',
        'threads': 1,
        'machine': {'processor': 'P'},
        'cases': found,
        'titles': TITLES,
        'peers': ('one', 'two'),
        'outcomes': outcomes,
    }
    return Report(**settings | values)


def test_the_best_point_counts_and_the_time_to_a_tenth_of_a_decibel_below():
    found = outcome(LOW, 'one', point(10, 1), point(20, 3), point(21, 4), point(15, 9))
    assert found.best.phase_psnr_dB == 21
    assert found.metric('phase_psnr_dB') == 21
    assert found.cpu_s() == pytest.approx(3.9)


def test_a_point_that_is_close_enough_at_once_costs_its_own_time():
    assert outcome(LOW, 'sweeps', point(20, 3)).cpu_s() == 3
    assert outcome(LOW, 'one', point(20, 3), point(20.05, 6)).cpu_s() == 3


def test_an_object_without_a_figure_is_never_the_best():
    found = outcome(LOW, 'one', point(None, 1), point(5, 2))
    assert found.best.cpu_s == 2


def test_without_points_there_is_nothing():
    failed = outcome(LOW, 'one', status='failed', reason='it broke')
    assert (failed.best, failed.cpu_s(), failed.metric('phase_psnr_dB')) == (None, None, None)
    assert report(failed).failed == [failed]


def test_the_best_peer_is_that_with_the_higher_phase_psnr():
    one, two = outcome(LOW, 'one', point(20, 1)), outcome(LOW, 'two', point(22, 9))
    found = report(outcome(LOW, 'sweeps', point(30, 1)), one, two)
    assert found.best_peer(LOW.name) == two
    assert found.best_peer(HIGH.name) is None


def test_a_report_survives_the_way_through_a_file(tmp_path):
    found = report(outcome(LOW, 'one', point(20, 1), exhausted=True), outcome(HIGH, 'sweeps'))
    path = tmp_path / 'quality.json'
    path.write_text(json.dumps(found.to_json(), allow_nan=False))
    assert Report.load(path) == found


def test_files_that_are_no_report_are_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match='does not exist'):
        Report.load(tmp_path / 'no.json')
    for content in ('{', '{"version": 1}'):
        (tmp_path / 'other.json').write_text(content)
        with pytest.raises(ConfigError, match=r'other\.json'):
            Report.load(tmp_path / 'other.json')


# An earlier run beside


def test_methods_of_an_earlier_run_stand_beside():
    earlier = report(outcome(LOW, 'one', point(20, 1)), outcome(LOW, 'sweeps', point(1, 1)))
    now = report(outcome(LOW, 'sweeps', point(25, 1)), titles={'sweeps': 'S'}, peers=())
    both = now.beside(earlier)
    assert both.titles == {'sweeps': 'S', 'one': 'Peer One', 'two': 'Peer Two'}
    assert both.best_peer(LOW.name).metric('phase_psnr_dB') == 20
    assert both.outcome(LOW.name, 'sweeps').metric('phase_psnr_dB') == 25


def test_other_seeds_do_not_stand_beside():
    earlier = report(outcome(LOW, 'one', point(20, 1)), found=(LOW.reseeded(1), HIGH))
    now = report(titles={'sweeps': 'S'}, peers=())
    assert now.beside(earlier).best_peer(LOW.name) is None
    with pytest.raises(ConfigError, match='none of these cases'):
        now.beside(report(found=(LOW.reseeded(1),)))


# Tables


def lines_of(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_every_figure_has_a_table_of_cases_and_methods():
    text = table.markdown(
        report(
            outcome(LOW, 'sweeps', point(20.04, 1.5, ssim=0.456)),
            outcome(LOW, 'one', point(18, 6), exhausted=True),
            outcome(LOW, 'two', status='failed'),
        )
    )
    head = '| Case | sweeps | Peer One | Peer Two |'
    assert len(lines_of(text, head)) == 4
    assert lines_of(text, f'| {LOW.name} |')[:4] == [
        f'| {LOW.name} | 20.0 / 0.46 | 18.0 / 0.50 | failed |',
        f'| {LOW.name} | 20.0 / 0.25 | 20.0 / 0.25 | - |',
        f'| {LOW.name} | 1.0 | 1.0 | - |',
        f'| {LOW.name} | 1.50 | >6.00 | - |',
    ]
    assert lines_of(text, f'| {HIGH.name} |')[0] == f'| {HIGH.name} | - | - | - |'


def test_margins_are_means_over_cases_against_the_best_peer_of_each():
    text = table.markdown(
        report(
            outcome(LOW, 'sweeps', point(20, 1, ssim=0.5, amplitude_dB=10)),
            outcome(LOW, 'one', point(18, 4, ssim=0.4, amplitude_dB=8)),
            outcome(LOW, 'two', point(17, 1)),
            outcome(HIGH, 'sweeps', point(30, 2, ssim=0.9, amplitude_dB=10)),
            outcome(HIGH, 'one', point(29, 5)),
            outcome(HIGH, 'two', point(31, 4, ssim=0.8, amplitude_dB=11)),
        )
    )
    assert lines_of(text, '| all (2) |') == [
        '| all (2) | sweeps | +0.50 | +0.100 | +0.50 | -1.00 | 38 % |'
    ]
    assert lines_of(text, '| 10³ photons (1) |') == [
        '| 10³ photons (1) | sweeps | +2.00 | +0.100 | +2.00 | +2.00 | 25 % |'
    ]
    assert lines_of(text, '| wrong probe (1) |')[0].endswith('| -1.00 | 50 % |')
    assert not lines_of(text, '| 10² photons')


def test_without_peers_there_are_no_margins():
    found = report(outcome(LOW, 'sweeps', point(20, 1)), titles={'sweeps': 'S'}, peers=())
    assert 'Against' not in table.markdown(found)


def test_a_line_says_what_was_made_or_why_not():
    made = table.line(outcome(LOW, 'one', point(20, 1, stage='8 epochs')))
    assert made.startswith(f'{LOW.name}  one  8 epochs  phase (dB / SSIM) 20.0 / 0.50')
    failed = outcome(LOW, 'one', status='failed', reason='it broke')
    assert table.line(failed) == f'{LOW.name}  one  failed: it broke'


def test_cases_are_described():
    assert table.description(CASES['star-positions']) == (
        'siemens-star, 400 positions, jittered, 70 % overlap, 10⁵ photons, 1 mode(s), '
        'positions wrong by 1 px'
    )
    assert 'raster, 80 % overlap' in table.description(CASES['circuit-80-raster'])
    assert 'spiral' in table.description(CASES['dead-leaves-spiral'])
    assert table.description(HIGH).endswith('wrong probe (0.66)')


@pytest.mark.parametrize(('photons', 'text'), [(1e2, '10²'), (1e6, '10⁶'), (2e3, '2·10³')])
def test_doses_are_powers_of_ten(photons, text):
    assert table.dose(photons) == text


# Courses


def test_courses_have_a_panel_for_each_case(tmp_path):
    made = (
        outcome(LOW, 'sweeps', point(20, 0.5)),
        outcome(LOW, 'one', point(10, 1), point(20, 30)),
        outcome(HIGH, 'one', status='failed'),
    )
    pictures.draw_courses(tmp_path / 'both.png', report(*made))
    pictures.draw_courses(tmp_path / 'one.png', report(*made, found=(LOW,)))
    both, one = (imread(tmp_path / name).shape for name in ('both.png', 'one.png'))
    assert both[0] == one[0]
    assert both[1] > 1.3 * one[1]


@pytest.mark.parametrize(
    ('seconds', 'ticks'), [([], [1, 10]), ([0.5, 30], [0.1, 1, 10, 100]), ([2, 3], [1, 10])]
)
def test_times_are_enclosed_by_decades(seconds, ticks):
    assert pictures._decades(seconds) == pytest.approx(ticks)
