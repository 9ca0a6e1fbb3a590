"""No tensor framework is installed here; the `core` environment of tox is such a place.

Elsewhere these tests have nothing to say and are skipped, but never in that environment.
"""

import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

import ptychodus_torch_plugin as plugin

FRAMEWORKS = ('torch', 'lightning', 'tensorflow', 'keras')
GOLDEN_BUNDLE = Path(__file__).parents[1] / 'bundle' / 'golden' / 'format-1.0.wts.h5.zip'
FOUND = [name for name in FRAMEWORKS if util.find_spec(name) is not None]

pytestmark = pytest.mark.skipif(
    bool(FOUND) and os.environ.get('TOX_ENV_NAME') != 'core',
    reason=f'{", ".join(FOUND)} is installed',
)


@pytest.fixture(scope='module')
def scan():
    return plugin.simulate_scan(plugin.SimulationConfig(N=32, n_positions=9, step_px=6.5))


def test_no_framework_is_here():
    assert FOUND == []


def test_the_missing_backend_is_listed_with_the_command_that_installs_it():
    listed = plugin.available_backends()['pytorch']
    assert (listed.ok, listed.reason) == (False, 'torch is not installed')
    assert listed.hint == "pip install 'ptychodus-torch-plugin[torch]'"


def test_asking_for_the_missing_backend_says_how_to_install_it(scan):
    with pytest.raises(RuntimeError, match='PyTorch backend selected') as caught:
        plugin.train([scan], plugin.ModelConfig(N=32), backend='pytorch')
    assert "pip install 'ptychodus-torch-plugin[torch]'" in str(caught.value)


def test_asking_for_any_backend_lists_the_commands(scan):
    with pytest.raises(RuntimeError, match="pip install 'ptychodus-torch-plugin"):
        plugin.train([scan], plugin.ModelConfig(N=32))


def test_scans_need_no_framework(scan, tmp_path):
    plugin.write_scan(tmp_path / 'scan.h5', scan)
    assert plugin.read_scan(tmp_path / 'scan.h5').fingerprint() == scan.fingerprint()


def command_line(*arguments):
    command = [sys.executable, '-m', 'ptychodus_torch_plugin', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_simulates_converts_and_inspects(tmp_path):
    small = ('-N', '32', '--positions', '9', '--step-px', '6.5')
    for arguments in (
        ('simulate', tmp_path / 'scan.h5', *small),
        ('convert', tmp_path / 'scan.h5', tmp_path / 'scan.npz'),
        ('inspect', tmp_path / 'scan.npz'),
        ('inspect', GOLDEN_BUNDLE),
    ):
        run = command_line(*arguments)
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize('command', ['demo', 'train', 'infer'])
def test_the_command_line_says_how_to_install_what_is_missing(scan, tmp_path, command):
    plugin.write_scan(tmp_path / 'scan.h5', scan)
    files = {
        'demo': (),
        'train': (tmp_path / 'scan.h5',),
        'infer': ('--test_data', tmp_path / 'scan.h5', '--architecture', 'none'),
    }
    run = command_line(
        command, *files[command], '--backend', 'pytorch', '--output_dir', tmp_path / 'output'
    )
    assert run.returncode == 2
    assert 'PyTorch backend selected, but torch is not installed' in run.stderr
    assert "pip install 'ptychodus-torch-plugin[torch]'" in run.stderr
    assert 'Traceback' not in run.stderr
    assert not (tmp_path / 'output').exists()
