"""Exit codes and what stands on stderr, whatever goes wrong."""

import logging
from importlib.metadata import version

import pytest

from ptychodus_torch_plugin.cli import app
from ptychodus_torch_plugin.cli.stopping import Killed, StoppedError
from ptychodus_torch_plugin.errors import PluginError


@pytest.fixture
def failing(monkeypatch, command_line):
    """Make the command `convert` raise."""

    def arm(error):
        def raise_it(*_, **__):
            raise error

        monkeypatch.setattr('ptychodus_torch_plugin.cli.convert.check_scan_suffix', raise_it)
        return command_line('convert', 'a', 'b.h5')

    return arm


def test_a_plugin_error_is_one_line(failing):
    ran = failing(PluginError('a.h5: key x\n  is 3;\nexpected 4.'))
    assert (ran.code, ran.out, ran.err) == (2, '', 'Error: a.h5: key x is 3; expected 4.\n')


def test_an_error_cannot_move_the_cursor(failing):
    assert failing(PluginError('\x1b[2Jgone')).err == 'Error: \\x1b[2Jgone\n'


def test_a_bug_asks_to_be_reported(failing):
    ran = failing(ZeroDivisionError('by zero'))
    assert ran.code == 1
    assert ran.err.startswith('Error: ZeroDivisionError: by zero.')
    assert '--debug' in ran.err


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (KeyboardInterrupt(), 'Interrupted.\n'),
        (Killed(), 'Interrupted.\n'),
        (StoppedError('Stopped early.'), 'Stopped early.\n'),
    ],
)
def test_ctrl_c_is_130(failing, error, text):
    ran = failing(error)
    assert (ran.code, ran.err) == (130, text)


@pytest.mark.parametrize('place', [0, 1, 3])
def test_debug_shows_the_traceback_wherever_it_stands(here, command_line, place):
    arguments = ['convert', 'missing.h5', 'out.h5']
    arguments.insert(place, '--debug')
    ran = command_line(*arguments)
    assert ran.code == 2
    assert 'Traceback' in ran.err
    assert ran.last.startswith('Error: missing.h5: ')


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['convrt'], "'convrt'"),
        (['convert'], "Missing argument 'IN'"),
        (['train', '--epochs', 'many'], '--epochs'),
        (['train', '--architecture', 'mlp'], "'unrolled', 'cnn', 'none'"),
        (['train', 'a.h5', '--nonsense'], '--nonsense'),
        (['train'], 'no scan was given; expected at least one SCAN'),
        (['infer'], '--test_data'),
        (['simulate', 'a.h5', '--count', '0'], '--count'),
        (['simulate', 'a.txt'], "a.txt ends in '.txt'; expected a name that ends in .h5"),
        (['evaluate', 'a.h5'], '--truth'),
    ],
)
def test_wrong_usage_is_one_line(here, fail, arguments, expected):
    ran = fail(*arguments)
    assert expected in ran.err
    assert ran.err.count('\n') == 1
    assert list(here.iterdir()) == []


def test_the_version_is_the_packages(call):
    assert call('--version').out == f'ptychodus-torch-plugin {version("ptychodus-torch-plugin")}\n'


def test_warnings_of_the_package_are_seen_once_per_run(monkeypatch, here, command_line):
    def warn(path):
        logging.getLogger('ptychodus_torch_plugin.files').warning('%s is odd', path)
        raise PluginError('enough')

    monkeypatch.setattr('ptychodus_torch_plugin.cli.convert.check_scan_suffix', warn)
    for _ in range(2):
        ran = command_line('convert', 'a', 'b.h5')
        assert ran.err == 'Warning: b.h5 is odd\nError: enough\n'


def test_main_exits_with_the_code(here):
    with pytest.raises(SystemExit) as stopped:
        app.main(['convert', 'missing.h5', 'out.h5'])
    assert stopped.value.code == 2
