"""Groups of patches without symmetry, and their merge by the oracle."""

import numpy as np

from ptychodus_torch_plugin import stitching as oracle
from tests.parity.comparison import waves_of

REACH_PX = 5.0


class PlainGroups:
    """Groups of unequal patches at unequal offsets, with next to no weight in one corner."""

    def __init__(self, n_px, count, *, whole=False, dtype=np.float32):
        rng = np.random.default_rng(n_px + count)
        offsets = rng.uniform(-REACH_PX, REACH_PX, (3, count, 2))
        self.offsets = (np.round(offsets) if whole else offsets).astype(dtype)
        patches = waves_of((3, count, n_px, n_px)) * (1 + np.arange(count))[:, None, None]
        self.patches = patches.astype(np.result_type(dtype, np.complex64))
        y, x = np.indices((n_px, n_px))
        self.weight = (np.exp(-((y / n_px - 0.4) ** 2) - (x / n_px - 0.7) ** 2)).astype(dtype)
        self.weight[: n_px // 3, : n_px // 2] = 1e-8
        self.n_px, self.side_px = n_px, oracle.canvas_px(n_px, REACH_PX)

    def expected(self, offsets):
        """Return the oracle's canvases and coverages."""
        groups = zip(self.patches, offsets, strict=True)
        merged = [oracle.merge_group(p, o, self.weight, self.side_px) for p, o in groups]
        return [np.stack(arrays) for arrays in zip(*merged, strict=True)]

    def expected_reading(self, canvas):
        """Return what the oracle reads at the offsets."""
        groups = zip(canvas, self.offsets, strict=True)
        return np.stack([oracle.read_group(c, o, self.n_px) for c, o in groups])


GROUPS = [(16, 1, False), (16, 4, False), (16, 4, True), (13, 9, False)]
"""Side of a patch, patches per group, and whether all offsets are whole pixels."""

SPOILED_OFFSETS = {
    'row': lambda offsets: offsets + np.float32([1, 0]),
    'column': lambda offsets: offsets + np.float32([0, -1]),
    'axes': lambda offsets: offsets[..., ::-1],
    'channels': lambda offsets: offsets[:, ::-1],
    'sign': lambda offsets: -offsets,
}
"""What a comparison must notice."""
