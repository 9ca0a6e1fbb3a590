"""What the likelihood of 'unrolled' was asked, and what it said."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Scored:
    """One call: the canvas of the view, its figures, and the patterns that were scored."""

    canvas: tuple[int, int]
    scale: float
    mean_count: float
    probe: np.ndarray
    patterns: np.ndarray
    counts: np.ndarray
    background: np.ndarray | None
    training: bool
    loss: float
