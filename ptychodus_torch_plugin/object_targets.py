"""What a corrected object is compared with, without labels: the object of other photons.

Binomial thinning splits counts into two independent parts.  Sweeps make an object of each; their
errors share nothing but what sweeps get wrong for every draw of photons.  A network that is to turn
one into the other learns the object and not the noise (Noise2Noise, Lehtinen et al., ICML 2018).
Other than the likelihood of patterns, the distance of objects weighs slow variations like fast
ones: patterns hardly tell the former.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptychodus_torch_plugin.alignment import align
from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, FloatArray
from ptychodus_torch_plugin.regions import scanned_region
from ptychodus_torch_plugin.scan import ScanData

NOISE_FLOOR = 1.0
"""Photons on a pixel that count as half a look at it."""


@dataclass(frozen=True)
class ObjectTarget:
    """What a correction of an object is compared with.

    The loss of a correction c is the mean of `weight` |c - `object_`|^2 over a part of the canvas:
    about 1 for an object that is left as it is, where the beam has scanned all of that part.

    Attributes
    ----------
    object_ : (h, w) complex64
        Object of the other photons, laid over the one that is corrected.
    weight : (h, w) float32
        0 where the beam has not scanned.
    """

    object_: ComplexArray
    weight: FloatArray


def object_target(
    object_: ComplexArray,
    photons: FloatArray,
    other: ComplexArray,
    region: BoolArray,
    share: float,
) -> ObjectTarget:
    """Return what corrections of `object_` are compared with.

    `align` lays the other object over this one by least squares, and so makes it the darker the
    noisier it is.  How much darker is known where the noise of both is in a known proportion
    (Deming's regression); two objects of equal parts keep their brightness.

    Parameters
    ----------
    object_ : (h, w) complex64
        Object that is corrected.
    photons : (h, w) float32
        Photons that fell on its pixels.
    other : (h, w) complex64
        Object of independent photons on the same canvas.
    region : (h, w) bool
        Where objects are compared.
    share
        Share of all photons that `object_` was made of, above 0 and below 1; the noise of an object
        is inverse to its photons.
    """
    laid_over = align(other, object_, region)
    noise = (1 - share) / share / abs(laid_over.scale) ** 2
    aligned = laid_over.object_
    aligned = aligned * _undarkened(_power(object_[region]) / _power(aligned[region]), noise)
    weight = region * photons / (photons + NOISE_FLOOR)
    distance = float(np.average(np.abs(aligned - object_) ** 2, weights=weight))
    weight = weight / max(distance, np.finfo(np.float32).tiny)
    return ObjectTarget(aligned, weight.astype(np.float32))


def _power(values: ComplexArray) -> float:
    return float(np.mean(np.abs(values) ** 2, dtype=np.float64))


def _undarkened(power: float, noise: float) -> np.float32:
    """Return the slope of y over x, where least squares that put all noise into y said 1.

    Parameters
    ----------
    power, noise
        Mean square of y, and variance of its noise, over those of x.
    """
    difference = power - noise
    # Large numbers of opposite sign would leave nothing but roundings.
    root = math.hypot(difference, 2 * math.sqrt(noise))
    slope = 2 * noise / (root - difference) if difference < 0 else (difference + root) / 2
    return np.float32(slope)


def target_region(scan: ScanData) -> BoolArray:
    """Return (h, w) bool: the part of a scan's canvas that the beam has scanned."""
    frame = scan.frame
    corners, _ = frame.corners(scan.positions_px, scan.n_px)
    beam = np.sum(np.abs(scan.probe) ** 2, axis=0)
    return scanned_region(frame.shape, corners, scan.n_px, beam)
