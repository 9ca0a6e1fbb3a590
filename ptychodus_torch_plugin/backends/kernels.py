"""What visits of patterns compute on a processor between two Fourier transforms.

Compiled by Numba, once for every combination of data types, and kept on disk for later processes.
Each kernel does at once, while numbers are in the nearest cache, what would be many passes over
memory, and many calls, in operations on arrays.  Symbols are those of `sweeps`.  Axes: b pattern of
a batch, k node of the interpolated shift, m mode.  Arrays are contiguous; those that are changed,
in place, come first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.arrays import IndexArray
from ptychodus_torch_plugin.physics import Complex, Real

Kernel = TypeVar('Kernel', bound=Callable[..., None])

ZERO, HALF, ONE, EIGHT = (np.float32(value) for value in (0, 0.5, 1, 8))
MIN_INTENSITY = np.float32(physics.MIN_INTENSITY)
"""Of single precision: others would turn all that they touch into doubles."""

LINES = 8
"""Lines of a pattern, of all nodes, that stay in the nearest cache while all patterns use them."""

logger = logging.getLogger(__name__)


def _compiled(kernel: Kernel) -> Kernel:
    """Return the kernel as Numba compiles it when it is first called."""
    options: dict[str, Any] = {
        'nogil': True,
        'error_model': 'numpy',
        # Sums in any order, so that they are done several at a time; infinities stay what they are.
        'fastmath': {'reassoc', 'contract', 'nsz'},
    }
    try:
        compiled: Kernel = njit(cache=True, **options)(kernel)
    except RuntimeError as error:
        logger.warning(
            'Every process compiles its kernels anew, for some seconds: %s. Set NUMBA_CACHE_DIR to '
            'a folder that can be written.',
            error,
        )
        compiled = njit(**options)(kernel)
    return compiled


@_compiled
def mix(mixed: Complex, weights: Real, nodes: Complex, first: int) -> None:
    """Set `mixed` (p,) to the sum of nodes (k, P), from pixel `first` on, with `weights` (k,)."""
    n_nodes, end = len(nodes), first + len(mixed)
    mixed[:] = ZERO
    # Three at once: half as often through memory.  By parts: real times complex is no fewer
    # multiplications than complex times complex, or else.
    for k in range(0, n_nodes - 2, 3):
        u, v, w = weights[k], weights[k + 1], weights[k + 2]
        a, b, c = nodes[k, first:end], nodes[k + 1, first:end], nodes[k + 2, first:end]
        for x in range(len(mixed)):
            mixed[x] = complex(
                mixed[x].real + u * a[x].real + v * b[x].real + w * c[x].real,
                mixed[x].imag + u * a[x].imag + v * b[x].imag + w * c[x].imag,
            )
    for k in range(n_nodes - n_nodes % 3, n_nodes):
        u, a = weights[k], nodes[k, first:end]
        for x in range(len(mixed)):
            mixed[x] = complex(mixed[x].real + u * a[x].real, mixed[x].imag + u * a[x].imag)


@_compiled
def multiply(products: Complex, spectra: Complex, kernel: Complex) -> None:
    """Set `products` (k, m, N, N) to spectra (m, N, N) times the kernel (k, N, N)."""
    for k in range(len(kernel)):
        for mode in range(len(spectra)):
            product, factor = products[k, mode].reshape(-1), kernel[k].reshape(-1)
            spectrum = spectra[mode].reshape(-1)
            for i in range(len(product)):
                product[i] = spectrum[i] * factor[i]


@_compiled
def sum_products(total: Complex, spectra: Complex, kernel: Complex) -> None:
    """Set `total` (m, N, N) to the sum of spectra (k, m, N, N) times the conjugate kernel."""
    total[:] = ZERO
    for k in range(len(kernel)):
        for mode in range(len(total)):
            sum_, factor = total[mode].reshape(-1), kernel[k].reshape(-1)
            spectrum = spectra[k, mode].reshape(-1)
            for i in range(len(sum_)):
                sum_[i] += spectrum[i] * factor[i].conjugate()


@_compiled
def expose(
    exits: Complex, object_: Complex, corners: IndexArray, weights: Real, probes: Complex
) -> None:
    """Set `exits` (b, m, N, N) to the exit waves psi = P o.

    Of an object (h, w), at first pixels `corners` (b, 2), under probes (k, m N N) at the nodes with
    the `weights` (b, k).
    """
    n_patterns, n_modes, n_px, _ = exits.shape
    for mode in range(n_modes):
        for top in range(0, n_px, LINES):
            for j in range(n_patterns):
                lines = exits[j, mode, top : top + LINES]
                mix(lines.reshape(-1), weights[j], probes, (mode * n_px + top) * n_px)
                for y in range(len(lines)):
                    row, column = corners[j, 0] + top + y, corners[j, 1]
                    exit_, patch = lines[y], object_[row, column : column + n_px]
                    for x in range(n_px):
                        exit_[x] *= patch[x]


@_compiled
def impose_counts(
    waves: Complex,
    figures: Real,
    counts: Real,
    scale: Real,
    offset: Real,
    background: Real,
    moments: Real,
) -> None:
    """Turn far fields (b, m, P) into what the counts (b, P) change them by; P = N N pixels.

    That is `physics.impose_counts` less the waves: f - 1 = offset + scale sqrt(1 + 8 k / i), of
    `offset` and `scale` (P,).  `figures` (b, 8) become the moments of expected and of measured
    counts, which `moments` (4, P) weigh, unless no figures are wanted: (b, 0).
    """
    n_patterns, n_modes, n_pixels = waves.shape
    intensity = np.empty(n_pixels, scale.dtype)
    for j in range(n_patterns):
        count = counts[j]
        intensity[:] = ZERO
        for mode in range(n_modes):
            wave = waves[j, mode]
            for i in range(n_pixels):
                intensity[i] += wave[i].real * wave[i].real + wave[i].imag * wave[i].imag
        for moment in range(figures.shape[1] // 2):
            weight, expected, measured = moments[moment], ZERO, ZERO
            for i in range(n_pixels):
                expected += intensity[i] * weight[i]
                measured += (count[i] - background[i]) * weight[i]
            figures[j, 2 * moment] = expected
            figures[j, 2 * moment + 1] = measured
        for i in range(n_pixels):
            ratio = count[i] / max(intensity[i] + background[i], MIN_INTENSITY)
            intensity[i] = offset[i] + scale[i] * np.sqrt(ONE + EIGHT * ratio)
        for mode in range(n_modes):
            wave = waves[j, mode]
            for i in range(n_pixels):
                wave[i] *= intensity[i]


@_compiled
def pull_object(
    object_: Complex, corners: IndexArray, weights: Real, pulls: Complex, change: Complex
) -> None:
    """Add to the object what changes of exit waves (b, m, N, N) demand.

    They pull with `pulls` (k, m N N) at the nodes; other arguments as for `expose`.
    """
    n_patterns, n_modes, n_px, _ = change.shape
    mixed = np.empty((LINES, n_px), object_.dtype)
    for mode in range(n_modes):
        for top in range(0, n_px, LINES):
            for j in range(n_patterns):
                wanted = change[j, mode, top : top + LINES]
                pull = mixed[: len(wanted)]
                mix(pull.reshape(-1), weights[j], pulls, (mode * n_px + top) * n_px)
                for y in range(len(wanted)):
                    row, column = corners[j, 0] + top + y, corners[j, 1]
                    patch = object_[row, column : column + n_px]
                    for x in range(n_px):
                        patch[x] += pull[y, x] * wanted[y, x]


@_compiled
def pull_probe(
    waves: Complex,
    light: Real,
    object_: Complex,
    corners: IndexArray,
    weights: Real,
    change: Complex,
) -> None:
    """Set `waves` (k, m N N) to what changes (b, m, N, N) demand of the probe at each node.

    `light` (N, N) becomes the sum of |o|^2; other arguments as for `expose`.
    """
    n_patterns, n_modes, n_px, _ = change.shape
    pull = np.empty((LINES, n_px), object_.dtype)
    waves[:] = ZERO
    light[:] = ZERO
    for mode in range(n_modes):
        for top in range(0, n_px, LINES):
            for j in range(n_patterns):
                wanted = change[j, mode, top : top + LINES]
                for y in range(len(wanted)):
                    row, column = corners[j, 0] + top + y, corners[j, 1]
                    patch = object_[row, column : column + n_px]
                    for x in range(n_px):
                        pull[y, x] = wanted[y, x] * patch[x].conjugate()
                    if mode == 0:
                        seen = light[top + y]
                        for x in range(n_px):
                            seen[x] += patch[x].real * patch[x].real + patch[x].imag * patch[x].imag
                flat, at = pull[: len(wanted)].reshape(-1), (mode * n_px + top) * n_px
                for k in range(len(waves)):
                    weight, wave = weights[j, k], waves[k, at : at + len(flat)]
                    for i in range(len(flat)):
                        wave[i] = complex(
                            wave[i].real + weight * flat[i].real,
                            wave[i].imag + weight * flat[i].imag,
                        )


@_compiled
def note_displacements(
    figures: Real,
    object_: Complex,
    corners: IndexArray,
    weights: Real,
    probes: Complex,
    change: Complex,
) -> None:
    """Set `figures` (b, 5) to those of `exposures.displacement_figures`.

    Of the changes (b, m, N, N); other arguments as for `expose`.
    """
    n_patterns, n_modes, n_px, _ = change.shape
    probe = np.empty(n_px, object_.dtype)
    down, right = np.zeros(n_px, object_.dtype), np.zeros(n_px, object_.dtype)
    for j in range(n_patterns):
        row, column = corners[j]
        figures[j] = 0
        for y in range(n_px):
            here = object_[row + y, column : column + n_px]
            if 0 < y < n_px - 1:
                above = object_[row + y - 1, column : column + n_px]
                below = object_[row + y + 1, column : column + n_px]
                for x in range(n_px):
                    down[x] = HALF * (below[x] - above[x])
            else:
                down[:] = ZERO
            for x in range(1, n_px - 1):
                right[x] = HALF * (here[x + 1] - here[x - 1])
            for mode in range(n_modes):
                mix(probe, weights[j], probes, (mode * n_px + y) * n_px)
                wanted = change[j, mode, y]
                g_y, g_x, h_yy, h_xx, h_xy = ZERO, ZERO, ZERO, ZERO, ZERO
                for x in range(n_px):
                    moved_y, moved_x = probe[x] * down[x], probe[x] * right[x]
                    g_y += (moved_y.conjugate() * wanted[x]).real
                    g_x += (moved_x.conjugate() * wanted[x]).real
                    h_yy += (moved_y.conjugate() * moved_y).real
                    h_xx += (moved_x.conjugate() * moved_x).real
                    h_xy += (moved_y.conjugate() * moved_x).real
                figures[j, 0] += g_y
                figures[j, 1] += g_x
                figures[j, 2] += h_yy
                figures[j, 3] += h_xx
                figures[j, 4] += h_xy
