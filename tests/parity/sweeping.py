"""Settings and starts of the sweeps that both worlds run."""

from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.config import SweepConfig
from tests.parity.scenes import darkened

SETTINGS = SweepConfig(
    damping_start=0.2,
    damping_end=1.0,
    momentum=0.8,
    settling_sweeps=3,
    batch_size=7,
    refine_probe=False,
    probe_damping=0.4,
    probe_step=0.6,
    probe_momentum=0.5,
)
REFINING = SETTINGS.model_copy(update={'refine_probe': True})
CONFIGS = pytest.mark.parametrize(
    'config', [SETTINGS, REFINING], ids=['probe kept', 'probe refined']
)
EXPOSING = pytest.mark.parametrize(
    ('wanted', 'pool'),
    [
        ({'refine_intensity'}, np.arange(3, 29)),
        ({'refine_positions'}, np.arange(3, 29)),
        ({'refine_intensity', 'refine_positions', 'refine_probe'}, None),
    ],
    ids=['intensities of a pool', 'positions of a pool', 'all'],
)


def uneven(scene):
    """Return the scene with bright and dim patterns, at places that are not quite right."""
    rng = np.random.default_rng(9)
    scan = darkened(scene.scan)
    factors = rng.uniform(0.5, 2.0, scan.n_patterns).astype(np.float32)
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    moved = np.clip(scan.positions_px + rng.normal(0, 0.7, scan.positions_px.shape), low, high)
    patterns = scan.patterns * factors[:, None, None]
    return replace(scene, scan=replace(scan, patterns=patterns, positions_px=moved))


def defocused(scan, config):
    """Return a first probe that is wrong, so that refining has something to do."""
    f = np.fft.fftfreq(scan.n_px)
    probe = np.fft.fft2(plain.first_probe(scan, config))
    return np.fft.ifft2(probe * np.exp(4j * (f[:, None] ** 2 - f**2))).astype(np.complex64)


def expected_sweeps(scene, config, sweeps, *, pool=None, seed=3):
    """Run the oracle from `defocused`; return (object, probe) and where light fell."""
    expected, lit = expected_state(scene, config, sweeps, pool=pool, seed=seed)
    return (expected.object_, expected.probe), lit


def expected_state(scene, config, sweeps, *, pool=None, seed=3):
    """Run the oracle from `defocused`; return its state and where light fell."""
    scan, probe = scene.scan, defocused(scene.scan, config)
    expected = plain.SweepState(scene.object_.astype(complex), probe.astype(complex))
    plain.sweep_oracle(scan, expected, config, sweeps, pool=pool, seed=seed)
    light = oracle.illumination(expected.probe, *scene.where, scan.frame.shape)
    lit = light > 0.1 * np.quantile(light, 0.9)
    assert 0.1 < lit.mean() < 0.9
    return expected, lit
