"""What the options of all commands are made of.

An option of `None` was not given: the settings' own default holds, which the help states
(`tests/cli/test_defaults.py` compares them).  The choices are those of the settings, too; they
stand here once more because reading the settings would load NumPy and pydantic for a mere `--help`.
"""

from dataclasses import fields
from typing import Annotated, Any

import typer

DEFAULT_MARK = ' [default: '

Json = Annotated[
    bool, typer.Option('--json', help='Print the result as JSON, and nothing else, to stdout.')
]
Quiet = Annotated[
    bool, typer.Option('--quiet', help='Say nothing on stderr but warnings and errors.')
]


def one_spelling(name: str) -> str:
    """Return an option with dashes: `--batch_size` and `--batch-size` are one option.

    PtychoPINN has options of either spelling, and nobody remembers which is which.
    """
    return name.replace('_', '-')


def setting(*names: str, default: str, what: str) -> Any:
    """Return an option of `None` that says what it is and which default the settings have."""
    return typer.Option(*names, help=f'{what}{DEFAULT_MARK}{default}]', show_default=False)


def switch(name: str, *, default: bool, what: str) -> Any:
    """Return the option `--name/--no-name` of `None`; see `setting`."""
    on, off = name, f'no-{name}'
    return setting(f'--{on}/--{off}', default=on if default else off, what=what)


Backend = Annotated[
    str | None,
    setting(
        '--backend',
        default='the first one installed',
        what='Backend that computes: pytorch, tensorflow, or one of another package.',
    ),
]


def output_dir(contents: str) -> Any:
    """Return the option for the output folder of a command, which will hold `contents`."""
    help_text = f'Folder for the results ({contents}); made if missing, files in it are replaced.'
    return typer.Option('--output_dir', help=help_text)


def given(options: Any) -> dict[str, Any]:
    """Return the options of a group that the user gave, by the path of the setting they change."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {
        path: values[name] for name, path in options.SETTINGS.items() if values[name] is not None
    }
