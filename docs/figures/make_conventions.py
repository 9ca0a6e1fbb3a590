"""Draw the figures of `conventions.md`: python docs/figures/make_conventions.py."""

from pathlib import Path

import matplotlib as mpl

mpl.use('Agg')

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from ptychodus_torch_plugin.frame import patch_corners
from ptychodus_torch_plugin.physics import far_field, shift_probe

FOLDER = Path(__file__).parent
INK, GREY, LINE = '#1f2430', '#8a93a3', '#d5dae2'
BLUE, ORANGE, GREEN = '#2364aa', '#d1600a', '#2a7f4f'
STYLE = {
    'font.size': 10,
    'text.color': INK,
    'axes.titlesize': 10.5,
    'axes.titleweight': 'bold',
    'figure.dpi': 120,
    'savefig.bbox': 'tight',
    'savefig.pad_inches': 0.12,
}


def panel(axes, title, left, right, top, bottom):
    """Prepare an axis in pixels: row numbers grow downwards."""
    axes.set_title(title, loc='left')
    axes.set_aspect('equal')
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_anchor('N')
    axes.set_axis_off()


def pixels(axes, rows, columns, *, colour=LINE, side=1.0, lw=0.8):
    """Draw a grid of pixels that are `side` wide; the centre of pixel [0, 0] is at [0, 0]."""
    for row in range(rows + 1):
        y = (row - 0.5) * side
        axes.plot([-side / 2, (columns - 0.5) * side], [y, y], color=colour, lw=lw, zorder=1)
    for column in range(columns + 1):
        x = (column - 0.5) * side
        axes.plot([x, x], [-side / 2, (rows - 0.5) * side], color=colour, lw=lw, zorder=1)


def box(axes, corner, size, colour, **style):
    style = {'lw': 2.2, 'facecolor': 'none', 'zorder': 3} | style
    y, x = corner
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), size, size, edgecolor=colour, **style))


def cross(axes, y, x, colour, size=9):
    axes.plot(x, y, marker='x', color=colour, ms=size, mew=2.4, zorder=5)


def dot(axes, y, x, colour, size=6.0):
    axes.plot(x, y, marker='o', color=colour, ms=size, mew=0, zorder=5)


def arrow(axes, start, end, colour, **style):
    """Draw an arrow between points [y, x]."""
    style = {'arrowstyle': '-|>', 'color': colour, 'lw': 1.8, 'shrinkA': 0, 'shrinkB': 0} | style
    axes.annotate('', xy=end[::-1], xytext=start[::-1], arrowprops=style, zorder=6)


def label(axes, text, target, place, colour):
    """Write `text` at `place` [y, x], with a thin line to `target`."""
    line = {'arrowstyle': '-', 'color': colour, 'lw': 0.9, 'shrinkA': 2, 'shrinkB': 4}
    axes.annotate(
        text,
        xy=target[::-1],
        xytext=place[::-1],
        color=colour,
        va='center',
        arrowprops=line,
        zorder=7,
    )


