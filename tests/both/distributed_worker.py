"""What one of several processes does in `test_distributed`: it trains and tells what it saw.

Run as `python -m tests.both.distributed_worker BACKEND FOLDER`, with a rank in the environment.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.errors import TrainingError
from ptychodus_torch_plugin.group_plan import GroupPlan
from ptychodus_torch_plugin.ranks import own_rank
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
from tests.both.quick import (
    CNN,
    CNN_EXECUTION,
    CNN_TRAINING,
    EXECUTION,
    MODEL,
    TRAINING,
    PowerCutError,
    Runs,
)
from tests.parity.scenes import simulated_scan

SLOWLY = {'epochs': 1, 'learning_rate': 1e-6}
"""Adam's first steps are as long for a gradient of rounding errors as for a large one: with short
steps, gradients can be compared after several of them."""

CNN_CHANGES = {'gridsize': 1, 'held_out_fraction': 0.24, 'logger_backend': 'csv', **SLOWLY}
"""Of 25 patterns 19 train: in joint batches of 6, one group is left, which only one rank has."""

UNROLLED_CHANGES = {
    'thinning_fraction': 0.3,
    'patterns_per_step': 13,
    'sweeps_before': 2,
    **SLOWLY,
}
"""Of 49 patterns 39 train: three steps, which two ranks cannot share evenly."""


def groups_scan():
    return simulate_scan(
        SimulationConfig(N=64, n_positions=25, object_kind='dead-leaves', photons=1e4, seed=8)
    )


def noisy_scan():
    return simulated_scan(photons=3e3)


def cnn(backend):
    return Runs(get_backend(backend), CNN, CNN_TRAINING, CNN_EXECUTION)


def unrolled(backend):
    return Runs(get_backend(backend), MODEL, TRAINING, EXECUTION)


def told(result):
    """Return all that a training ends with, as arrays."""
    arrays = {f'weights/{n}': a for n, a in result.model.export_weights().items()}
    arrays |= {f'moments/{n}': a for n, a in result.optimizer.items()}
    history = [[r.loss, r.validation_loss] for r in result.history]
    return arrays | {'history': np.array(history, float), 'stopped': np.array(result.stopped)}


def main(backend, folder):
    rank = own_rank()
    visited = watch_batches()
    # Folders of their own show who writes.
    own = folder / f'of-rank-{rank.index}'
    options = {'checkpoint_dir': own / 'checkpoints', 'log_dir': own / 'logs'}
    result = cnn(backend).fit(groups_scan(), batch_size=3, options=options, **CNN_CHANGES)
    np.savez(folder / f'cnn-{rank.index}.npz', **told(result))
    (folder / f'visited-{rank.index}.json').write_text(json.dumps(visited))

    result = unrolled(backend).fit(noisy_scan(), **UNROLLED_CHANGES)
    np.savez(folder / f'unrolled-{rank.index}.npz', **told(result))

    np.savez(folder / f'stopped-{rank.index}.npz', **told(stop_by_last_rank(backend, rank)))
    (folder / f'failed-{rank.index}.json').write_text(json.dumps(fail_on_last_rank(backend, rank)))


def watch_batches():
    """Return a list that gets the groups and the weight of every batch that trains."""
    visited = []
    real = GroupPlan.batches

    def batches(plan, epoch):
        found = real(plan, epoch)
        visited.extend([batch.indices.tolist(), batch.weight] for batch in found)
        return found

    GroupPlan.batches = batches
    return visited


def stop_by_last_rank(backend, rank):
    """Train until the last rank, and nobody else, wants to stop after its first step."""
    steps = []

    def should_stop():
        return rank.index == rank.count - 1 and bool(steps)

    def on_event(event):
        if event.phase == 'train':
            steps.append(event)

    options = {'on_event': on_event, 'should_stop': should_stop}
    return unrolled(backend).fit(noisy_scan(), options=options, **UNROLLED_CHANGES | {'epochs': 5})


def fail_on_last_rank(backend, rank):
    """Train until the last rank breaks down; return what each process is told, and after how long.

    Nobody ends rank 0, which waits for the other one.
    """
    failed = time.monotonic()

    def on_event(event):
        nonlocal failed
        failed = time.monotonic()
        if event.done == 2 and rank.index == rank.count - 1:
            raise PowerCutError

    try:
        unrolled(backend).fit(noisy_scan(), options={'on_event': on_event}, **UNROLLED_CHANGES)
    except TrainingError as error:
        return {'error': str(error), 'seconds': time.monotonic() - failed}
    except PowerCutError:
        return {'error': 'power cut', 'seconds': 0.0}
    return {'error': 'none', 'seconds': 0.0}


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]))
