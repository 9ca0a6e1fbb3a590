"""Pictures of objects and of training, as PNG files that are whole or not there."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.alignment import align
from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, PositionArray
from ptychodus_torch_plugin.errors import ScanValueError
from ptychodus_torch_plugin.metrics import compare_aligned
from ptychodus_torch_plugin.object_views import (
    KINDS,
    View,
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
    LINE,
    MARGIN,
    Sheet,
    colour_map,
    draw_image,
    draw_scale_bar,
    style_curves,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREVIEW_PX = 256
CURVES = (ACCENT, '#cf5f1e', '#3f8f4f', '#7d4fa0')


def draw_object(
    path: str | Path,
    object_: ComplexArray,
    *,
    occupancy: NDArray[Any] | None = None,
    pixel_size_m: tuple[float, float] | None = None,
    title: str,
    stage: str,
    subtitle: str = '',
) -> None:
    """Draw amplitude and phase of an object side by side, cropped to where the beam has been.

    Parameters
    ----------
    path
        PNG file to write; replaced in one step.
    object_ : (h, w) complex64
        Its global phase is taken away: the circular mean over the scanned part becomes 0.
    occupancy : (h, w) bool or number, optional
        Scanned where it is not 0; the rest is drawn in a neutral tone.  Everything by default.
    pixel_size_m
        [height, width] of a pixel in metres; without it the scale bar counts pixels.
    title, stage, subtitle
        What it is, how far it has come (e.g. ``'network + 3 sweeps'``), and a remark.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ or nothing was scanned.
    OutputError
        If the file cannot be written.
    """
    view = View.of(object_, scanned_part(object_, occupancy))
    width, height = panel_size(view, pixel_size_m, side=3.7)
    pitch = width + BAR_GAP + BAR + BAR_LABELS + MARGIN
    sheet = Sheet(2 * pitch, LINE + height, (title, stage, subtitle))
    for column, kind in enumerate(KINDS):
        left = MARGIN + column * pitch
        axes = sheet.axes(left, LINE, width, height)
        image = draw_image(axes, view.part(kind), view.limits(kind), pixel_size_m)
        sheet.colour_bar(image, left + width + BAR_GAP, LINE, height)
        sheet.text(KINDS[kind], left, 0, width, size=9)
        if column == 0:
            draw_scale_bar(axes, pixel_size_m)
    sheet.save(path)


def draw_comparison(
    path: str | Path,
    stages: Mapping[str, ComplexArray],
    truth: ComplexArray | None = None,
    region: NDArray[Any] | None = None,
    *,
    pixel_size_m: tuple[float, float] | None = None,
    title: str = 'Reconstruction by stages',
    subtitle: str = '',
) -> None:
    """Draw several objects side by side, amplitude above phase, in common colours.

    With a truth, every object is aligned to it first and its PSNR and SSIM stand in its caption;
    the truth is the last column.  The last column's contrast holds for all.

    Parameters
    ----------
    path
        PNG file to write; replaced in one step.
    stages
        Names and (h, w) complex64 objects on one grid, in the order of drawing.
    truth : (h, w) complex64, optional
        What the objects should be.
    region : (h, w) bool or number, optional
        Where objects are compared and drawn, e.g. from `scanned_region`.  Everything by default.
    pixel_size_m, title, subtitle
        As in `draw_object`.

    Raises
    ------
    ShapeError, ScanValueError
        If there is no stage, shapes differ, or the region is empty.
    OutputError
        If the file cannot be written.
    """
    if not stages:
        raise ScanValueError('stages is empty; expected at least one named object to draw.')
    scanned = scanned_part(next(iter(stages.values())), region)
    columns = [_Column.of(name, stage, truth, scanned) for name, stage in stages.items()]
    if truth is not None:
        columns.append(_Column('truth', View.of(truth, scanned)))
    width, height = panel_size(columns[0].view, pixel_size_m, side=2.6)
    left = [MARGIN + index * (width + GAP) for index in range(len(columns) + 1)]
    captions = 0 if truth is None else LINE
    top = [LINE + captions + row * (height + max(captions, GAP)) for row in range(2)]
    right = left[-1] - GAP + BAR_GAP
    sheet = Sheet(right + BAR + BAR_LABELS + LINE, top[1] + height, (title, '', subtitle))
    for index, column in enumerate(columns):
        sheet.text(column.name, left[index], 0, width, size=10, weight='bold')
    for row, kind in enumerate(KINDS):
        limits = columns[-1].view.limits(kind)
        for index, column in enumerate(columns):
            axes = sheet.axes(left[index], top[row], width, height)
            image = draw_image(axes, column.view.part(kind), limits, pixel_size_m)
            caption = column.captions.get(kind, '')
            sheet.text(caption, left[index], top[row] - LINE, width, size=8.5)
            if row == index == 0:
                draw_scale_bar(axes, pixel_size_m)
        sheet.colour_bar(image, right, top[row], height, KINDS[kind])
    sheet.save(path)


def draw_training(
    path: str | Path, history: Mapping[str, Sequence[float]], *, title: str = 'Training'
) -> None:
    """Draw loss curves over epochs and mark the lowest point of each.

    Parameters
    ----------
    path
        PNG file to write; replaced in one step.
    history
        Losses per epoch by the name of the curve, e.g. ``{'train': [...], 'validation': [...]}``;
        NaN leaves a gap.
    title
        Heading of the picture.

    Raises
    ------
    ScanValueError
        If there is no finite loss to draw.
    OutputError
        If the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    curves = {name: np.asarray(losses, dtype=np.float64) for name, losses in history.items()}
    finite = np.concatenate([c[np.isfinite(c)] for c in curves.values()] or [np.empty(0)])
    if finite.size == 0:
        raise ScanValueError(
            f'history has no finite loss in its {len(curves)} curves; expected losses per epoch.'
        )
    sheet = Sheet(6.2, 3.2, (title, '', ''))
    axes = sheet.axes(0.75, 0.05, 5.25, 2.65)
    for (name, losses), colour in zip(curves.items(), itertools.cycle(CURVES), strict=False):
        if np.isfinite(losses).any():
            _draw_curve(axes, name, losses, colour)
    if finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale('log')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style_curves(axes, 'epoch', 'loss')
    sheet.save(path)


