"""A backend in a process of its own: what it imports, and what it says."""

import subprocess
import sys

import pytest

from ptychodus_torch_plugin import write_scan

RUN_YAML = """
model: {channels: [4, 8], sweeps_before: 3, sweeps_after: 2}
training: {thinnings: 1, epochs: 1}
"""

THERE_AND_BACK = """
import sys
from pathlib import Path

from ptychodus_torch_plugin import available_backends, load_bundle, read_scan, reconstruct, train
from ptychodus_torch_plugin.config import RunConfig

name, folder = sys.argv[1], Path(sys.argv[2])
run = RunConfig.parse({run!r})
assert available_backends()[name].ok
scan = read_scan(folder / 'scan.h5')
model = train([scan], run.model, run.training, run.execution, backend=name, log_dir=folder / 'log')
reconstruct(load_bundle(model.save(folder), backend=name), scan, execution=run.execution)
print(*(package for package in {packages!r} if package in sys.modules))
"""


@pytest.fixture(scope='module')
def folder(noisy, tmp_path_factory):
    folder = tmp_path_factory.mktemp('process')
    write_scan(folder / 'scan.h5', noisy)
    (folder / 'run.yaml').write_text(RUN_YAML)
    return folder


def test_choosing_a_backend_imports_no_other(inside, backend, folder):
    """With threads chosen before the framework starts, which says nothing of it."""
    run = {
        'model': {'N': 32, 'channels': [4, 8], 'sweeps_before': 3},
        'training': {'thinnings': 1, 'epochs': 1},
        'execution': {'accelerator': 'cpu', 'num_threads': 1},
    }
    packages = ['torch', 'lightning', 'tensorflow', 'keras', 'jax']
    program = THERE_AND_BACK.format(run=run, packages=packages)
    command = [sys.executable, '-W', 'error', '-c', program, backend, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, '')
    assert ran.stdout.split() == list(inside.PACKAGES)


def test_a_quiet_command_says_nothing(backend, folder):
    """Nor does the framework, whose first import and first step these are."""
    program = [sys.executable, '-m', 'ptychodus_torch_plugin']
    where = ['--backend', backend, '--output_dir', str(folder / f'out-{backend}'), '--quiet']
    command = [*program, 'train', 'scan.h5', '--config', 'run.yaml', *where]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, '')
