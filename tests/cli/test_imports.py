"""What `--help` loads: everything that costs time must wait until it is needed."""

import subprocess
import sys

import pytest

HEAVY = (
    'numpy',
    'pydantic',
    'h5py',
    'matplotlib',
    'scipy',
    'skimage',
    'torch',
    'lightning',
    'tensorflow',
    'PyQt5',
)
COMMANDS = (
    *('demo', 'simulate', 'convert', 'train', 'infer', 'inspect', 'evaluate'),
    *('bench', 'quality', 'doctor', 'install-shim', 'uninstall-shim'),
)
# The process ends with the modules loaded; a heavy one that is merely looked for does not count.
LIST = f'import sys; print("LOADED", *[name for name in {HEAVY} if name in sys.modules])'


def loaded_by(code):
    ran = subprocess.run(
        [sys.executable, '-c', f'{code}\n{LIST}'], capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by('import ptychodus_torch_plugin')[-1] == 'LOADED'


def test_help_loads_nothing_heavy():
    code = 'from ptychodus_torch_plugin.cli.app import run\n'
    code += f'for name in {COMMANDS}: assert run([name, "--help"]) == 0\n'
    lines = loaded_by(code + 'assert run(["--help"]) == 0')
    assert lines[-1] == 'LOADED'
    for name in COMMANDS:
        assert any(f'ptychodus-torch-plugin {name}' in line for line in lines)


@pytest.mark.parametrize('arguments', [['train', '--help'], ['-h'], [], ['infer', '-h', '--debug']])
def test_module_and_entry_point_show_help(arguments):
    ran = subprocess.run(
        [sys.executable, '-m', 'ptychodus_torch_plugin', *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith('Usage: ptychodus-torch-plugin')
    assert ran.stderr == ''
