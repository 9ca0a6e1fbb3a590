"""The picture of a comparison: two objects, where they differ, and to which detail they agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray
from ptychodus_torch_plugin.metrics import ObjectMetrics
from ptychodus_torch_plugin.object_views import (
    KINDS,
    View,
    bounding_box,
    mean_phasor,
    panel_size,
    quality,
    scanned_part,
)
from ptychodus_torch_plugin.picture_layout import (
    ACCENT,
    BAR,
    BAR_GAP,
    BAR_LABELS,
    GAP,
    INK,
    LINE,
    MARGIN,
    Sheet,
    draw_image,
    draw_scale_bar,
    length_text,
    style_curves,
)
from ptychodus_torch_plugin.ring_correlation import FRC

SIDE = 2.7
"""Longer side of an image, in inches."""
CURVE_HEIGHT = 2.1
CURVE_MARGIN = 0.6
LABELS = BAR_LABELS + LINE
"""Room for a colour bar's numbers and its label, in inches."""
THRESHOLD = '#cf5f1e'
DIVERGING = 'RdBu_r'
SHOWN = 99.5
"""Percentile of absolute differences at which their colours end."""
CRITERIA = {
    'halves': 'half-bit threshold of two halves',
    'noise-free': 'half-bit threshold against an object without noise',
}


def draw_evaluation(
    path: str | Path,
    object_: ComplexArray,
    reference: ComplexArray,
    region: BoolArray,
    metrics: ObjectMetrics,
    *,
    compared_with: str,
    pixel_size_m: tuple[float, float] | None = None,
    title: str,
) -> None:
    """Draw two objects beside each other, their differences, and their ring correlation.

    Both objects have common colours, those of the reference; differences have their own, blue
    where the object is below the reference and red where it is above.

    Parameters
    ----------
    path
        PNG file to write; replaced in one step.
    object_, reference : (h, w) complex64
        The object after `align`, and what it was compared with.
    region : (h, w) bool
        Where they were compared.
    metrics
        What `compare_objects` found.
    compared_with
        What to call the reference.
    pixel_size_m
        [height, width] of a pixel in metres; without it lengths are in pixels.
    title
        Heading of the picture.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ or the region is empty.
    OutputError
        If the file cannot be written.
    """
    views = _Views.of(object_, reference, scanned_part(object_, region))
    width, height = panel_size(views.reference, pixel_size_m, side=SIDE)
    bars = BAR_GAP + BAR + LABELS
    left = [MARGIN, MARGIN + width + GAP, MARGIN + 2 * width + GAP + bars + GAP]
    top = [2 * LINE, 3 * LINE + height]
    below = top[1] + height + 2 * LINE
    sheet = Sheet(
        left[2] + width + bars,
        below + CURVE_HEIGHT + CURVE_MARGIN,
        (title, '', f'compared with the {compared_with}: {_summary(metrics)}'),
    )
    for place, name in zip(left, ('object', compared_with, 'difference'), strict=True):
        sheet.text(name, place, 0, width, size=10, weight='bold')
    for row, kind in zip(top, KINDS, strict=True):
        _draw_row(sheet, views, kind, (left, row, width, height), pixel_size_m)
        psnr_dB = getattr(metrics, f'{kind}_psnr_dB')
        caption = quality(psnr_dB, getattr(metrics, f'{kind}_ssim'))
        sheet.text(caption, left[0], row - LINE, width, size=8.5)
        sheet.text(views.rms(kind), left[2], row - LINE, width, size=8.5)
    span = sheet.width - 2 * CURVE_MARGIN
    axes = sheet.axes(CURVE_MARGIN + MARGIN, below, span, CURVE_HEIGHT)
    sheet.text('Fourier ring correlation', MARGIN, below - LINE, span, size=10, weight='bold')
    _draw_ring_correlation(axes, metrics.frc, pixel_size_m)
    sheet.save(path)


def _draw_ring_correlation(
    axes: Any, frc: FRC, pixel_size_m: tuple[float, float] | None = None
) -> None:
    fraction = 2 * frc.frequencies
    axes.plot(fraction, frc.correlation, color=ACCENT, linewidth=1.6, label='correlation')
    label = CRITERIA[frc.criterion]
    axes.plot(fraction, frc.threshold, '--', color=THRESHOLD, linewidth=1.2, label=label)
    found = f'half-period {half_period_text(frc, pixel_size_m)}'
    axes.axvline(frc.nyquist_fraction(), color=INK, linewidth=1, linestyle=':', label=found)
    axes.set_xlim(0, 1)
    axes.set_ylim(min(-0.05, 1.1 * float(frc.correlation.min())), 1.05)
    style_curves(axes, 'spatial frequency / Nyquist', 'correlation')


def half_period_text(frc: FRC, pixel_size_m: tuple[float, float] | None) -> str:
    """Return the resolution in pixels and, where their size is known, as a length."""
    half_period_px = frc.resolution_px()
    better = 'better than ' if half_period_px is None else ''
    half_period_px = half_period_px or 1.0
    metres = '' if pixel_size_m is None else f' = {length_text(half_period_px * max(pixel_size_m))}'
    return f'{better}{half_period_px:.2f} px{metres}'


@dataclass(frozen=True)
class _Views:
    """Both objects and their differences, cropped alike."""

    object_: View
    reference: View
    differences: dict[str, np.ma.MaskedArray[Any, Any]]

    @classmethod
    def of(cls, object_: ComplexArray, reference: ComplexArray, scanned: BoolArray) -> _Views:
        box = bounding_box(scanned)
        ours, theirs = object_[box].astype(np.complex128), reference[box].astype(np.complex128)
        images = {
            'amplitude': np.abs(ours) - np.abs(theirs),
            'phase': np.angle(ours * theirs.conj()),
        }
        mean = mean_phasor(reference[scanned])
        return cls(
            View.of(object_, scanned, mean),
            View.of(reference, scanned, mean),
            {kind: np.ma.masked_array(image, ~scanned[box]) for kind, image in images.items()},
        )

    def rms(self, kind: str) -> str:
        """Return how large the differences are, as a caption."""
        values = self.differences[kind].compressed()
        unit = ' rad' if kind == 'phase' else ''
        return f'rms {np.sqrt(np.mean(values**2)):.3g}{unit}'


def _draw_row(
    sheet: Sheet,
    views: _Views,
    kind: str,
    box: tuple[list[float], float, float, float],
    pixel_size_m: tuple[float, float] | None,
) -> None:
    left, top, width, height = box
    limits = views.reference.limits(kind)
    for place, view in zip(left, (views.object_, views.reference), strict=False):
        axes = sheet.axes(place, top, width, height)
        image = draw_image(axes, view.part(kind), limits, pixel_size_m)
        if place == left[0] and kind == next(iter(KINDS)):
            draw_scale_bar(axes, pixel_size_m)
    sheet.colour_bar(image, left[1] + width + BAR_GAP, top, height, KINDS[kind])
    difference = views.differences[kind]
    end = max(float(np.percentile(np.abs(difference.compressed()), SHOWN)), 1e-3)
    axes = sheet.axes(left[2], top, width, height)
    image = draw_image(axes, difference, (-end, end), pixel_size_m, DIVERGING)
    unit = ' (rad)' if kind == 'phase' else ''
    sheet.colour_bar(image, left[2] + width + BAR_GAP, top, height, f'Difference{unit}')


def _summary(metrics: ObjectMetrics) -> str:
    return f'complex error {metrics.complex_error:.3f}, over {metrics.region_px} px'
