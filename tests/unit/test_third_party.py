"""Backends of other packages, really installed: folders with the metadata that pip would leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ptychodus_torch_plugin as plugin
from ptychodus_torch_plugin.backends.registry import ENTRY_POINT_GROUP
from ptychodus_torch_plugin.bundle.archive import read_manifest
from ptychodus_torch_plugin.errors import BackendUnavailableError, ConfigError
from ptychodus_torch_plugin.sweeps import SweepState, first_probe, schedule, sweep_oracle

SOURCE = Path(__file__).parent / 'third_party' / 'numpy_demo.py'
NUMPY, BROKEN = 'numpy-demo', 'broken-demo'


def install(folder: Path, name: str, source: str) -> None:
    """Install a module `name` whose `NumpyBackend` is a backend."""
    module = name.replace('-', '_')
    (folder / f'{module}.py').write_text(source)
    info = folder / f'{module}-1.5.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n')
    entry_point = f'[{ENTRY_POINT_GROUP}]\n{name} = {module}:NumpyBackend\n'
    (info / 'entry_points.txt').write_text(entry_point)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """A folder like `site-packages` with a backend that works and one that does not."""
    folder = tmp_path_factory.mktemp('site')
    install(folder, NUMPY, SOURCE.read_text())
    install(folder, BROKEN, "raise OSError('libabacus.so is missing')")
    return folder


@pytest.fixture
def installed(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    yield
    for name in (NUMPY, BROKEN):
        sys.modules.pop(name.replace('-', '_'), None)


@pytest.fixture(scope='module')
def scan():
    settings = {'N': 32, 'n_positions': 25, 'step_px': 4.5, 'photons': 1e6, 'seed': 2}
    return plugin.simulate_scan(plugin.SimulationConfig(**settings))


MODEL = plugin.ModelConfig(N=32, architecture='none', sweeps_before=8)


def test_both_are_listed_and_the_broken_one_harms_nobody(installed):
    listed = plugin.available_backends()
    assert (listed[NUMPY].ok, listed[NUMPY].version) == (True, f'numpy {np.__version__}')
    assert not listed[BROKEN].ok
    assert listed[BROKEN].reason == (
        'broken_demo:NumpyBackend failed to load: OSError: libabacus.so is missing'
    )
    assert listed.keys() >= {'pytorch', 'tensorflow'}


def test_it_reconstructs_from_a_bundle(installed, scan, tmp_path):
    path = plugin.train([scan], MODEL, backend=NUMPY).save(tmp_path)
    manifest = read_manifest(path)
    assert (manifest.backend, manifest.producer['numpy']) == (NUMPY, np.__version__)

    events = []
    model = plugin.load_bundle(path, backend=NUMPY)
    result = plugin.reconstruct(model, scan, on_event=events.append)
    assert result.stage == '8 sweeps'
    assert 0 < result.r_fitted['8 sweeps'] < result.r_held_out['8 sweeps'] < 0.1
    assert [event.done for event in events] == list(range(1, 8 + 4 + 1))
    start = np.ones(scan.frame.shape, complex), first_probe(scan, MODEL.sweeps).astype(complex)
    expected = SweepState(*start)
    pool, plan = (
        np.setdiff1d(np.arange(scan.n_patterns), result.held_out),
        schedule(MODEL.sweeps, 8),
    )
    sweep_oracle(scan, expected, MODEL.sweeps, plan, pool=pool)
    sweep_oracle(scan, expected, MODEL.sweeps, plan[-4:])
    np.testing.assert_array_equal(result.object_, expected.object_.astype(np.complex64))


def test_what_it_cannot_do_it_refuses(installed, scan):
    with pytest.raises(
        ConfigError, match="numpy-demo has no network; expected architecture 'none'"
    ):
        plugin.train([scan], backend=NUMPY)


def test_choosing_the_broken_one_says_why(installed, scan, tmp_path):
    path = plugin.train([scan], MODEL, backend=NUMPY).save(tmp_path)
    with pytest.raises(BackendUnavailableError, match=r'libabacus\.so is missing'):
        plugin.load_bundle(path, backend=BROKEN)


def command_line(folder, site, *arguments):
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get('PYTHONPATH')])])
    return subprocess.run(
        [sys.executable, '-m', 'ptychodus_torch_plugin', *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {'PYTHONPATH': path},
        check=False,
    )


def test_the_command_line_takes_it(site, scan, tmp_path):
    plugin.write_scan(tmp_path / 'scan.h5', scan)
    infer = ('infer', '--architecture', 'none', '--sweeps', 4, '--test_data', 'scan.h5', '--json')
    ran = command_line(tmp_path, site, *infer, '--backend', NUMPY)
    assert ran.returncode == 0, ran.stderr
    assert 0 < json.loads(ran.stdout)['stages']['4 sweeps']['r_fitted'] < 0.1
    assert (tmp_path / 'inference_outputs/object.h5').is_file()

    ran = command_line(tmp_path, site, *infer, '--backend', BROKEN)
    assert ran.returncode == 2
    assert 'libabacus.so is missing' in ran.stderr.splitlines()[-1]
    ran = command_line(tmp_path, site, *infer, '--backend', 'abacus')
    assert f"'{BROKEN}'" in ran.stderr
    assert f"'{NUMPY}'" in ran.stderr
