"""Curves of a report: what a core does a second, against the size of the problem."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from ptychodus_torch_plugin.benchmarks.cases import CASES
from ptychodus_torch_plugin.benchmarks.results import Report, Row
from ptychodus_torch_plugin.benchmarks.table import problem_text
from ptychodus_torch_plugin.picture_layout import FAINT_INK, MARGIN, Sheet

AXES = {
    'patterns': 'patterns',
    'positions': 'positions',
    'batch': 'groups at once',
    'N': 'N (px)',
    'gridsize': 'gridsize',
    'modes': 'probe modes',
}
"""What can be the size of a problem, and how the axis is called."""

WIDTH, HEIGHT = 4.6, 3.4
LEFT, BETWEEN, BELOW = 0.85, 0.75, 0.55
LEGEND = 0.17
COUNTED = ('gridsize', 'modes')
"""Sizes that are a few small numbers."""

FEWEST = 2
"""Points that make a curve."""

MARKERS = 'osD^vP*X<>'

Curve = list[tuple[float, Row]]


def draw(folder: Path, report: Report) -> dict[str, Path]:
    """Draw a picture for each case and each size that has a curve; return the files by name.

    Left: units per core-second; right: peak resident memory, where it is known.
    """
    files = {}
    for case in dict.fromkeys(row.case for row in report.rows):
        rows = [row for row in report.rows if row.case == case]
        for axis in AXES:
            found = curves(rows, axis)
            if found:
                name = f'{case}-{axis}'
                files[name] = folder / f'{name}.png'
                _draw(files[name], case, axis, found, report)
    return files


def curves(rows: Sequence[Row], axis: str) -> dict[str, Curve]:
    """Return the rows that differ in `axis` alone, by what they share and in order of size."""
    found: dict[str, Curve] = {}
    for row in rows:
        size = row.problem.get(axis)
        if row.status == 'ok' and isinstance(size, int):
            rest = {name: value for name, value in row.problem.items() if name != axis}
            words = [row.backend, row.what, problem_text(row.model_copy(update={'problem': rest}))]
            name = ', '.join(word for word in words if word)
            found.setdefault(name, []).append((float(size), row))
    long = {name: curve for name, curve in found.items() if len(curve) >= FEWEST}
    return {name: sorted(curve, key=lambda point: point[0]) for name, curve in long.items()}


def _draw(path: Path, case: str, axis: str, found: dict[str, Curve], report: Report) -> None:
    legend = LEGEND * len(found) + MARGIN
    title = CASES[case].title if case in CASES else case
    remark = f'{report.threads} thread(s), size {report.size}'
    sheet = Sheet(2 * (LEFT + WIDTH) + BETWEEN, HEIGHT + BELOW + legend, (title, '', remark))
    first = next(iter(found.values()))[0][1]
    for column, (label, value) in enumerate(
        ((f'{first.work.unit} per core-second', _rate), ('peak resident memory (MiB)', _memory))
    ):
        axes = sheet.axes(LEFT + column * (WIDTH + LEFT + BETWEEN / 2), MARGIN, WIDTH, HEIGHT)
        for marker, (name, curve) in zip(cycle(MARKERS), found.items(), strict=False):
            points = [(size, y) for size, row in curve if (y := value(row)) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=name)
        axes.set(xlabel=AXES[axis], ylabel=label, xscale='linear' if axis in COUNTED else 'log')
        if axis in COUNTED:
            axes.set_xticks(sorted({size for curve in found.values() for size, _ in curve}))
        low, high = axes.dataLim.intervaly
        if 0 < 10 * low < high:
            axes.set_yscale('log')
        else:
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, which='major', alpha=0.3)
        axes.tick_params(labelsize=8, colors=FAINT_INK)
        if column == 0:
            below = -(BELOW + MARGIN / 2) / HEIGHT
            axes.legend(loc='upper left', bbox_to_anchor=(0, below), fontsize=7, frameon=False)
    sheet.save(path)


def _rate(row: Row) -> float | None:
    return row.per_core_s()


def _memory(row: Row) -> float | None:
    return None if row.peak_bytes is None else row.peak_bytes / 2**20
