"""Pictures of a run: objects of each case beside the truth, and how good they were when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil, floor, log10
from pathlib import Path

from ptychodus_torch_plugin.arrays import ComplexArray
from ptychodus_torch_plugin.benchmarks.quality.cases import Problem
from ptychodus_torch_plugin.benchmarks.quality.driver import Found
from ptychodus_torch_plugin.benchmarks.quality.results import Report
from ptychodus_torch_plugin.benchmarks.quality.table import description
from ptychodus_torch_plugin.picture_layout import FAINT_INK, LINE, MARGIN, Sheet
from ptychodus_torch_plugin.pictures import draw_comparison

COLUMNS = 4
WIDTH, HEIGHT = 2.5, 1.8
LEFT, BELOW = 0.55, 0.45
MARKERS = 'os^Dv'


def draw(
    folder: Path, problem: Problem, found: Sequence[Found], titles: Mapping[str, str]
) -> Path | None:
    """Draw the objects of a case beside the truth; return the file, None without an object.

    Of the other programs only the best object is drawn.
    """
    peers = [each for each in found if not each.outcome.backend and each.outcome.best]
    best = max(peers, key=lambda each: each.outcome.metric('phase_psnr_dB') or 0.0, default=None)
    objects: dict[str, ComplexArray] = {
        titles[each.outcome.method]: each.object_
        for each in found
        if each.object_ is not None and (each.outcome.backend or each is best)
    }
    if not objects:
        return None
    path = folder / f'{problem.case.name}.png'
    draw_comparison(
        path,
        objects,
        problem.truth,
        problem.region,
        pixel_size_m=problem.scan.optics.pixel_size_m,
        title=problem.case.name,
        subtitle=description(problem.case),
    )
    return path


def draw_courses(path: Path, report: Report) -> None:
    """Draw the phase PSNR of every method against its processor time, a panel for each case.

    Curves are looks at a program under way; a single marker is a method that was looked at once.
    """
    columns = min(COLUMNS, len(report.cases))
    rows = -(-len(report.cases) // columns)
    pitch, height = LEFT + WIDTH, LINE + HEIGHT + BELOW
    legend = LINE * len(report.titles)
    remark = f'set {report.set_name}, {report.threads} thread(s)'
    heading = ('Phase PSNR (dB) against processor time (s)', '', remark)
    sheet = Sheet(columns * pitch + MARGIN, rows * height + legend, heading)
    decades = _decades([p.cpu_s for each in report.outcomes for p in each.points])
    for number, case in enumerate(report.cases):
        left, top = LEFT + number % columns * pitch, number // columns * height
        sheet.text(case.name, left, top, WIDTH, size=9)
        axes = sheet.axes(left, top + LINE, WIDTH, HEIGHT)
        for marker, (method, title) in zip(cycle(MARKERS), report.titles.items(), strict=False):
            outcome = report.outcome(case.name, method)
            points = () if outcome is None else outcome.points
            seconds = [point.cpu_s for point in points]
            decibels = [point.phase_psnr_dB for point in points]
            axes.plot(seconds, decibels, marker=marker, markersize=3, label=title)
        axes.set_xscale('log')
        axes.set_xlim(decades[0], decades[-1])
        axes.set_xticks(decades, [f'{second:g}' for second in decades])
        axes.minorticks_off()
        axes.grid(visible=True, which='major', alpha=0.3)
        axes.tick_params(labelsize=7, colors=FAINT_INK)
        if number == 0:
            below = -(rows * height - LINE - HEIGHT) / HEIGHT
            axes.legend(loc='upper left', bbox_to_anchor=(0, below), fontsize=8, frameon=False)
    sheet.save(path)


def _decades(seconds: Sequence[float]) -> list[float]:
    """Return the powers of ten that enclose all times; two at least."""
    known = [value for value in seconds if value > 0] or [1.0]
    low, high = floor(log10(min(known))), ceil(log10(max(known)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]