def axes_and_centre():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=[1.5, 1])
    panel(left, 'Row first: a position is [y, x]', -1.8, 15.5, -1.9, 7.7)
    pixels(left, 8, 10)
    arrow(left, (-1.2, -0.5), (-1.2, 2.5), INK)
    left.text(2.8, -1.2, 'x, columns', va='center')
    arrow(left, (-0.5, -1.2), (2.5, -1.2), INK)
    left.text(-1.2, 2.8, 'y, rows', ha='center', va='top', rotation=90)
    left.text(0, 0, '[0, 0]', ha='center', va='center', color=GREY, fontsize=7)
    box(left, (2, 4), 4, BLUE, facecolor='#2364aa18')
    box(left, (2, 4), 1, BLUE, facecolor='#2364aa40', lw=1)
    cross(left, 3.5, 5.5, ORANGE)
    label(left, 'corner (first pixel)\n[2, 4]', (2, 4), (0.7, 10.2), BLUE)
    label(left, 'position: the centre\n[3.5, 5.5]', (3.5, 5.5), (3.5, 10.2), ORANGE)
    label(left, 'patch of N = 4', (5, 7.2), (5.9, 10.2), BLUE)

    panel(right, 'The centre of N pixels is (N - 1) / 2', -1.9, 6.4, -1.3, 5.2)
    for row, n in ((0, 4), (3.1, 5)):
        for pixel in range(n):
            right.add_patch(Rectangle((pixel - 0.5, row - 0.5), 1, 1, fc='white', ec=GREY, lw=1))
            right.text(pixel, row + 0.3, str(pixel), ha='center', va='center', color=GREY, size=8)
        right.text(-0.8, row, f'N = {n}', ha='right', va='center')
        dot(right, row - 0.12, n // 2, GREEN)
        cross(right, row - 0.12, (n - 1) / 2, ORANGE)
        right.text(
            -0.5, row + 0.9, f'centre (N - 1) / 2 = {(n - 1) / 2:g}', color=ORANGE, va='center'
        )
        right.text(-0.5, row + 1.5, f'beam at pixel N // 2 = {n // 2}', color=GREEN, va='center')
    figure.savefig(FOLDER / 'axes.png')


def probe_shift():
    n, position = 8, np.array([5.15, 6.9])
    corners, remainders = patch_corners(position[None], n)
    corner, remainder = corners[0], remainders[0]
    y, x = np.indices((n, n)) - (n - 1) / 2
    probe = np.exp(-(y**2 + x**2) / 5)[None]
    canvas = np.zeros((10, 13))
    window = tuple(slice(first, first + n) for first in corner)
    canvas[window] = np.abs(shift_probe(probe, remainder[None])[0, 0]) ** 2

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), width_ratios=[1.35, 1])
    title = 'The object is read at whole pixels, the probe is shifted'
    panel(left, title, -0.6, 19.5, -0.8, 9.7)
    left.imshow(canvas, cmap='Blues', vmax=1.7, zorder=0)
    pixels(left, 10, 13)
    box(left, corner, n, BLUE)
    centre = corner + (n - 1) / 2
    dot(left, *centre, BLUE, size=5)
    cross(left, *position, ORANGE)
    arrow(left, centre, position, INK, mutation_scale=8, lw=1.4)
    label(left, 'patch of the object', (corner[0] + 0.3, 10.5), (1.2, 13.1), BLUE)
    label(left, 'position, and\ncentre of the light', position, (4.0, 13.1), ORANGE)
    label(left, 'corner + (N - 1) / 2', centre, (6.1, 13.1), BLUE)
    text = f'arrow: the remainder\n[dy, dx] = [{remainder[0]:.2f}, {remainder[1]:.2f}]'
    left.text(13.1, 8.1, text, va='center')

    right.set_title('A corner takes half a pixel on either side', loc='left')
    right.set_xlim(1.1, 4.9)
    right.set_ylim(-1.3, 1.25)
    right.set_axis_off()
    right.plot([1.2, 4.8], [0, 0], color=INK, lw=1.2)
    for at in (2, 4, 3):
        colour = BLUE if at == 3 else '#b9c2cf'
        right.plot([at] * 2, [-0.06, 0.06], color=INK, lw=1.5)
        right.text(at, -0.25, f'{at}', ha='center')
        height = 0.45 if at == 3 else 0.27
        right.plot([at - 0.5, at + 0.5], [height] * 2, color=colour, lw=3.5, zorder=3)
        right.plot(at - 0.5, height, marker='o', color=colour, ms=8, mew=2, zorder=4)
        right.plot(at + 0.5, height, marker='o', mfc='white', mec=colour, mew=2, ms=8, zorder=4)
    right.text(3, 0.64, 'corner 3: from 2.5 to below 3.5', color=BLUE, ha='center')
    right.text(3, 0.98, 'remainder in [-0.5, 0.5)', ha='center', color=ORANGE)
    right.text(3, -0.58, 'position - (N - 1) / 2', ha='center')
    right.text(3, -1.05, 'a half goes up: 2.5 is corner 3, remainder -0.5', ha='center', color=GREY)
    figure.savefig(FOLDER / 'probe-shift.png')


