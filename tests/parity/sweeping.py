"""Settings and starts of the sweeps that both worlds run."""

import numpy as np
import pytest

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.config import SweepConfig

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


def defocused(scan, config):
    """Return a first probe that is wrong, so that refining has something to do."""
    f = np.fft.fftfreq(scan.n_px)
    probe = np.fft.fft2(plain.first_probe(scan, config))
    return np.fft.ifft2(probe * np.exp(4j * (f[:, None] ** 2 - f**2))).astype(np.complex64)


def expected_sweeps(scene, config, sweeps, *, pool=None, seed=3):
    """Run the oracle from `defocused`; return (object, probe) and where light fell."""
    scan, probe = scene.scan, defocused(scene.scan, config)
    expected = plain.SweepState(scene.object_.astype(complex), probe.astype(complex))
    plain.sweep_oracle(scan, expected, config, sweeps, pool=pool, seed=seed)
    light = oracle.illumination(expected.probe, *scene.where, scan.frame.shape)
    lit = light > 0.1 * np.quantile(light, 0.9)
    assert 0.1 < lit.mean() < 0.9
    return (expected.object_, expected.probe), lit
