"""Every command line in the documents is one that the program takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from ptychodus_torch_plugin.cli.app import app

ROOT = Path(__file__).parents[2]
NAME = 'ptychodus-torch-plugin'
DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def command_lines(document):
    """Yield the arguments of each command line in the fenced blocks of a document."""
    for block in re.findall(r'^```(?:console|bash|shell|sh)\n(.*?)^```', document, re.M | re.S):
        for line in re.split(r'\n|&&', block.replace('\\\n', ' ')):
            words = shlex.split(line.removeprefix('$ '), comments=True)
            if words and words[0] == NAME:
                yield words[1:]


FOUND = [
    pytest.param(arguments, id=f'{path.name}: {shlex.join(arguments)}')
    for path in DOCUMENTS
    for arguments in command_lines(path.read_text())
]


def parse(arguments):
    """Parse a command line without doing what it says; raise what typer raises."""
    group = typer.main.get_command(app)
    for command in group.commands.values():
        command.callback = lambda **_: None
    group.main(args=list(arguments), prog_name=NAME, standalone_mode=False)


def test_there_are_command_lines():
    assert len(FOUND) > 5


@pytest.mark.parametrize('arguments', FOUND)
def test_a_documented_command_line_is_understood(arguments):
    parse(arguments)


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['demo', '--no-such-option'], '--no-such-option'),
        (['deom'], 'deom'),
        (['convert', 'only-one'], 'OUT'),
        (['train', 'scan.h5', '--epochs', 'many'], '--epochs'),
    ],
)
def test_other_command_lines_are_not(arguments, named):
    with pytest.raises(Exception, match=r'.') as caught:
        parse(arguments)
    assert named in caught.value.format_message()
