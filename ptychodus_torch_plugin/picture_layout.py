"""`Sheet`: a figure laid out in inches, and the scale bar that goes into a picture.

Figures are made without pyplot and without any global state, so that they can be drawn in any
thread and beside any other use of matplotlib.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptychodus_torch_plugin.files.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.image import AxesImage

DPI = 150
INK = '#1c2430'
FAINT_INK = '#5b6675'
ACCENT = '#1f5fa8'
UNSCANNED = '#d5dde8'
# Inches.
MARGIN = 0.16
GAP = 0.12
BAR_GAP = 0.07
BAR = 0.11
BAR_LABELS = 0.5
LINE = 0.27
SMALLEST_TEXT = 0.6  # of its full size
TEXT_SLACK = 0.96  # widths do not scale exactly, for letters stand on whole pixels
MIN_WIDTH = 4.5
UNITS = ((1.0, 'm'), (1e-3, 'mm'), (1e-6, 'µm'), (1e-9, 'nm'), (1e-12, 'pm'))


class Sheet:
    """A figure laid out in inches from its top left corner, with a heading above the body."""

    def __init__(self, width: float, body: float, heading: tuple[str, str, str]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        title, stage, subtitle = heading
        lines = 2 if stage or subtitle else 1
        self.width = max(width, MIN_WIDTH)
        self.top = MARGIN / 2 + lines * LINE
        self.height = self.top + body + MARGIN
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor='white')
        self.canvas = FigureCanvasAgg(self.figure)
        room = self.width - 2 * MARGIN
        self.text(title, MARGIN, -lines * LINE, room, size=12, weight='bold')
        used = self.text(stage, MARGIN, -LINE, room, size=10, color=ACCENT, weight='bold')
        used += GAP if used else 0
        self.text(subtitle, MARGIN + used, -LINE, room - used, size=9, color=FAINT_INK)

    def text(
        self, text: str, left: float, top: float, room: float, *, size: float, **style: Any
    ) -> float:
        """Write one line of height `LINE` into `room`, smaller or cut if it must be.

        Returns its width in inches.
        """
        if not text or room <= 0:
            return 0.0
        x, y = left / self.width, 1 - (self.top + top + LINE / 2) / self.height
        style = {'color': INK, 'va': 'center_baseline', **style}
        # A dollar sign in a file's name is no mathematics.
        written = self.figure.text(x, y, text, fontsize=size, parse_math=False, **style)
        width = written.get_window_extent().width / DPI
        if width > room:
            smaller = max(room / width, SMALLEST_TEXT)
            written.set_fontsize(size * smaller * TEXT_SLACK)
            kept = int(len(text) * room / (width * smaller))
            if kept < len(text):
                written.set_text(text[: max(kept - 2, 0)].rstrip() + '…')
        return float(min(width, room))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes whose top left corner lies at (left, top) of the body."""
        bottom = self.height - self.top - top - height
        scale = np.array([self.width, self.height, self.width, self.height])
        x, y, w, h = (float(v) for v in np.array([left, bottom, width, height]) / scale)
        return self.figure.add_axes((x, y, w, h))

    def colour_bar(
        self, image: AxesImage, left: float, top: float, height: float, label: str = ''
    ) -> None:
        """Add the image's colours as a bar; its top left corner lies at (left, top) of the body."""
        bar = self.figure.colorbar(image, cax=self.axes(left, top, BAR, height))
        bar.ax.tick_params(labelsize=8, colors=FAINT_INK, length=2.5)
        bar.outline.set_visible(False)
        bar.set_label(label, size=9, color=INK)
        # One distance for all bars, however long their numbers are.
        bar.ax.yaxis.set_label_coords((BAR + BAR_LABELS) / BAR, 0.5)

    def save(self, path: str | Path) -> None:
        """Write the figure as a PNG file, in one step."""
        with atomic_path(path) as temporary:
            self.figure.savefig(temporary, format='png', dpi=DPI)


def scale_bar(width_px: float, pixel_size_m: float | None) -> tuple[float, str]:
    """Return the length in pixels and the label of a bar of a round length, up to 1/3 of a width.

    Parameters
    ----------
    width_px
        Width of the picture in object pixels.
    pixel_size_m
        Width of a pixel in metres, if known.
    """
    size = 1.0 if pixel_size_m is None else pixel_size_m
    longest = width_px * size / 3
    decade = 10.0 ** math.floor(math.log10(longest))
    length = decade * max(step for step in (1, 2, 5) if step * decade <= longest * (1 + 1e-9))
    if pixel_size_m is None:
        return length, f'{length:g} px'
    return length / size, length_text(length)


def length_text(length_m: float) -> str:
    """Return a length to three digits, in the unit that suits it."""
    unit, name = next(
        ((unit, name) for unit, name in UNITS if length_m >= unit * (1 - 1e-9)), UNITS[-1]
    )
    return f'{length_m / unit:.3g} {name}'


def colour_map(name: str = 'gray') -> Colormap:
    """Return the colours of an image; what is masked gets a neutral tone."""
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=UNSCANNED)


def pixel_aspect(pixel_size_m: tuple[float, float] | None) -> float:
    """Return height over width of a pixel."""
    return 1.0 if pixel_size_m is None else pixel_size_m[0] / pixel_size_m[1]


def draw_image(
    axes: Axes,
    values: np.ma.MaskedArray[Any, Any],
    limits: tuple[float, float],
    pixel_size_m: tuple[float, float] | None,
    colours: str = 'gray',
) -> AxesImage:
    """Draw an image that fills its axes, in a colour map of matplotlib."""
    axes.set_axis_off()
    low, high = limits
    aspect = pixel_aspect(pixel_size_m)
    return axes.imshow(values, cmap=colour_map(colours), vmin=low, vmax=high, aspect=aspect)


def style_curves(axes: Axes, x: str, y: str) -> None:
    """Give axes with curves their labels, grid and legend."""
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.tick_params(labelsize=8, colors=FAINT_INK)
    axes.grid(color='#e6e9ee', linewidth=0.7)
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['bottom', 'left']].set_color(FAINT_INK)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)


def draw_scale_bar(axes: Axes, pixel_size_m: tuple[float, float] | None) -> None:
    """Put a bar of a round length into the lower left corner of an image that fills its axes."""
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    low, high = axes.get_xlim()
    length, label = scale_bar(high - low, None if pixel_size_m is None else pixel_size_m[1])
    bar = AnchoredSizeBar(
        axes.transData,
        length,
        label,
        'lower left',
        pad=0.35,
        borderpad=0.5,
        sep=3,
        color='white',
        size_vertical=(high - low) / 120,
    )
    bar.patch.set(facecolor=INK, alpha=0.65, edgecolor='none')
    axes.add_artist(bar)
