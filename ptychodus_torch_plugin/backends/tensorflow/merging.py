"""From the patches of a group to the group's canvas and back, differentiable.

A patch lies with its centre (N - 1) / 2 at an offset [dy, dx] from the canvas' centre (M - 1) / 2,
which is the group's, and is written and read by bilinear interpolation.  That is a product with one
banded matrix per axis, so that reading is the adjoint of writing.  The oracle is
`ptychodus_torch_plugin.stitching`, with `merge_group` and `read_group`.

Axes: B group, c pattern within a group, N side of a patch, M side of the canvas; M - N is even.
Products are along the last two axes, so patches are (B, c, N, N) here: `data.channels_first`.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow import Tensor

from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.stitching import NEGLIGIBLE_WEIGHT


def translations(offsets_px: Tensor, n_px: int, side_px: int) -> tuple[Tensor, Tensor]:
    """Return the matrices that write patches at their offsets.

    Parameters
    ----------
    offsets_px : (B, c, 2) float32
        Centres of the patches [dy, dx] from the centre of the canvas, in pixels.  What leaves the
        canvas is lost: `stitching.canvas_px` says how large it must be.
    n_px, side_px
        Sides N of a patch and M of the canvas.

    Returns
    -------
    rows, columns : (B, c, M, N) float32
        S[i, j] = max(0, 1 - |i - j - (M - N) / 2 - offset|): weight of patch pixel j on canvas
        pixel i along y and along x.
    """
    margin = _margin_px(n_px, side_px)
    line = tf.range(side_px, dtype=offsets_px.dtype)
    distance = line[:, None] - line[:n_px] - margin
    matrices = tf.nn.relu(1 - tf.abs(distance - offsets_px[..., None, None]))
    return matrices[:, :, 0], matrices[:, :, 1]


def merge_patches(
    patches: Tensor, weight: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """Average the patches of each group by their weight where they overlap.

    Parameters
    ----------
    patches : (B, c, N, N) complex64
    weight : (N, N) float32
        Of every pixel of a patch, not negative; the same for all patches.
    rows, columns : (B, c, M, N) float32
        From `translations`.

    Returns
    -------
    canvas : (B, M, M) complex64
        sum_c S_y (w p_c) S_x^T / sum_c S_y w S_x^T, and 0 where no patch lies.
    coverage : (B, M, M) float32
        That denominator; 0 where it is negligible, and there no patch counts as lying.
    """
    real, imaginary = tf.math.real(patches), tf.math.imag(patches)
    layers = tf.stack([weight * real, weight * imaginary, weight * tf.ones_like(real)], 3)
    real, imaginary, coverage = tf.unstack(_write(layers, rows, columns), axis=2)
    covered = coverage > NEGLIGIBLE_WEIGHT * tf.reduce_max(weight)
    # Divisors that are not used must not be zero: their gradient would be NaN.
    share = tf.cast(covered, coverage.dtype) / tf.where(covered, coverage, 1)
    return tf.complex(real * share, imaginary * share), tf.where(covered, coverage, 0)


def single_patch_canvas(patches: Tensor, side_px: int) -> Tensor:
    """Return the canvas (B, M, M) of groups that have one patch (B, 1, N, N), at their centre."""
    margin = [_margin_px(patches.shape[-1], side_px)] * 2
    return tf.pad(patches[:, 0], [[0, 0], margin, margin])


def read_patches(canvas: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return what each pattern sees of its group's canvas.

    Parameters
    ----------
    canvas : (B, M, M) complex64
    rows, columns : (B, c, M, N) float32
        From `translations`.

    Returns
    -------
    patches : (B, c, N, N) complex64
        S_y^T canvas S_x, the canvas interpolated at the pixels of the patches.
    """
    count, side_px, n_px = rows.shape[1:]
    # One product for all patches of a group, real and imaginary parts side by side.
    parts = tf.concat([tf.math.real(canvas), tf.math.imag(canvas)], -1)
    upright = tf.reshape(tf.linalg.matrix_transpose(rows), [-1, count * n_px, side_px])
    strips = tf.reshape(upright @ parts, [-1, count, n_px * 2, side_px])
    read = tf.reshape(strips @ columns, [-1, count, n_px, 2, n_px])
    return tf.complex(read[:, :, :, 0], read[:, :, :, 1])


def merged_patch(canvas: Tensor, n_px: int) -> Tensor:
    """Return the central (B, N, N) of canvases (B, M, M)."""
    first = _margin_px(n_px, canvas.shape[-1])
    inside = slice(first, first + n_px)
    return canvas[:, inside, inside]


def _write(layers: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Add up the patches' layers (B, c, N, k, N) on the canvas, (B, M, k, M)."""
    count, side_px, n_px = rows.shape[1:]
    depth = layers.shape[3]
    lines = tf.reshape(layers, [-1, count, n_px * depth, n_px])
    strips = tf.matmul(lines, columns, transpose_b=True)
    # The sum over the group is part of the second product.
    tall = tf.reshape(tf.transpose(rows, (0, 2, 1, 3)), [-1, side_px, count * n_px])
    canvas = tall @ tf.reshape(strips, [-1, count * n_px, depth * side_px])
    return tf.reshape(canvas, [-1, side_px, depth, side_px])


def _margin_px(n_px: int, side_px: int) -> int:
    """Return (M - N) / 2."""
    if side_px < n_px or (side_px - n_px) % 2:
        raise ShapeError(
            f'a canvas of {side_px} px cannot hold patches of {n_px} px at its centre; expected '
            f'{n_px} px, or more by an even number. Take its side from stitching.canvas_px.'
        )
    return (side_px - n_px) // 2
