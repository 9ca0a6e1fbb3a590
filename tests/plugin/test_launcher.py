"""`ptychodus-torch-plugin gui`: Ptychodus with the plugin where it is not found by itself."""

import pytest

from .installed import KEY, LATHE, copy_ptychodus, install, run


def gui(home, *options, paths=()):
    return run(home, '-m', 'ptychodus_torch_plugin', 'gui', *options, paths=paths)


@pytest.mark.parametrize(
    ('options', 'code', 'text'),
    [
        (['--version'], 0, 'Ptychodus (1.7'),
        (['--help'], 0, '--batch {reconstruct,train}'),
        (['-b', 'train'], 2, 'Batch mode requires input and output arguments!'),
        (['--debug', '--no_such-option', '--'], 2, 'arguments: --debug --no_such-option'),
        (['-s', 'nowhere.ini'], 2, "can't open 'nowhere.ini'"),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_the_options_are_those_of_ptychodus(tmp_path, options, code, text):
    ran = gui(tmp_path, *options)
    assert ran.returncode == code
    assert text in ran.stdout + ran.stderr


def test_a_library_works_where_ptychodus_does_not_find_it(tmp_path, folder):
    """Ptychodus in a folder of its own, as `--target` leaves it; headless."""
    stock, site = copy_ptychodus(tmp_path / 'stock'), tmp_path / 'other'
    install(site, 'lathe', LATHE, library='Lathe', view='create_views')
    settings = tmp_path / 'settings.ini'
    settings.write_text(f'[Processing]\nAlgorithm = {KEY}\n')
    home, batch = tmp_path / 'home', ('-b', 'reconstruct', '-s', settings, '-i', folder, '-o')
    alone = run(home, '-m', 'ptychodus', *batch, tmp_path / 'alone', paths=(stock, site))
    assert not list((tmp_path / 'alone').iterdir())
    assert 'lathe' not in alone.stdout
    ran = gui(home, *batch, tmp_path / 'out', paths=(stock, site))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['product.000002.h5']
    assert 'lathe: turned' in ran.stdout


NOWHERE = """
import sys
sys.path[:] = [{root!r}, {site!r}, *[path for path in sys.path if 'site-packages' not in path]]
from ptychodus_torch_plugin.integration.host import NoPtychodusError
from ptychodus_torch_plugin.integration.launcher import launch
try:
    launch(['--version'])
except NoPtychodusError as error:
    print(error)
"""


def test_without_ptychodus_it_says_how_to_install_it(tmp_path, pytestconfig):
    """The shim of our own wheel is no Ptychodus."""
    plugins = tmp_path / 'site' / 'ptychodus' / 'plugins'
    plugins.mkdir(parents=True)
    (plugins / 'ptychodus_torch_plugin_shim.py').touch()
    code = NOWHERE.format(root=str(pytestconfig.rootpath), site=str(tmp_path / 'site'))
    ran = run(tmp_path, '-S', '-c', code)
    assert ran.stdout == (
        'Ptychodus is not installed here. Install it with: '
        "pip install 'ptychodus-torch-plugin[gui]'\n"
    ), ran.stderr


def test_without_ptychodus_the_command_is_bad_input(tmp_path):
    code = (
        "import sys; sys.modules['ptychodus'] = None\n"
        'from ptychodus_torch_plugin.cli.app import main\n'
        "main(['gui', '-b', 'train'])"
    )
    ran = run(tmp_path, '-c', code)
    assert ran.returncode == 2
    assert ran.stderr.startswith('Error: Ptychodus is not installed here.')