def beam_centre():
    n = 8
    y, x = np.indices((n, n)) - n // 2
    beam = np.exp(-(y**2 + 0.5 * x**2) / 5) * (1 - 0.7 * np.exp(-((x - y - 1) ** 2)))
    pattern = np.log1p(2e3 * np.abs(far_field(beam * np.exp(0.2j * x * y))) ** 2 / n**2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.1))
    shown = (
        (left, np.fft.ifftshift(pattern), 'In some files: beam at pixel [0, 0]', 0),
        (right, pattern, 'Here: beam at pixel [N // 2, N // 2]', n // 2),
    )
    for axes, image, title, pixel in shown:
        panel(axes, title, -1.2, n + 1.6, -1.4, n + 0.5)
        axes.imshow(image, cmap='Greys', vmax=1.15 * pattern.max(), zorder=0)
        pixels(axes, n, n)
        box(axes, (pixel, pixel), 1, ORANGE, lw=2.6, zorder=5)
    middle, edges = (n - 1) / 2, (-0.9, n - 0.1)
    right.plot(edges, (middle, middle), color=BLUE, lw=1.3, ls='--', zorder=4)
    right.plot((middle, middle), edges, color=BLUE, lw=1.3, ls='--', zorder=4)
    right.text(n - 0.1, middle, 'middle\nat 3.5', color=BLUE, va='center')
    right.text(middle, n + 0.2, 'N = 8: pixel [4, 4]', color=ORANGE, ha='center')
    left.text(
        middle, n + 0.2, '--beam-center corner', color=ORANGE, ha='center', family='monospace'
    )
    arrow(left, (middle, n - 0.1), (middle, n + 1.5), INK)
    left.text(n + 0.7, middle - 0.4, 'moved\nwhen read', ha='center', size=9)
    figure.savefig(FOLDER / 'beam-centre.png')


def detector_cropping():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), width_ratios=[1, 1.75])
    panel(left, "Detector: N' = 4 of N = 8 pixels", -1.2, 8.2, -1.2, 8.6)
    pixels(left, 8, 8)
    box(left, (2, 2), 4, BLUE, facecolor='#2364aa18')
    box(left, (4, 4), 1, GREEN, facecolor='#2a7f4f50')
    left.text(3.5, 8.2, "the beam: pixel N // 2, then N' // 2", color=GREEN, ha='center')

    panel(right, 'Sample: pixels twice as large about the same points', -1.2, 17.5, -1.2, 8.6)
    pixels(right, 8, 10)
    pixels(right, 4, 5, colour='#2364aa', side=2, lw=1.2)
    for row in range(8):
        for column in range(10):
            large = row % 2 == column % 2 == 0
            dot(right, row, column, BLUE if large else GREY, size=5 if large else 2.2)
    right.text(0.15, -0.3, '[0, 0]', color=BLUE, fontsize=7, ha='left', va='center')
    point, before, after = (4, 6), (3.5, 5.5), (3, 5)
    dot(right, *point, GREEN, size=10)
    cross(right, *before, ORANGE, size=8)
    cross(right, *after, BLUE, size=8)
    label(right, 'centre of the patch after:\nx = 2.5 large pixels', after, (0.9, 10.3), BLUE)
    label(right, 'centre of the patch before:\nx = 5.5 pixels', before, (3.2, 10.3), ORANGE)
    label(
        right, 'its pixel N // 2 stays: x = 6\npixels, or 3 large ones', point, (5.5, 10.3), GREEN
    )
    right.text(4.5, 8.2, "position' = (position + ½) · N' / N - ½", ha='center')
    figure.savefig(FOLDER / 'detector-cropping.png')


if __name__ == '__main__':
    with mpl.rc_context(STYLE):
        axes_and_centre()
        probe_shift()
        beam_centre()
        detector_cropping()
