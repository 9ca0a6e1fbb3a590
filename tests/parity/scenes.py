"""Scans and scenes on which a backend and the oracle are compared."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from tests.parity.comparison import waves_of


@cache
def simulated_scan(**changes: Any) -> ScanData:
    """Return a small simulated scan of 'dead leaves', sub-pixel, at odd offsets."""
    settings = {
        'N': 32,
        'object_kind': 'dead-leaves',
        'n_positions': 49,
        'step_px': 4.5,
        'offset_px': (1.3, -0.7),
        'photons': 1e4,
        'seed': 3,
    }
    return simulate_scan(SimulationConfig(**(settings | changes)))


@cache
def lopsided_scan(n_px: int, modes: int, *, whole: bool) -> ScanData:
    """Return a scan whose canvas has unequal odd sides, at whole pixels or not, with bad pixels.

    The bad pixels hold what a detector writes there: its largest number.
    """
    seed, step_px = {32: (4, 4.5), 64: (5, 7.0)}[n_px]
    full = simulated_scan(N=n_px, n_positions=36, step_px=step_px, probe_modes=modes, seed=seed)
    kept = np.flatnonzero(np.arange(36) % 6 < 5)  # five of six columns
    positions = full.positions_px[kept]
    if whole:
        positions = np.round(positions + 0.5) - 0.5
    bad_pixels = np.random.default_rng(1).random((n_px, n_px)) < 0.03
    patterns = full.patterns[kept]
    patterns[:, bad_pixels] = 2**16 - 1
    scan = replace(
        full,
        patterns=patterns,
        positions_px=positions,
        bad_pixels=bad_pixels,
        object_guess=None,
    )
    height, width = scan.frame.shape
    assert height % 2 == width % 2 == 1
    assert height != width
    return scan


SCENES = {
    '32 px, 3 modes, sub-pixel': (32, 3, False),
    '32 px, 1 mode, whole pixels': (32, 1, True),
    '64 px, 2 modes, whole pixels': (64, 2, True),
    '64 px, 1 mode, sub-pixel': (64, 1, False),
}
"""Side, modes, and whether all positions are whole pixels."""


def regular_scan() -> ScanData:
    """Return an exact raster of 7 rows and 6 columns: all patterns see one lattice."""
    full = simulated_scan(scan='raster', jitter=0.0, seed=6)
    return full.subset(np.flatnonzero(np.arange(49) % 7 < 6))


def darkened(scan: ScanData) -> ScanData:
    """Return the scan with a background that is another one at every pixel, in its counts, too."""
    rng = np.random.default_rng(8)
    level = scan.mean_counts() / scan.n_px**2
    dark = (rng.uniform(0, level, (scan.n_px, scan.n_px))).astype(np.float32)
    patterns = scan.patterns + rng.poisson(dark, scan.patterns.shape).astype(np.float32)
    return replace(scan, patterns=patterns, background=dark)


@dataclass(frozen=True)
class PlainScene:
    """A scan, and an object on its canvas and a probe that do not fit it."""

    scan: ScanData
    object_: np.ndarray
    probe: np.ndarray

    @classmethod
    def on(cls, scan: ScanData, *, whole: bool):
        height, width = scan.frame.shape
        y, x = np.indices((height, width))
        disc = (y - 20) ** 2 + (x - 31) ** 2 < 90
        object_ = (0.8 + 0.15 * np.sin(y / 5) * np.cos(x / 7 + 0.5)) * np.exp(
            1j * np.sin(x / 6) + 0.7j * disc
        )
        # Fine texture scatters light into every pixel: a dark one has no phase to agree on.
        object_ += 0.1 * waves_of(object_.shape, 7, flat=True)
        assert np.any(scan.frame.corners(scan.positions_px, scan.n_px)[1]) != whole
        # Off the centre of the patch by whole pixels, unequal along y and x.
        probe = np.roll(scan.probe, (2, -3), axis=(-2, -1))
        return cls(scan, object_.astype(np.complex64), probe)

    @property
    def n_px(self):
        return self.scan.n_px

    @property
    def where(self):
        return self.scan.frame.corners(self.scan.positions_px, self.n_px)

    @property
    def mean_count(self):
        return self.scan.mean_counts() / float(self.scan.valid_pixels.sum())

    def predicted(self):
        """Return what the oracle predicts, in double precision."""
        wide = self.object_.astype(complex), self.probe.astype(complex)
        return oracle.predict_counts(*wide, *self.where)

    def gradient(self):
        """Return the gradient dL/da + i dL/db of the loss with respect to the object a + i b."""
        return self.gradients()[0]

    def gradients(self):
        """Return the gradients of the loss with respect to object (h, w) and probe (m, N, N)."""
        scan, (corners, remainders) = self.scan, self.where
        probes = oracle.shift_probe(self.probe.astype(complex), remainders)
        patches = oracle.gather_patches(self.object_.astype(complex), corners, self.n_px)
        waves = oracle.far_field(probes * patches[:, None])
        intensity = np.sum(np.abs(waves) ** 2, axis=1)
        pull = np.where(scan.valid_pixels, 1 - scan.patterns / intensity, 0)
        back = oracle.near_field(2 * pull[:, None] * waves)
        canvas = np.zeros(scan.frame.shape, dtype=complex)
        oracle.scatter_patches(np.sum(probes.conj() * back, axis=1), corners, canvas)
        moved_back = [
            oracle.shift_probe(each, -remainder[None])[0]
            for each, remainder in zip(patches.conj()[:, None] * back, remainders, strict=True)
        ]
        n_terms = scan.n_patterns * scan.valid_pixels.sum() * self.mean_count
        return canvas / n_terms, np.sum(moved_back, axis=0) / n_terms
