"""The command line `ptychodus-torch-plugin`."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from ptychodus_torch_plugin.cli.bench import bench
from ptychodus_torch_plugin.cli.convert import convert
from ptychodus_torch_plugin.cli.demo import demo
from ptychodus_torch_plugin.cli.doctor import doctor
from ptychodus_torch_plugin.cli.evaluate import evaluate
from ptychodus_torch_plugin.cli.gui import OPTIONS_OF_PTYCHODUS, gui
from ptychodus_torch_plugin.cli.infer import infer
from ptychodus_torch_plugin.cli.inspect import inspect
from ptychodus_torch_plugin.cli.launching import ManyProcesses, launch
from ptychodus_torch_plugin.cli.options import one_spelling
from ptychodus_torch_plugin.cli.pretrain import pretrain
from ptychodus_torch_plugin.cli.quality import quality
from ptychodus_torch_plugin.cli.report import printable
from ptychodus_torch_plugin.cli.shim import install_shim, uninstall_shim
from ptychodus_torch_plugin.cli.simulate import simulate
from ptychodus_torch_plugin.cli.stopping import Killed, StoppedError
from ptychodus_torch_plugin.cli.train import train
from ptychodus_torch_plugin.errors import ConfigError, PluginError
from ptychodus_torch_plugin.ranks import ALONE, Rank, own_rank

NAME = 'ptychodus-torch-plugin'
DEBUG = '--debug'
GUI = 'gui'
BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130

COMMON: dict[str, Any] = {
    'context_settings': {
        'help_option_names': ['-h', '--help'],
        'max_content_width': 100,
        'token_normalize_func': one_spelling,
    }
}
app = typer.Typer(
    name=NAME,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it starts faster, and cuts no long option
    **COMMON,
)
for command in (demo, simulate, convert, train, infer, inspect, evaluate):
    app.command(**COMMON)(command)
app.command(context_settings=OPTIONS_OF_PTYCHODUS)(gui)
for tool in (bench, quality, pretrain, doctor, install_shim, uninstall_shim):
    app.command(**COMMON)(tool)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option('--version', help='Print the version.')] = False,
    debug: Annotated[  # noqa: ARG001 - `run` looks for it, wherever it stands
        bool, typer.Option(DEBUG, help='Show where in the program an error arose.')
    ] = False,
) -> None:
    """Physics-informed neural ptychographic reconstruction.

    Start with 'demo': it simulates scans, trains a network and reconstructs an object.
    Options may be written with '-' or '_' between words.
    """
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f'{NAME} {version_of(NAME)}')
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    # Threads that spin while they wait slow a shared machine down several times over.  OpenMP looks
    # when the backend's framework is loaded, later.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code: 0, 2 for bad input, 130 for Ctrl-C, 1 for a bug.

    Errors are one line on stderr; with `--debug` anywhere among the arguments, a traceback too.
    """
    if list(arguments[:1]) == [GUI]:
        return _start_ptychodus(arguments[1:])
    debug = DEBUG in arguments
    try:
        with _warnings_on_stderr():
            code = _call([argument for argument in arguments if argument != DEBUG])
        if code == INTERRUPTED:  # what newer releases of typer make of a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ManyProcesses as wish:
        return launch(arguments, wish.count)
    except (Killed, KeyboardInterrupt, typer.Abort):
        return _fail('Interrupted.', INTERRUPTED)
    except StoppedError as error:
        return _fail(str(error), INTERRUPTED)
    except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, nobody wants a traceback
        if debug:
            traceback.print_exc()
        return _explain(error)


def _start_ptychodus(arguments: Sequence[str]) -> int:
    """Hand over to Ptychodus: from there on, options, log and errors are its own."""
    from ptychodus_torch_plugin.integration.host import NoPtychodusError
    from ptychodus_torch_plugin.integration.launcher import launch

    try:
        return launch(arguments)
    except NoPtychodusError as error:
        return _explain(error)


def _call(arguments: list[str]) -> object:
    """Call a command directly: on the way through its group typer would load pydantic."""
    program: Any = get_command(app)
    name = NAME
    if arguments and arguments[0] in program.commands:
        program = program.commands[arguments[0]]
        name, arguments = f'{NAME} {arguments[0]}', arguments[1:]
    return program.main(args=arguments, prog_name=name, standalone_mode=False)


def _explain(error: Exception) -> int:
    if isinstance(error, PluginError):
        return _fail(f'Error: {error}', BAD_INPUT)
    # The errors of typer about usage; their class has moved between its releases.
    format_message = getattr(error, 'format_message', None)
    if format_message is not None:
        context = getattr(error, 'ctx', None)
        name = NAME if context is None else context.command_path
        return _fail(f"Error: {format_message().rstrip('.')}. See '{name} --help'.", BAD_INPUT)
    return _fail(
        f'Error: {type(error).__name__}: {error}'.rstrip('.') + '. This should not happen: please '
        f'report it, with what {DEBUG} shows.',
        BUG,
    )


def _fail(text: str, code: int) -> int:
    rank = _rank()
    if rank.first or code != INTERRUPTED:  # which they all are, and the first one says so
        speaker = '' if rank.alone else f'[{rank}] '
        typer.echo(printable(speaker + ' '.join(text.split())), err=True)
    return code


def _rank() -> Rank:
    try:
        return own_rank()
    except ConfigError:  # commands that need to know it say so
        return ALONE


class _Echo(logging.Handler):
    """Writes warnings of the package to whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(f'{record.levelname.capitalize()}: {record.getMessage()}', err=True)


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    logger = logging.getLogger('ptychodus_torch_plugin')
    handler = _Echo(logging.WARNING if _rank().first else logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
