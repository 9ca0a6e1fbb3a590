"""Every option of `train` and `infer` is there with underscores and with dashes."""

import pytest
import typer

from ptychodus_torch_plugin.cli.app import app

COMMANDS = typer.main.get_command(app).commands
REQUIRED = {'train': ['scan.h5'], 'infer': ['--test_data', 'scan.h5']}
OPTIONS = [
    pytest.param(command, option, name, id=f'{command} {name}')
    for command in REQUIRED
    for option in COMMANDS[command].params
    for name in (*option.opts, *option.secondary_opts)
    if len(name.strip('-').replace('_', '-').split('-')) > 1
]


def parsed(command, *arguments):
    context = COMMANDS[command].make_context(command, [*REQUIRED[command], *arguments])
    return context.params


@pytest.fixture
def value_for(choices):
    """Return a value that an option takes, as words."""
    callbacks = {each.callback.__name__: each.callback for each in app.registered_commands}

    def value(command, option):
        known = choices(callbacks[command].__annotations__[option.name])
        return [] if option.is_flag else [min(known, default='7')]

    return value


def test_there_are_many():
    assert len(OPTIONS) > 60


@pytest.mark.parametrize(('command', 'option', 'name'), OPTIONS)
def test_both_spellings_say_the_same(value_for, command, option, name):
    words = name.removeprefix('--')
    spellings = [f'--{words.replace("_", "-")}', f'--{words.replace("-", "_")}']
    value = value_for(command, option)
    first, second = (parsed(command, spelled, *value) for spelled in spellings)
    assert first == second != parsed(command)