def preview_png(object_: ComplexArray, occupancy: NDArray[Any] | None = None) -> bytes:
    """Return a PNG of the phase, at most 256 px on each side, to be put into a bundle.

    Parameters
    ----------
    object_ : (h, w) complex64
        Averaged as phasors over blocks of pixels if it is larger.
    occupancy : (h, w) bool or number, optional
        As in `draw_object`.

    Raises
    ------
    ShapeError, ScanValueError
        If shapes differ or nothing was scanned.
    """
    from matplotlib import image
    from matplotlib.colors import Normalize
    from skimage.measure import block_reduce

    view = View.of(object_, scanned_part(object_, occupancy))
    block = math.ceil(max(view.phase.shape) / PREVIEW_PX)
    phasor = np.where(view.phase.mask, 0, np.exp(1j * view.phase.data))
    phasors = block_reduce(phasor, block, np.sum)  # type: ignore[no-untyped-call]
    phase = np.ma.masked_array(np.angle(phasors), np.abs(phasors) < 1e-6)
    low, high = view.limits('phase')
    pixels = colour_map()(Normalize(low, high)(phase), bytes=True)
    stream = io.BytesIO()
    image.imsave(stream, pixels, format='png')
    return stream.getvalue()


@dataclass(frozen=True)
class _Column:
    """One object of a comparison."""

    name: str
    view: View
    captions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, stage: ComplexArray, truth: ComplexArray | None, scanned: BoolArray
    ) -> _Column:
        if truth is None:
            return cls(name, View.of(stage, scanned))
        aligned = align(stage, truth, scanned)
        found = compare_aligned(aligned, truth, scanned)
        captions = {
            'amplitude': quality(found.amplitude_psnr_dB, found.amplitude_ssim),
            'phase': quality(found.phase_psnr_dB, found.phase_ssim),
        }
        return cls(name, View.of(aligned.object_, scanned), captions)


def _draw_curve(axes: Axes, name: str, losses: PositionArray, colour: str) -> None:
    best = int(np.nanargmin(losses))
    label = f'{name}: lowest {losses[best]:.4g} in epoch {best + 1}'
    axes.plot(np.arange(1, len(losses) + 1), losses, color=colour, label=label, linewidth=1.6)
    axes.plot(best + 1, losses[best], marker='o', markersize=4.5, color=colour)
