"""The command line, called in this process; small scans; one small trained model for all."""

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

import numpy as np
import pytest

from ptychodus_torch_plugin import SimulationConfig, simulate_scan, write_scan
from ptychodus_torch_plugin.cli.app import run

N = 32


@dataclass(frozen=True)
class Ran:
    """What a command returned and wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def last(self):
        """The last line of stderr, where an error stands."""
        return self.err.splitlines()[-1]


def _run(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def _simulated(path, **settings):
    config = {'N': N, 'n_positions': 49, 'step_px': 4.0, 'photons': 1e4, **settings}
    scan = simulate_scan(SimulationConfig(**config))
    write_scan(path, scan)
    return scan


@pytest.fixture(scope='session')
def command_line():
    """Run a command in this process; return exit code, stdout and stderr."""
    return _run


@pytest.fixture(scope='session')
def write_simulated():
    """Write a small simulated scan; return it."""
    return _simulated


@pytest.fixture(scope='session')
def call():
    """Run a command and assert that it succeeded."""

    def succeed(*arguments):
        ran = _run(*arguments)
        assert ran.code == 0, ran.err
        return ran

    return succeed


@pytest.fixture(scope='session')
def fail():
    """Run a command; assert one clear line, exit code 2 and no traceback."""

    def refuse(*arguments):
        ran = _run(*arguments)
        assert ran.code == 2, ran.err
        assert ran.out == ''
        assert 'Traceback' not in ran.err
        assert ran.last.startswith('Error: ')
        return ran

    return refuse


@pytest.fixture(scope='session')
def scan_file(tmp_path_factory):
    """A scan to train on."""
    path = tmp_path_factory.mktemp('scan') / 'scan.h5'
    _simulated(path, seed=3)
    return path


@pytest.fixture(scope='session')
def other_file(tmp_path_factory):
    """A scan of another object, on a canvas of its own, off its centre."""
    path = tmp_path_factory.mktemp('other') / 'other.h5'
    _simulated(path, seed=4, n_positions=64, images='test', offset_px=(2.5, -1.25))
    return path


@pytest.fixture(scope='session')
def run_file(tmp_path_factory):
    """Settings of a network that trains in a blink."""
    path = tmp_path_factory.mktemp('run') / 'run.yaml'
    path.write_text(
        'model: {channels: [4, 8], sweeps_before: 3, sweeps_after: 2}\n'
        'training: {thinnings: 1, epochs: 2}\n'
        'execution: {accelerator: cpu}\n'
    )
    return path


@pytest.fixture(scope='session')
def trained(tmp_path_factory, call, scan_file, run_file):
    """The output folder of a small training."""
    folder = tmp_path_factory.mktemp('training') / 'out'
    call('train', scan_file, '--config', run_file, '--output_dir', folder)
    return folder


@pytest.fixture(scope='session')
def exported_file(tmp_path_factory):
    """What Ptychodus exports for PtychoPINN: intensities, bad pixels, two probe modes."""
    settings = {'N': 64, 'n_positions': 81, 'step_px': 6.0, 'photons': 2e4, 'probe_modes': 2}
    scan = simulate_scan(SimulationConfig(**settings, seed=5))
    bad = np.zeros((64, 64), dtype=bool)
    bad[[5, 40], [9, 33]] = True
    path = tmp_path_factory.mktemp('exported') / 'scan.npz'
    np.savez(
        path,
        diff3d=np.where(bad, 65535, scan.patterns).astype(np.uint16),
        bad_pixels=bad,
        xcoords=scan.positions_px[:, 1],
        ycoords=scan.positions_px[:, 0],
        probeGuess=scan.probe,
        objectGuess=scan.object_guess[np.newaxis],
    )
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, to see what a failed command leaves behind."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope='session')
def choices():
    """Return the literals in a type."""

    def literals(hint):
        if get_origin(hint) is Literal:
            return set(get_args(hint))
        return set().union(*(literals(inner) for inner in get_args(hint)))

    return literals


@pytest.fixture(scope='session')
def files_below():
    """Return the names of all files and folders below a folder."""
    return lambda folder: sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))
