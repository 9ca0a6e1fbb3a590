"""How the model in this package was trained: on simulated scans of many kinds, without labels.

`ptychodus-torch-plugin pretrain` makes it again, in about an hour of one core.  Every scan is
bright, and is thinned to doses down to a four-thousandth; what sweeps make of the photons that were
taken away is what the network is compared with.  No true object is looked at, and no photograph of
the set 'test', by which `quality` judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.aberrations import with_aberrations
from ptychodus_torch_plugin.backends.protocol import OnEvent, ignore_event
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    ModelConfig,
    SweepConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

T = TypeVar('T')

SEED = 20261128
N_PX = 64
N_SCANS = 160

KINDS = {'natural': 0.45, 'dead-leaves': 0.3, 'circuit': 0.15, 'siemens-star': 0.1}
MODES = {1: 0.6, 2: 0.2, 3: 0.2}
SCANS = {'raster': 0.7, 'spiral': 0.3}
JITTERS = {0.25: 0.4, 0.5: 0.3, 0.1: 0.3}
"""What there is, and how often."""

DIAMETER_PX = 17.0, 32.0
OVERLAP = 0.3, 0.8
AMPLITUDE_MIN = 0.4, 0.9
PHASE_RANGE_RAD = 0.4, 2.5
"""Ranges of what varies."""

PHOTONS = 1e6
"""Of a pattern, before thinning."""

WRONG_PROBES = 0.4
PROBE_OVERLAP = 0.6, 0.9
"""Share of the scans whose probe is known roughly only, and its overlap with the true one."""

SIDE_POSITIONS = 13, 20
MOST_SIDE_PX = 300
"""Positions along a side of a scan, and about the length of it."""

MODEL = ModelConfig(
    N=N_PX,
    sweeps=SweepConfig(damping_start=0.1),
    sweeps_before=20,
    sweeps_after=0,
    channels=(32, 64, 96, 128),
)
TRAINING = TrainingConfig(
    objective='thinned-objects',
    epochs=6,
    held_out_fraction=0.0,
    thinnings=3,
    thinning_fraction=0.9,
    least_fraction=2.5e-4,
    seed=SEED,
)
EXECUTION = ExecutionConfig(
    accelerator='cpu', precision='bf16-mixed', accum_steps=4, learning_rate=1.5e-3
)


def training_scans(count: int = N_SCANS) -> Iterator[ScanData]:
    """Yield the scans, each from a seed of its own."""
    for number in range(count):
        yield _scan(number, np.random.default_rng([SEED, number]))


def _scan(number: int, rng: Generator) -> ScanData:
    diameter = float(rng.uniform(*DIAMETER_PX))
    step = diameter * (1 - float(rng.uniform(*OVERLAP)))
    side = min(int(rng.integers(*SIDE_POSITIONS, endpoint=True)), int(MOST_SIDE_PX / step) + 6)
    values = {
        'object_kind': _one_of(KINDS, rng),
        'amplitude_min': float(rng.uniform(*AMPLITUDE_MIN)),
        'phase_range_rad': float(rng.uniform(*PHASE_RANGE_RAD)),
        'N': N_PX,
        'scan': _one_of(SCANS, rng),
        'jitter': _one_of(JITTERS, rng),
        'n_positions': side**2,
        'step_px': step,
        'probe_diameter_px': diameter,
        'probe_modes': _one_of(MODES, rng),
        'photons': PHOTONS,
        'seed': SEED + number,
    }
    scan = simulate_scan(SimulationConfig.parse(values, source=f'scan {number}'))
    if rng.uniform() < WRONG_PROBES:
        overlap = float(rng.uniform(*PROBE_OVERLAP))
        scan = replace(scan, probe=with_aberrations(scan.probe, overlap, SEED + number))
    # Nothing that follows can look at the truth.
    return replace(scan, object_guess=None, name=f'simulated-{number}')


def _one_of(shares: dict[T, float], rng: Generator) -> T:
    """Draw one of several things by their shares."""
    values = list(shares)
    return values[int(rng.choice(len(values), p=list(shares.values())))]


def make_model(
    folder: Path,
    *,
    backend: str | None = None,
    resume: bool = False,
    on_event: OnEvent = ignore_event,
) -> api.Model:
    """Train the model; `folder` gets a checkpoint after each epoch, from which to `resume`."""
    model = api.train(
        list(training_scans()),
        MODEL,
        TRAINING,
        EXECUTION,
        backend=backend,
        checkpoint_dir=folder,
        resume=resume,
        on_event=on_event,
    )
    # What trained it is the cheapest; a user's scan gets sweeps as they usually are.
    usual = api.with_sweeps(model, sweeps_before='automatic', **SweepConfig().to_json())
    # Whoever trains on begins with moments of their own.
    return replace(usual, optimizer=None)
