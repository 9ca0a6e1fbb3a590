"""Seeded objects for simulation: natural images, dead leaves, a Siemens star, a circuit.

A painter draws two maps in [0, 1] on a square grid: what attenuates and what retards.
`make_object` turns them into a transmission function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator

from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray

ObjectKind: TypeAlias = Literal['natural', 'dead-leaves', 'siemens-star', 'circuit']
ImageSet: TypeAlias = Literal['training', 'test']
Map: TypeAlias = PositionArray
Maps: TypeAlias = tuple[Map, Map]

IMAGE_SETS: dict[ImageSet, tuple[str, ...]] = {
    'training': (
        'astronaut',
        'brick',
        'cell',
        'chelsea',
        'grass',
        'gravel',
        'hubble_deep_field',
        'immunohistochemistry',
        'moon',
        'page',
        'retina',
        'rocket',
        'text',
    ),
    'test': ('camera', 'clock', 'coffee', 'coins'),
}
"""Images inside the wheel of scikit-image (`skimage.data`): no network, no pooch."""

MAX_ENLARGEMENT = 1.5
MAX_REDUCTION = 2.5
"""How far an image is enlarged (it blurs) or reduced (it turns into noise) to fill an object."""

MIN_CONTRAST = 0.2
"""Grey range below which a view is not stretched to the full range: it is mostly camera noise."""

LEAF_LAYERS = 5
"""Summed area of all leaves over the area of the object: hardly a pixel stays bare."""

SMALLEST_LEAF_PX = 3.0
"""Radius of the smallest leaf; the largest is a fifth of the object."""

OVERSAMPLING = 4
"""Samples per pixel and axis where a shape has no simple antialiased form."""


def make_object(
    kind: ObjectKind,
    side_px: int,
    rng: Generator,
    *,
    amplitude_min: float,
    phase_range_rad: float,
    images: ImageSet = 'training',
) -> ComplexArray:
    """Return an (h, w) complex64 transmission function with h = w = `side_px`.

    Parameters
    ----------
    kind
        What it shows.
    side_px
        Side of the square grid.
    rng
        All randomness; the same state gives the same object.
    amplitude_min
        Amplitudes are in [amplitude_min, 1].
    phase_range_rad
        Phases are in [0, phase_range_rad].
    images
        Which photographs 'natural' may use; the other kinds are the same for both.
    """
    if kind == 'natural':
        attenuation, retardation = _natural(side_px, rng, IMAGE_SETS[images])
    else:
        attenuation, retardation = _PAINTERS[kind](side_px, rng)
    amplitude = 1 - (1 - amplitude_min) * attenuation
    return np.asarray(amplitude * np.exp(1j * phase_range_rad * retardation), dtype=np.complex64)


def load_image(name: str) -> Map:
    """Return a photograph of `skimage.data` as (h, w) float64 grey values in [0, 1]."""
    from skimage import color, data, util

    image = getattr(data, name)()
    if image.ndim == 3:
        return np.asarray(color.rgb2gray(image))
    return np.asarray(util.img_as_float64(image))  # type: ignore[no-untyped-call]


def _natural(side_px: int, rng: Generator, names: tuple[str, ...]) -> Maps:
    """One photograph for the amplitude, bright where it transmits, and another for the phase."""
    first, second = rng.choice(len(names), size=2, replace=False)
    return 1 - _random_view(names[first], side_px, rng), _random_view(names[second], side_px, rng)


def _random_view(name: str, side_px: int, rng: Generator) -> Map:
    """Crop, zoom, turn and flip an image at random to a square of `side_px`, full contrast."""
    from skimage import transform

    image = load_image(name)
    wanted = rng.uniform(0.5, 1.0) * min(image.shape)
    crop = round(np.clip(wanted, side_px / MAX_ENLARGEMENT, side_px * MAX_REDUCTION))
    # A large object sees the image's mirror images beyond its edges.
    missing = [max(0, crop - length) for length in image.shape]
    image = np.pad(image, [(m // 2, m - m // 2) for m in missing], mode='reflect')
    y, x = (int(rng.integers(length - crop + 1)) for length in image.shape)
    square = image[y : y + crop, x : x + crop]
    square = np.rot90(square, int(rng.integers(4)))
    if rng.integers(2):
        square = square[:, ::-1]
    view = transform.resize(  # type: ignore[no-untyped-call]
        square, (side_px, side_px), order=1, anti_aliasing=True
    )
    low, high = np.percentile(view, (0.5, 99.5))
    return np.asarray(np.clip((view - low) / max(high - low, MIN_CONTRAST), 0, 1))


def _dead_leaves(side_px: int, rng: Generator) -> Maps:
    """Discs and convex polygons that hide each other, radii by the power law r^-3.

    The model has the edges, occlusions and scale invariance of natural scenes (Lee, Mumford &
    Huang, Int. J. Comput. Vision 41, 35, 2001).
    """
    maps = np.full((2, side_px, side_px), 0.5)
    largest, covered = side_px / 5, 0.0
    while covered < LEAF_LAYERS * side_px**2:
        # The square of a radius that is drawn from r^-3 has a uniform inverse.
        radius = rng.uniform(largest**-2, SMALLEST_LEAF_PX**-2) ** -0.5
        covered += np.pi * radius**2
        centre = rng.uniform(0, side_px, size=2)
        low = np.maximum(np.floor(centre - radius - 1), 0).astype(int)
        high = np.minimum(np.ceil(centre + radius + 2), side_px).astype(int)
        y = np.arange(low[0], high[0])[:, None] - centre[0]
        x = np.arange(low[1], high[1])[None] - centre[1]
        alpha = np.clip(0.5 - _leaf_distance(y, x, radius, rng), 0, 1)
        window = maps[:, low[0] : high[0], low[1] : high[1]]
        window += alpha * (rng.uniform(size=(2, 1, 1)) - window)
    return maps[0], maps[1]


def _leaf_distance(y: Map, x: Map, radius: float, rng: Generator) -> Map:
    """Return the signed distance in pixels to the edge of a random leaf, negative inside."""
    corners = int(rng.integers(2, 7))
    if corners == 2:
        return np.asarray(np.hypot(y, x) - radius)
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, size=corners)) / corners
    angles += rng.uniform(0, 2 * np.pi)
    apothem = radius * np.cos(np.pi / corners)
    sides = [np.sin(angle) * y + np.cos(angle) * x - apothem for angle in angles]
    # Unequal angles push some corners outwards; the circle cuts them off.
    return np.asarray(np.maximum(np.max(sides, axis=0), np.hypot(y, x) - radius))


def _siemens_star(side_px: int, rng: Generator) -> Maps:
    """A resolution star: spokes, two gaps that part them, a disc inside, a ring outside."""
    spokes = int(rng.integers(12, 21)) * 2
    turn = rng.uniform(0, 2 * np.pi)
    centre = (side_px - 1) / 2 + rng.uniform(-0.03, 0.03, size=2) * side_px
    axis = (np.arange(side_px * OVERSAMPLING) + 0.5) / OVERSAMPLING - 0.5
    y, x = axis[:, None] - centre[0], axis[None] - centre[1]
    radius = np.hypot(y, x) / (0.36 * side_px)
    inside = np.sin(spokes * np.arctan2(y, x) + turn) > 0
    inside &= (radius > 0.12) & (radius < 0.9)
    inside &= (np.abs(radius - 0.36) > 0.02) & (np.abs(radius - 0.63) > 0.02)
    inside |= (radius < 0.08) | (np.abs(radius - 0.97) < 0.03)
    tiles = inside.reshape(side_px, OVERSAMPLING, side_px, OVERSAMPLING)
    star = tiles.mean(axis=(1, 3))
    return star, star


def _circuit(side_px: int, rng: Generator) -> Maps:
    """Two layers of wires, across and down, joined by vias where they cross."""
    rows, columns = _wires(side_px, rng), _wires(side_px, rng)
    lower, upper, vias = (np.zeros((side_px, side_px)) for _ in range(3))
    for row in rows:
        for segment in _segments(side_px, rng):
            _paint(lower, row, segment)
    for column in columns:
        for segment in _segments(side_px, rng):
            _paint(upper, segment, column)
    crossings = lower * upper
    for row in rows:
        for column in columns:
            here = int(sum(row) / 2), int(sum(column) / 2)
            if max(here) < side_px and crossings[here] > 0 and rng.uniform() < 0.4:
                _paint(vias, _widened(row), _widened(column))
    attenuation = np.max([0.35 * lower, 0.6 * upper, vias], axis=0)
    return attenuation, 0.45 * lower + 0.3 * upper + 0.25 * vias


def _segments(side_px: int, rng: Generator) -> list[tuple[float, float]]:
    """Return the ends of two pieces of a wire, which may overlap or leave the object."""
    ends = np.sort(rng.uniform(-0.2, 1.2, size=(2, 2)) * side_px, axis=1)
    return [(float(start), float(stop)) for start, stop in ends]


def _wires(side_px: int, rng: Generator) -> list[tuple[float, float]]:
    """Return the first and last edge of parallel wires, of mixed width and pitch, in pixels."""
    wires, edge = [], float(rng.uniform(0, 4))
    while edge < side_px:
        width = float(rng.choice([2.0, 2.5, 3.5, 5.0, 9.0]))
        wires.append((edge, edge + width))
        edge += width * float(rng.uniform(1.8, 3.5))
    return wires


def _widened(edges: tuple[float, float]) -> tuple[float, float]:
    return edges[0] - 0.8, edges[1] + 0.8


def _paint(layer: Map, rows: tuple[float, float], columns: tuple[float, float]) -> None:
    """Lay a rectangle over `layer` in place; the pixels on its edges are covered in part."""
    edges = np.arange(len(layer) + 1, dtype=np.float64)
    y, x = (np.diff(np.clip(edges, *span)) for span in (rows, columns))
    np.maximum(layer, y[:, None] * x[None], out=layer)


_PAINTERS: dict[ObjectKind, Callable[[int, Generator], Maps]] = {
    'dead-leaves': _dead_leaves,
    'siemens-star': _siemens_star,
    'circuit': _circuit,
}
