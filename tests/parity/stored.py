"""Values that the NumPy oracle once gave, and what they are values of.

A backend that is alone is held to them (`tests/torch/test_stored.py`, `tests/tensorflow/
test_stored.py`), and so is the oracle (`tests/unit/test_stored.py`).  `make_stored.py` writes the
file anew, which is a reviewed change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.stitching import canvas_px
from tests.parity.comparison import TOLERANCES, assert_close
from tests.parity.scenes import PlainScene
from tests.parity.sweeping import REFINING

FILE = Path(__file__).with_name('stored.npz')
SWEEPS = REFINING.model_copy(update={'batch_size': 5})
SCHEDULE = sweeps.schedule(SWEEPS, 10)
SEED = 3


@cache
def stored() -> dict[str, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as archive:
        return dict(archive)


@cache
def scene() -> PlainScene:
    """Return 12 patterns of 32 x 32 px under two modes, an object and a probe beside the truth."""
    known = stored()
    scan = ScanData(
        patterns=known['patterns'].astype(np.float32),
        positions_px=known['positions_px'],
        probe=known['first_probe'],
        bad_pixels=known['bad_pixels'],
        name='stored scene',
    )
    return PlainScene(scan, known['object'], known['probe'])


TERMS = ('nll', 'mae', 'realspace', 'tv')


@dataclass(frozen=True)
class GroupScene:
    """Two groups of four patterns of 64 x 64 px, all by formulas: nothing random, nothing alike."""

    n_px: int = 64

    @cached_property
    def _waves(self) -> np.ndarray:
        """Smooth complex waves (2, 4, N, N) of many directions, of amplitude one."""
        y, x = np.indices((self.n_px, self.n_px)) / self.n_px
        number = np.arange(8).reshape(2, 4, 1, 1)
        phase = 0.9 * np.sin(5 * y + 3 * x * x + number) + 0.5 * np.cos(9 * x + 0.4 * number)
        return np.exp(1j * phase)

    @cached_property
    def patches(self) -> np.ndarray:
        y, x = np.indices((self.n_px, self.n_px)) / self.n_px
        return ((0.7 + 0.2 * np.sin(11 * y * x + 2)) * self._waves).astype(np.complex64)

    @cached_property
    def truth(self) -> np.ndarray:
        return (0.8 * self._waves[:, ::-1] + 0.1).astype(np.complex64)

    @cached_property
    def offsets_px(self) -> np.ndarray:
        number = np.arange(16).reshape(2, 4, 2)
        return (4.3 * np.sin(1 + 2.7 * number)).astype(np.float32)

    @property
    def side_px(self) -> int:
        return canvas_px(self.n_px, float(np.abs(self.offsets_px).max()))

    @cached_property
    def weight(self) -> np.ndarray:
        y, x = np.indices((self.n_px, self.n_px)) / self.n_px
        return np.exp(-5 * (y - 0.4) ** 2 - 3 * (x - 0.6) ** 2).astype(np.float32)

    @cached_property
    def scan(self) -> ScanData:
        """Two modes off the centre, and counts with bad pixels; positions do not matter."""
        y, x = np.indices((self.n_px, self.n_px)) - self.n_px / 2
        bump = np.exp(-((y + 3) ** 2 + 2 * (x - 5) ** 2) / 200)
        probe = np.stack([bump * np.exp(0.02j * y * x), 0.3 * bump * np.exp(0.3j * x)])
        number = np.arange(8)[:, None, None]
        beam = 300 * np.exp(-((y - number) ** 2 + (x + 2 * number - 6) ** 2) / 90)
        counts = np.floor(beam + 3 + 2.5 * np.sin(y * x / 9 + number))
        return ScanData(
            patterns=counts.astype(np.float32),
            positions_px=40 + 8.0 * np.stack([np.arange(8) // 4, np.arange(8) % 4], -1),
            probe=probe.astype(np.complex64),
            bad_pixels=(7 * y + 3 * x) % 29 == 0,
            name='groups',
        )

    @property
    def counts(self) -> np.ndarray:
        """Patterns (2, 4, N, N)."""
        return self.scan.patterns.reshape(self.patches.shape)

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            architecture='cnn',
            N=self.n_px,
            gridsize=2,
            probe_mask=True,
            gaussian_smoothing_sigma=0.8,
            sweeps={'refine_probe': False},
        )

    @property
    def calibration(self) -> Calibration:
        return Calibration.of([self.scan], self.config)

    @property
    def mean_count(self) -> float:
        return self.scan.mean_counts() / float(self.scan.valid_pixels.sum())

    @property
    def directions(self) -> list[np.ndarray]:
        """Directions (2, 4, N, N) complex along which patches are changed."""
        return [np.roll(self._waves, k, axis=1) * (1 + k) for k in range(3)]

    @property
    def probe_directions(self) -> list[np.ndarray]:
        """Directions (2, N, N) complex along which the shape of the probe is changed."""
        return [0.1 * self._waves[k, 1 : 1 + 2] for k in range(2)]


def slope(gradient: Any, direction: np.ndarray) -> float:
    """Return the slope along a direction, of the gradient dL/da + i dL/db."""
    return float(np.vdot(direction, np.asarray(gradient, complex)).real)


def check_whole_scan(found: Mapping[str, Any]) -> None:
    """Compare intensity, loss and gradients, and where light fell the outcome of ten sweeps."""
    known = stored()
    single = {'dtype': np.complex64}
    assert_close(found['intensity'], known['intensity'], TOLERANCES['intensity'], dtype=np.float32)
    assert_close(found['loss'], known['loss'], TOLERANCES['loss'], dtype=np.float32)
    for name in ('gradient_object', 'gradient_probe'):
        assert_close(found[name], known[name], TOLERANCES['gradient'], **single)
    light = oracle.illumination(known['swept_probe'], *scene().where, known['object'].shape)
    lit = light > 0.1 * np.quantile(light, 0.9)
    moved = np.abs(known['swept_object'] - known['object'])[lit].mean()
    assert moved > 0.1
    assert_close(
        found['swept_object'][lit], known['swept_object'][lit], TOLERANCES['ten sweeps'], **single
    )
    assert_close(found['swept_probe'], known['swept_probe'], TOLERANCES['ten sweeps'], **single)


def check_groups(
    seen_counts: Any, terms: Mapping[str, tuple[float, Any, Any]], groups: GroupScene
) -> None:
    """Compare the counts of groups, and value and slopes of each term of the loss.

    `terms` has, by name, the value and the gradients dL/da + i dL/db with respect to the patches
    and to the shape of the probe (None where that has no part in it).
    """
    known = stored()
    assert_close(seen_counts, known['seen_counts'], TOLERANCES['intensity'], dtype=np.float32)
    assert terms.keys() == set(TERMS)
    for name, (value, by_patches, by_shape) in terms.items():
        assert_close(np.float32(value), known[name], TOLERANCES['loss'], dtype=np.float32)
        along = [(by_patches, groups.directions, f'{name}_slopes')]
        if name in ('nll', 'mae'):
            along.append((by_shape, groups.probe_directions, f'{name}_probe_slopes'))
        for gradient, directions, key in along:
            slopes = np.array([slope(gradient, direction) for direction in directions])
            assert_close(slopes, known[key], TOLERANCES['gradient'], dtype=np.float64)
