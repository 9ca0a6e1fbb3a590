"""The file by which Ptychodus finds the plugin: it never fails, weighs nothing, and goes again."""

import logging
import re
import sys
import tomllib
from importlib import import_module, metadata

import pytest

from ptychodus_torch_plugin.integration.host import supported_range
from ptychodus_torch_plugin.integration.shim import DISTRIBUTION, MARK, NAME

from .installed import answer, copy_ptychodus, run

HEAVY = {'torch', 'tensorflow', 'lightning', 'pydantic', 'matplotlib', 'typer', 'PyQt5', 'numpy'}
MILLISECONDS = 50
KEYS = """
from ptychodus.model import ModelCore
parameter = ModelCore().processing_core.algorithm_parameter
print('pinn_pytorch' in parameter.available_reconstructors())
"""


def command_line(home, *arguments, paths=()):
    return run(home, '-m', 'ptychodus_torch_plugin', *arguments, paths=paths)


@pytest.fixture
def stock(tmp_path):
    return copy_ptychodus(tmp_path / 'stock')


def contents(folder):
    return {
        path.relative_to(folder) for path in folder.rglob('*') if '__pycache__' not in path.parts
    }


def test_the_wheel_has_it_under_its_name(pytestconfig):
    project = tomllib.loads((pytestconfig.rootpath / 'pyproject.toml').read_text())
    included = project['tool']['hatch']['build']['targets']['wheel']['force-include']
    assert list(included.values()) == [f'ptychodus/plugins/{NAME}.py']
    (found,) = included
    assert (pytestconfig.rootpath / found).read_text().startswith(MARK)


def test_the_supported_range_stands_in_one_place():
    pinned = [
        re.sub(r'\s', '', line.partition(';')[0])
        for line in metadata.requires(DISTRIBUTION)
        if line.startswith('ptychodus')
    ]
    ranges = {
        ''.join(sorted(re.sub(r'^ptychodus(\[gui\])?', '', line).split(','))) for line in pinned
    }
    assert ranges == {''.join(sorted(supported_range().split(',')))}


def test_whatever_is_wrong_is_one_warning(monkeypatch, caplog):
    module = import_module(f'ptychodus.plugins.{NAME}')
    monkeypatch.setitem(sys.modules, 'ptychodus_torch_plugin.integration.bridge', None)
    with caplog.at_level(logging.DEBUG):
        module.register_plugins(None)
    (record,) = caplog.records
    assert (record.levelname, record.name) == ('WARNING', 'ptychodus_torch_plugin')
    text = record.getMessage()
    assert text.startswith('ptychodus-torch-plugin is left out: ModuleNotFoundError: ')
    assert module.__file__ in text


@pytest.mark.parametrize('before', ['', 'import ptychodus.model.core'], ids=['scripts', 'window'])
def test_it_loads_nothing_heavy_and_takes_no_time(tmp_path, before):
    code = f"""
import sys, time
{before}
import ptychodus.api.plugins, ptychodus.api.reconstruct, ptychodus.plugins
known = set(sys.modules)
start = time.process_time()
from ptychodus.plugins.{NAME} import register_plugins
register_plugins(None)
took = time.process_time() - start
print(1e3 * took, sorted(set(sys.modules) - known), sep=',')
"""
    # Time of the processor, for a clock on the wall counts what others take; caches they take, too.
    for _ in range(5):
        (took, loaded), _ = answer(tmp_path, code)
        if took < MILLISECONDS:
            break
    assert took < MILLISECONDS
    assert 'ptychodus_torch_plugin.integration.bridge' in loaded
    assert not {name.partition('.')[0] for name in loaded} & HEAVY
    assert not [name for name in loaded if name.startswith(('ptychodus.model', 'ptychodus.view'))]


def test_it_comes_and_goes(tmp_path, stock):
    before = contents(stock)
    home, paths = tmp_path / 'home', (stock,)
    assert answer(home, KEYS, paths=paths)[0] is False
    path = stock / 'ptychodus' / 'plugins' / f'{NAME}.py'

    ran = command_line(home, 'install-shim', paths=paths)
    assert (ran.returncode, ran.stdout) == (
        0,
        f'Wrote {path}; Ptychodus finds the plugin from now on.\n',
    )
    assert answer(home, KEYS, paths=paths)[0] is True
    assert contents(stock) - before == {path.relative_to(stock)}
    again = command_line(home, 'install-shim', paths=paths)
    assert (again.returncode, again.stdout) == (0, f'Nothing to do: {path} is there already.\n')

    written = path.read_text()
    path.write_text(f'{MARK}, of an older release."""\n')
    assert command_line(home, 'install-shim', paths=paths).stdout.startswith('Wrote ')
    assert path.read_text() == written

    ran = command_line(home, 'uninstall-shim', paths=paths)
    assert (ran.returncode, ran.stdout) == (0, f'Removed {path}; Ptychodus is as it was.\n')
    assert contents(stock) == before
    assert not list(stock.rglob(f'{NAME}*'))
    assert answer(home, KEYS, paths=paths)[0] is False
    ran = command_line(home, 'uninstall-shim', paths=paths)
    assert (ran.returncode, ran.stdout) == (0, f'Nothing to do: there is no {path}.\n')


def test_without_our_package_it_is_one_warning(tmp_path, stock):
    """As after `pip uninstall` where `install-shim` had written it."""
    home = tmp_path / 'home'
    command_line(home, 'install-shim', paths=(stock,))
    code = f"import sys; sys.modules['ptychodus_torch_plugin'] = None{KEYS}"
    found, (warning,) = answer(home, code, paths=(stock,))
    assert found is False
    assert f'({stock}/ptychodus/plugins/{NAME}.py)' in warning


@pytest.mark.parametrize('command', ['install-shim', 'uninstall-shim'])
def test_a_file_of_somebody_else_is_left_alone(tmp_path, stock, command):
    path = stock / 'ptychodus' / 'plugins' / f'{NAME}.py'
    path.write_text('def register_plugins(registry): pass\n')
    ran = command_line(tmp_path / 'home', command, paths=(stock,))
    assert ran.returncode == 2
    assert f'{path} is not a file of this package, and is left alone' in ran.stderr
    assert path.read_text() == 'def register_plugins(registry): pass\n'


def test_where_it_cannot_be_written_there_is_another_way(tmp_path, stock):
    (stock / 'ptychodus' / 'plugins' / f'{NAME}.py').mkdir()
    ran = command_line(tmp_path / 'home', 'install-shim', paths=(stock,))
    assert ran.returncode == 2
    assert 'Cannot write' in ran.stderr
    assert "start Ptychodus with 'ptychodus-torch-plugin gui'" in ran.stderr


def test_what_pip_wrote_pip_removes(tmp_path):
    ran = command_line(tmp_path, 'install-shim')
    assert (ran.returncode, ran.stdout.endswith(' came with the package.\n')) == (0, True)
    ran = command_line(tmp_path, 'uninstall-shim')
    assert ran.returncode == 2
    assert 'pip uninstall ptychodus-torch-plugin' in ran.stderr
