"""What a corrected object is compared with, without labels: the object of other photons.

Binomial thinning splits counts into two independent parts.  Sweeps make an object of each; their
errors share nothing but what sweeps get wrong for every draw of photons.  A network that is to turn
one into the other learns the object and not the noise (Noise2Noise, Lehtinen et al., ICML 2018).
Other than the likelihood of patterns, the distance of objects weighs slow variations like fast
ones: patterns hardly tell the former.
"""

from __future__ import annotations

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
    object_: ComplexArray, photons: FloatArray, other: ComplexArray, region: BoolArray
) -> ObjectTarget:
    """Return what corrections of `object_` are compared with.

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
    """
    aligned = align(other, object_, region).object_
    weight = region * photons / (photons + NOISE_FLOOR)
    distance = float(np.average(np.abs(aligned - object_) ** 2, weights=weight))
    weight = weight / max(distance, np.finfo(np.float32).tiny)
    return ObjectTarget(aligned, weight.astype(np.float32))


def target_region(scan: ScanData) -> BoolArray:
    """Return (h, w) bool: the part of a scan's canvas that the beam has scanned."""
    frame = scan.frame
    corners, _ = frame.corners(scan.positions_px, scan.n_px)
    beam = np.sum(np.abs(scan.probe) ** 2, axis=0)
    return scanned_region(frame.shape, corners, scan.n_px, beam)
