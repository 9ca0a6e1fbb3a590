"""Runs an engine of pty-chi; in the Python that has it, which need not have this package.

    python ptychi_child.py SCAN.npz ENGINE SETTINGS

SCAN.npz holds counts (n, N, N), positions_px (n, 2) as patch centres on the grid of the object, a
probe (m, N, N) whose energy is the mean counts of a pattern, and a flat object (h, w).  SETTINGS is
JSON: values of pty-chi's options by their dotted paths, in the order of setting.  A step size named
`of_peak` counts in units of the largest amplitude of the probe.

Each line on stdin is a number of epochs and a file's name: so many more epochs are run, and the
object is written.  Each is answered by a line of JSON on stdout: processor time so far, in seconds,
and versions.
"""

import json
import os
import sys
import time
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

OPTIONS = {
    'LSQML': 'LSQMLOptions',
    'rPIE': 'RPIEOptions',
    'autodiff': 'AutodiffPtychographyOptions',
}
PROBE_STEP_OF_PEAK = 'probe_options.step_size.of_peak'


def main(path: str, engine: str, settings: str) -> None:
    """Run epochs as stdin asks for them."""
    # What libraries print must not mix with the answers.
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    with np.load(path) as arrays:
        scan = {name: arrays[name] for name in arrays.files}
    modules = import_module('ptychi.api'), import_module('ptychi.api.task')
    versions = {name: version(name) for name in ('ptychi', 'torch')}
    start = time.process_time()
    task = make_task(*modules, scan, engine, json.loads(settings))
    cpu_s = time.process_time() - start
    for line in sys.stdin:
        epochs, file = line.split(maxsplit=1)
        start = time.process_time()
        task.run(int(epochs))
        cpu_s += time.process_time() - start
        np.save(file.strip(), task.get_data_to_cpu('object', as_numpy=True)[0])
        out.write(json.dumps({'cpu_s': cpu_s, 'versions': versions}) + '\n')
        out.flush()


def make_task(
    api: Any, tasks: Any, scan: dict[str, Any], engine: str, settings: dict[str, Any]
) -> Any:
    """Return a task of pty-chi on a scan."""
    options = getattr(api, OPTIONS[engine])()
    options.reconstructor_options.default_device = api.Devices.CPU
    options.object_options.pixel_size_m = 1.0
    # So its grid of the object is that of the positions, pixel by pixel.
    options.object_options.determine_position_origin_coords_by = 'specified'
    options.object_options.position_origin_coords = [0.0, 0.0]
    n_px = scan['probe'].shape[-1]
    # Its transforms are not orthonormal, forward: a probe of N-fold amplitude too many counts.
    probe = (scan['probe'] / n_px)[None].astype(np.complex64)
    for name, value in settings.items():
        if name == PROBE_STEP_OF_PEAK:
            options.probe_options.step_size = value * float(np.abs(probe).max())
        else:
            *groups, last = name.split('.')
            group = options
            for each in groups:
                group = getattr(group, each)
            setattr(group, last, value)
    y, x = scan['positions_px'].T
    return tasks.PtychographyTask(
        options,
        diffraction_data=scan['counts'].astype(np.float32),
        object_data=scan['object'][None].astype(np.complex64),
        probe_data=probe,
        probe_position_y_px=y,
        probe_position_x_px=x,
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
