"""Tables of a report, for a terminal and for a document."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

from ptychodus_torch_plugin.benchmarks.cases import CASES
from ptychodus_torch_plugin.benchmarks.results import Limit, Report, Row

HEADINGS = ('What', 'Problem', 'By', 'Best', 'Median', 'Per core-second', 'Of limit', 'Peak')
COMPARED = ('What', 'Problem', 'By', 'Before', 'Now', 'Faster', 'Of limit before', 'now', 'Peak')

SHORT = {'gridsize': 'gs', 'n_filters_scale': 's', 'architecture': '', 'engine': '', 'probe': ''}
"""How settings of a problem are written; an empty name leaves the value alone."""

PRECISIONS = {'32-true': 'float32', 'bf16-mixed': 'bfloat16'}
LEFT_COLUMNS = 3
SECONDS = ((1.0, 's'), (1e-3, 'ms'), (0.0, 'µs'))
NOTHING = '-'


def problem_text(row: Row) -> str:
    """Return the problem of a row in a few words."""
    words = []
    for name, value in row.problem.items():
        if name == 'precision':
            words.append(PRECISIONS.get(str(value), str(value)))
        elif name in ('positions', 'probe') and isinstance(value, str):
            words.append(value if name == 'positions' else f'probe {value}')
        elif SHORT.get(name) == '':
            words.append(str(value))
        else:
            words.append(f'{SHORT.get(name, name)} {value}')
    return ', '.join(words)


def figures(row: Row) -> list[str]:
    """Return the cells of a row after its first three."""
    if row.status != 'ok':
        return [f'{row.status}: {row.reason}']
    return [
        seconds(row.cpu_s()),
        seconds(row.cpu_s(best=False)),
        NOTHING if row.work.unit in ('run', 'process') else _rate(row),
        'not offered' if row.work.limit and row.limit is None else percent(row.of_limit()),
        NOTHING if row.peak_bytes is None else f'{row.peak_bytes / 2**20:.0f} MiB',
    ]


def cells(row: Row) -> list[str]:
    """Return a row of the table."""
    return [f'{row.case}: {row.what}', problem_text(row), row.backend or NOTHING, *figures(row)]


def markdown(report: Report) -> str:
    """Return the report as Markdown: machine, limits, and a table for each case."""
    parts = [_heading(report), _limits(report.best_limits())]
    for case in dict.fromkeys(row.case for row in report.rows):
        rows = [row for row in report.rows if row.case == case]
        title = CASES[case].title if case in CASES else case
        body = [[row.what, *cells(row)[1:]] for row in rows]
        parts.append(f'### {title} (`{case}`)\n\n{_table(HEADINGS, body)}{_shares(rows)}')
    return '\n\n'.join(parts) + '\n'


def compared(report: Report, other: Report) -> list[list[str]]:
    """Return a row for everything that both reports measured: `other` is the earlier one.

    'Faster' is the processor time before over that now.  Other machines, and busy ones, are slower
    in everything: their limits tell.
    """
    before = {row.key: row for row in other.rows if row.status == 'ok'}
    lines = []
    for row in report.rows:
        old = before.get(row.key)
        if row.status != 'ok' or old is None:
            continue
        was, now = old.cpu_s(), row.cpu_s()
        memory = bool(old.peak_bytes and row.peak_bytes)
        lines.append(
            [
                *cells(row)[:3],
                seconds(was),
                seconds(now),
                f'{was / now:.2f} x' if was and now else NOTHING,
                percent(old.of_limit()),
                percent(row.of_limit()),
                f'{(row.peak_bytes or 0) / (old.peak_bytes or 1):.2f} x' if memory else NOTHING,
            ]
        )
    return lines


def comparison_markdown(report: Report, other: Report) -> str:
    """Return `compared` as Markdown."""
    title = f'### Against the run of {other.date} ({other.size}, {other.threads} thread(s))'
    return f'{title}\n\n{_table(COMPARED, compared(report, other))}\n'


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in plain text: the first three columns to the left, figures to the right.

    The last cell of a row that has fewer may be of any length.
    """
    lines = [headings, *rows]
    measured = [line for line in lines if len(line) == len(headings)]
    widths = [max(map(len, column)) for column in zip(*measured, strict=True)]
    return '\n'.join(
        '  '.join(
            f'{text:<{width}}' if number < LEFT_COLUMNS else f'{text:>{width}}'
            for number, (text, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()
        for line in lines
    )


def seconds(value: float | None) -> str:
    """Return a time with three digits, in the unit that fits."""
    if value is None:
        return NOTHING
    unit, name = next(each for each in SECONDS if value >= each[0])
    return f'{rounded(value / (unit or 1e-6))} {name}'


def percent(value: float | None) -> str:
    """Return a share in per cent."""
    if value is None:
        return NOTHING
    return f'{100 * value:.{0 if value >= 0.1 else 1}f} %'


def rounded(value: float) -> str:
    """Return a number with three digits that count, thousands apart."""
    if value == 0:
        return '0'
    digits = max(0, 2 - floor(log10(abs(value))))
    return f'{round(value, 2 - floor(log10(abs(value)))):,.{digits}f}'.replace(',', ' ')


def _rate(row: Row) -> str:
    rate = row.per_core_s()
    return NOTHING if rate is None else f'{rounded(rate)} {row.work.unit}'


def _heading(report: Report) -> str:
    machine = report.machine
    flags = ', '.join(machine.get('flags', [])) or 'none'
    backends = '; '.join(f'{name}: {version}' for name, version in machine['backends'].items())
    return (
        f'{machine["processor"]}, {machine["cores"]} cores ({flags}); {report.threads} thread(s); '
        f'Python {machine["python"]}; {backends}; size {report.size}, '
        f'{report.repeats} repetitions; {report.date}. Times are processor time of all threads.'
    )


def _limits(limits: Sequence[Limit]) -> str:
    body = [
        [limit.name, limit.backend, f'{rounded(_scaled(limit)[0])} {_scaled(limit)[1]}']
        for limit in limits
    ]
    title = '### Limits of the machine, per core-second'
    return f'{title}\n\n{_table(("Limit", "By", "Best"), body)}'


def _scaled(limit: Limit) -> tuple[float, str]:
    if limit.unit == 'FLOP':
        return limit.per_core_s / 1e9, 'GFLOP'
    return limit.per_core_s, limit.unit


def _shares(rows: Sequence[Row]) -> str:
    """Return a line for each row that knows the parts of its time."""
    lines = [
        f'- {row.backend}, {problem_text(row)}: '
        + ', '.join(f'{name} {percent(share)}' for name, share in row.shares.items())
        for row in rows
        if row.shares
    ]
    return '\n\nShares of the processor time:\n\n' + '\n'.join(lines) if lines else ''


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    full = [[*row, *[''] * (len(headings) - len(row))] for row in rows]
    lines = [headings, ['---'] * len(headings), *full]
    return '\n'.join(f'| {" | ".join(_cell(each) for each in line)} |' for line in lines)


def _cell(text: str) -> str:
    """Return text that cannot end a cell or a line."""
    return ' '.join(text.replace('|', '\\|').split())
