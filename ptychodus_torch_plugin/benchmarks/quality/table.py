"""Tables of a report, for a terminal and for a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from ptychodus_torch_plugin.benchmarks.quality.cases import Case
from ptychodus_torch_plugin.benchmarks.quality.results import Outcome, Report
from ptychodus_torch_plugin.benchmarks.table import NOTHING, rounded

FIGURES = ('phase (dB / SSIM)', 'amplitude (dB / SSIM)', 'complex error', 'FRC (px)', 'CPU (s)')
CASE_COLUMNS = ('Case', 'What it is')

Chosen = Callable[[Case], bool]


def figures(outcome: Outcome | None) -> list[str]:
    """Return the cells of an outcome under `FIGURES`."""
    if outcome is None or outcome.best is None:
        return [NOTHING if outcome is None else outcome.status, *[NOTHING] * (len(FIGURES) - 1)]
    return [
        _pair(outcome, 'phase'),
        _pair(outcome, 'amplitude'),
        _decimals(outcome.metric('complex_error'), 3),
        # None: resolved to the last ring, half a period being one pixel.
        _decimals(outcome.metric('frc_resolution_px') or 1.0, 1),
        time(outcome),
    ]


def time(outcome: Outcome) -> str:
    """Return the processor time of an outcome; with '>' if it was still getting better."""
    seconds = outcome.cpu_s()
    if seconds is None:
        return NOTHING
    return f'{">" if outcome.exhausted else ""}{rounded(seconds)}'


def line(outcome: Outcome) -> str:
    """Return an outcome in one line."""
    words = [outcome.case, outcome.method, outcome.backend]
    if outcome.best is None:
        words.append(f'{outcome.status}: {outcome.reason}')
    else:
        cells = dict(zip(FIGURES, figures(outcome), strict=True))
        words += [outcome.best.stage, *(f'{name} {cell}' for name, cell in cells.items())]
    return '  '.join(word for word in words if word)


def description(case: Case) -> str:
    """Return what a case is in a few words."""
    simulation = case.simulation
    regular = simulation.scan == 'raster' and simulation.jitter == 0
    scan = 'raster' if regular else simulation.scan.replace('raster', 'jittered')
    words = [
        simulation.object_kind,
        f'{simulation.n_positions} positions, {scan}',
        f'{100 * case.overlap:.0f} % overlap',
        f'{dose(simulation.photons)} photons',
        f'{simulation.probe_modes} mode(s)',
    ]
    if case.probe_overlap is not None:
        words.append(f'wrong probe ({case.probe_overlap:g})')
    if case.positions_wrong:
        words.append(f'positions wrong by {simulation.position_error_px:g} px')
    return ', '.join(words)


def dose(photons: float) -> str:
    """Return a number of photons as a power of ten."""
    mantissa, exponent = f'{photons:.0e}'.split('e')
    power = ''.join('⁰¹²³⁴⁵⁶⁷⁸⁹'[int(digit)] for digit in str(int(exponent)))
    return f'10{power}' if mantissa == '1' else f'{mantissa}·10{power}'


def markdown(report: Report) -> str:
    """Return the report as Markdown: each figure as a table of cases and methods, and margins."""
    names = list(report.titles)
    parts = [_heading(report)]
    titles = ['Case', *report.titles.values()]
    for column, title in enumerate(FIGURES):
        if title == 'complex error':
            continue
        rows = [
            [case.name, *(figures(report.outcome(case.name, name))[column] for name in names)]
            for case in report.cases
        ]
        parts.append(f'### {title[0].upper()}{title[1:]}\n\n{table(titles, rows)}')
    if report.peers:
        parts.append(f'### Against the best engine of pty-chi\n\n{_margins(report)}')
    parts.append(
        '### The cases\n\n'
        + table(CASE_COLUMNS, [[case.name, description(case)] for case in report.cases])
    )
    return '\n\n'.join(parts) + '\n'


def _margins(report: Report) -> str:
    """Return means over groups of cases of each own method less the best peer of each case."""
    titles = ['Cases', 'Method', 'phase dB', 'phase SSIM', 'amplitude dB', 'worst phase dB', 'time']
    rows = []
    for group, chosen in groups():
        cases = [case for case in report.cases if chosen(case)]
        for name in report.titles:
            if name in report.peers:
                continue
            pairs = list(_pairs(report, cases, name))
            if pairs:
                rows.append([f'{group} ({len(pairs)})', report.titles[name], *_means(pairs)])
    return table(titles, rows)


def groups() -> list[tuple[str, Chosen]]:
    """Return the groups of cases whose margins are averaged."""
    return [
        ('all', lambda _: True),
        *(
            (f'{dose(photons)} photons', lambda case, n=photons: case.simulation.photons == n)
            for photons in (1e2, 1e3, 1e4, 1e5, 1e6)
        ),
        ('overlap below 50 %', lambda case: case.overlap < 0.5),
        ('overlap from 50 %', lambda case: case.overlap >= 0.5),
        ('wrong probe', lambda case: case.probe_wrong),
        ('true probe', lambda case: not case.probe_wrong),
    ]


def _pairs(report: Report, cases: Sequence[Case], name: str) -> Iterator[tuple[Outcome, Outcome]]:
    for case in cases:
        own, peer = report.outcome(case.name, name), report.best_peer(case.name)
        if own is not None and own.best is not None and peer is not None:
            yield own, peer


def _means(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[str]:
    def differences(name: str) -> list[float]:
        values = [(own.metric(name), peer.metric(name)) for own, peer in pairs]
        return [a - b for a, b in values if a is not None and b is not None]

    phase = differences('phase_psnr_dB')
    shares = [(own.cpu_s() or 0.0) / (peer.cpu_s() or 1.0) for own, peer in pairs]
    return [
        f'{fmean(phase):+.2f}',
        f'{fmean(differences("phase_ssim")):+.3f}',
        f'{fmean(differences("amplitude_psnr_dB")):+.2f}',
        f'{min(phase):+.2f}',
        f'{100 * fmean(shares):.0f} %',
    ]


def _heading(report: Report) -> str:
    machine = report.machine
    versions = dict(
        item for outcome in report.outcomes for item in sorted(outcome.versions.items())
    )
    used = ', '.join(f'{name} {version}' for name, version in versions.items())
    backends = ', '.join(dict.fromkeys(o.backend for o in report.outcomes if o.backend))
    return (
        f'Set {report.set_name}, {len(report.cases)} cases; methods of this package by '
        f'{backends or NOTHING}; {machine["processor"]}, {report.threads} thread(s); {used}; '
        f'{report.date}.'
    )


def _pair(outcome: Outcome, what: str) -> str:
    psnr, ssim = outcome.metric(f'{what}_psnr_dB'), outcome.metric(f'{what}_ssim')
    return f'{_decimals(psnr, 1)} / {_decimals(ssim, 2)}'


def _decimals(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f'{value:.{digits}f}'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [headings, ['---'] * len(headings), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
