"""Times engines of pty-chi; runs in the Python that has it, which need not have this package.

    python ptychi_script.py SCAN.npz ENGINE EPOCHS

SCAN.npz holds counts (n, N, N), positions_px (n, 2), a probe (m, N, N) whose energy is the mean
counts of a pattern, and an object (h, w).  One line of JSON on stdout: processor time and time on
the wall of each epoch, in seconds; the rates of its Fourier transforms; versions; peak memory.
"""

import json
import os
import resource
import sys
import time
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np

BATCH_SIZE = 32
"""At which it is fastest on a CPU; its default of 100 has it wait for memory."""

FFTS, FFT_LOOPS, FFT_REPEATS = 16, 100, 8


def main(path: str, engine: str, epochs: int) -> None:
    """Reconstruct a scan epoch by epoch, and say how long each took."""
    # What libraries print must not mix with the result.
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    with np.load(path) as arrays:
        scan = {name: arrays[name] for name in arrays.files}
    task = make_task(scan, engine, epochs)
    marks = [now()]
    for _ in range(epochs):
        task.run(1)
        marks.append(now())
    result = {
        'epochs': [elapsed(a, b) for a, b in pairwise(marks)],
        'ffts': fft_rates(scan['probe'].shape[-1]),
        'versions': {name: version(name) for name in ('ptychi', 'torch')},
        'peak_kilobytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    json.dump(result, out)
    out.close()


def make_task(scan: dict[str, Any], engine: str, epochs: int) -> Any:
    """Return a task of pty-chi that refines object and probe at sub-pixel positions."""
    api: Any = import_module('ptychi.api')
    make: Any = import_module('ptychi.api.task').PtychographyTask

    made = {
        'LSQML': api.LSQMLOptions,
        'rPIE': api.RPIEOptions,
        'autodiff': api.AutodiffPtychographyOptions,
    }[engine]
    options = made()
    options.reconstructor_options.num_epochs = epochs
    options.reconstructor_options.batch_size = BATCH_SIZE
    options.reconstructor_options.default_device = api.Devices.CPU
    options.object_options.pixel_size_m = 1.0
    n_px = scan['probe'].shape[-1]
    # Its transforms are not orthonormal, forward: a probe of N-fold amplitude too many counts.
    probe = (scan['probe'] / n_px)[None].astype(np.complex64)
    if engine == 'autodiff':
        options.object_options.optimizer = api.Optimizers.ADAM
        options.object_options.step_size = 0.01
        options.probe_options.optimizer = api.Optimizers.ADAM
        # Steps of Adam are absolute.
        options.probe_options.step_size = 0.01 * float(np.abs(probe).max())
    y, x = scan['positions_px'].T
    return make(
        options,
        diffraction_data=scan['counts'].astype(np.float32),
        object_data=scan['object'][None].astype(np.complex64),
        probe_data=probe,
        probe_position_y_px=y - (y.min() + y.max()) / 2,
        probe_position_x_px=x - (x.min() + x.max()) / 2,
    )


def now() -> tuple[float, float]:
    """Return processor time and time on the wall."""
    return time.process_time(), time.perf_counter()


def elapsed(start: tuple[float, float], end: tuple[float, float]) -> list[float]:
    """Return processor time and time on the wall between two moments."""
    return [b - a for a, b in zip(start, end, strict=True)]


def fft_rates(n_px: int) -> list[float]:
    """Return the best rates of 2-D transforms, per core-second and per second."""
    torch: Any = import_module('torch')
    waves = torch.randn(FFTS, n_px, n_px, dtype=torch.complex64)
    times = []
    for _ in range(FFT_REPEATS):
        start = now()
        for _ in range(FFT_LOOPS):
            torch.fft.fft2(waves)
        times.append(elapsed(start, now()))
    return [FFT_LOOPS * FFTS / min(each) for each in zip(*times, strict=True)]


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
