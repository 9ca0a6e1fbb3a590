"""`doctor`: what is there, what is not and how to get it, whatever is broken."""

import json

import pytest

from ptychodus_torch_plugin.cli import diagnosis

from .installed import LATHE, copy_ptychodus, install, run, write_metadata

HIDE = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {names} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""
FRAMEWORKS = ['torch', 'lightning', 'tensorflow', 'keras']
HEAVY = [*FRAMEWORKS, 'PyQt5']
"""What takes long to examine."""
COMMANDS = {
    'pytorch': "pip install 'ptychodus-torch-plugin[torch]'",
    'tensorflow': "pip install 'ptychodus-torch-plugin[tensorflow]'",
}
NAMES = tuple(f'{backend}{kind}' for backend in COMMANDS for kind in ('', '-fit', '-pretrained'))
SEES = """
import sys
from ptychodus_torch_plugin.cli.app import run
code = run(['doctor', '--json'])
loaded = [name for name in ('torch', 'tensorflow', 'lightning', 'keras', 'PyQt5', 'lathe')
          if name in sys.modules]
assert not loaded, loaded
sys.exit(code)
"""


def examine(home, *paths):
    """Return exit code and report."""
    ran = run(home, '-c', SEES, paths=paths)
    assert ran.stdout.startswith('{'), ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def without(folder, *names):
    """A folder at the front of the path that hides modules from every Python started with it."""
    folder.mkdir()
    (folder / 'sitecustomize.py').write_text(HIDE.format(names=names))
    return folder


def test_all_is_well(tmp_path):
    code, report = examine(tmp_path)
    assert code == 0
    found = report['ptychodus']
    assert (found['problem'], found['mend'], found['by_itself']) == ('', '', True)
    assert (found['version'][:4], found['supported']) == ('1.7.', '>=1.7,<1.8')
    for name in COMMANDS:
        backend = report['backends'][name]
        assert backend['usable'], backend
        assert backend['devices'][0] == 'cpu'
    assert 'torch' in report['backends']['pytorch']['versions']
    assert report['libraries']['PINN'] == {
        'name': 'PINN',
        'panel': True,
        'reason': '',
        'reconstructors': dict.fromkeys(NAMES, ''),
    }
    assert report['missing'] == []


@pytest.mark.slow
def test_one_backend_is_enough(tmp_path):
    code, report = examine(tmp_path / 'home', without(tmp_path / 'site', 'tensorflow', 'keras'))
    assert code == 0
    assert report['backends']['pytorch']['usable']
    assert 'tensorflow is not installed' in report['backends']['tensorflow']['reason']
    assert report['missing'] == [COMMANDS['tensorflow']]
    reasons = report['libraries']['PINN']['reconstructors']
    assert reasons['tensorflow-fit'] == 'tensorflow is not installed'
    assert reasons['pytorch-fit'] == ''


def test_none_is_exit_code_1(tmp_path):
    code, report = examine(tmp_path / 'home', without(tmp_path / 'site', *HEAVY))
    assert code == 1
    assert not any(each['usable'] for each in report['backends'].values())
    assert 'no window' in report['ptychodus']['problem']
    gui = "pip install 'ptychodus-torch-plugin[gui]'"
    assert sorted(report['missing']) == sorted([*COMMANDS.values(), gui])


def test_without_ptychodus_the_rest_is_told(tmp_path):
    code, report = examine(tmp_path / 'home', without(tmp_path / 'site', 'ptychodus', *FRAMEWORKS))
    assert code == 1
    assert report['ptychodus']['version'] is None
    assert report['ptychodus']['problem'] == 'Ptychodus is not installed'
    assert report['libraries'] == {}
    assert report['missing'][0] == "pip install 'ptychodus-torch-plugin[gui]'"


@pytest.mark.slow
def test_packages_of_others_are_listed_however_they_fail(tmp_path):
    site = without(tmp_path / 'site', *HEAVY)
    install(site, 'lathe', LATHE, library='Lathe')
    install(site, 'closed', LATHE, library='refuse')
    install(site, 'dying', LATHE, library='print_and_die')
    group = '[ptychodus_torch_plugin.backends]\nwood = lathe:print_and_die\n'
    write_metadata(site, 'wood', '0.1', group)
    code, report = examine(tmp_path / 'home', site)
    assert code == 1
    assert report['backends']['wood'] == {
        'usable': False,
        'mend': '',
        'reason': 'its process ended with code 3: chisel fault',
    }
    libraries = report['libraries']
    assert libraries['closed']['reason'] == 'OSError: the chuck is open'
    assert libraries['dying']['reason'] == 'its process ended with code 3: chisel fault'
    assert libraries['lathe'] == {
        'name': 'Lathe',
        'panel': False,
        'reason': '',
        'reconstructors': {'Turn': ''},
    }


def test_one_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    install(tmp_path, 'sleepy', 'import time\ntime.sleep(60)', library='make')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setattr(diagnosis, 'SECONDS_TO_ANSWER', 1.0)
    assert diagnosis.ask('library', 'sleepy') == {'reason': 'it did not answer within 1 s'}


def test_a_broken_lightning_is_found(tmp_path, monkeypatch):
    """Although nothing but a training imports it."""
    monkeypatch.setenv('PYTHONPATH', str(without(tmp_path / 'site', 'lightning.pytorch')))
    reason = diagnosis.ask('backend', 'pytorch')['reason']
    assert reason.startswith('PyTorch backend selected, but it fails to import: No module named')
    assert COMMANDS['pytorch'] in reason


def test_an_unknown_ptychodus_is_told(tmp_path):
    site = without(tmp_path / 'site', *FRAMEWORKS)
    write_metadata(site, 'ptychodus', '2.0.1')
    _, report = examine(tmp_path / 'home', site)
    assert report['ptychodus']['version'] == '2.0.1'
    assert 'is not known to this release of the plugin' in report['ptychodus']['problem']
    assert "pip install 'ptychodus>=1.7,<1.8'" in report['missing']


@pytest.mark.slow
def test_a_ptychodus_of_another_inside_is_told(tmp_path):
    """The real one, with one parameter renamed."""
    renamed = 'task_manager'
    stock = copy_ptychodus(tmp_path / 'stock')
    path = stock / 'ptychodus' / 'model' / 'processing' / 'core.py'
    path.write_text(path.read_text().replace(f'{renamed}:', f'the_{renamed}:'))
    _, report = examine(tmp_path / 'home', stock, without(tmp_path / 'site', *HEAVY))
    problem = report['ptychodus']['problem']
    assert f"ProcessingCore has no parameter ['{renamed}']" in problem
    assert f'see {path}:' in problem


@pytest.mark.slow
def test_for_people_it_is_text(tmp_path):
    stock = copy_ptychodus(tmp_path / 'stock')
    site = without(tmp_path / 'site', *HEAVY)
    ran = run(tmp_path / 'home', '-m', 'ptychodus_torch_plugin', 'doctor', paths=(stock, site))
    assert ran.returncode == 1
    assert "finds plugin  only when started with 'ptychodus-torch-plugin gui'" in ran.stdout
    assert 'library PINN  pinn_tensorflow: unavailable, tensorflow is not installed' in ran.stdout
    assert ran.stdout.endswith(f'  {COMMANDS["pytorch"]}\n')
