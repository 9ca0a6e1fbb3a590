"""What 'unrolled' was scored by, and what that said."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Scored:
    """One call of the likelihood: canvas and figures of the view, and patterns that were scored."""

    canvas: tuple[int, int]
    scale: float
    mean_count: float
    probe: np.ndarray
    patterns: np.ndarray
    counts: np.ndarray
    background: np.ndarray | None
    training: bool
    loss: float


@dataclass
class Compared:
    """One comparison of objects: what the network saw (h, w), and what its object should be."""

    object_: np.ndarray
    photons: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    loss: float
