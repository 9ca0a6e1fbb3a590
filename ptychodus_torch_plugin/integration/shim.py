"""The shim in Ptychodus' folder of plugins: whose it is, how it gets there and away again.

The wheel brings it along.  It is not found where Ptychodus lies in another folder than the package
(`--target`, the user's site): there it can be written by hand.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ptychodus_torch_plugin.errors import OutputError
from ptychodus_torch_plugin.files.atomic import atomic_path
from ptychodus_torch_plugin.integration.host import plugins_folder

DISTRIBUTION = 'ptychodus-torch-plugin'
NAME = 'ptychodus_torch_plugin_shim'
"""A module of `ptychodus.plugins`; the force-include of pyproject.toml has it, too."""
SOURCES = (
    Path(__file__).with_name('shim_module.py'),
    Path(__file__).parents[2] / 'ptychodus' / 'plugins' / f'{NAME}.py',
)
"""Where it is in a checkout, and where a wheel puts it, which has it nowhere else."""
MARK = f'"""Shim of {DISTRIBUTION}'
"""How each release's shim begins."""

Owner = Literal['nobody', 'package', 'user', 'others']


@dataclass(frozen=True)
class Shim:
    """Where the shim lies or would lie, and who put it there.

    Attributes
    ----------
    path
        The file.
    owner
        'nobody' if there is none; 'package' if pip wrote it, 'user' if `install_shim` did,
        'others' if it is no shim of ours.
    """

    path: Path
    owner: Owner

    @property
    def works(self) -> bool:
        """Whether Ptychodus calls us."""
        return self.owner in ('package', 'user')


def find_shim() -> Shim:
    """Return the shim of the Ptychodus here; raise `PtychodusError` without any."""
    path = plugins_folder() / f'{NAME}.py'
    return Shim(path, _owner(path))


def install_shim() -> str:
    """Write the shim; return what happened.

    Raises
    ------
    OutputError
        If the file is somebody else's, or cannot be written.
    """
    shim = find_shim()
    source = next(path for path in SOURCES if path.is_file()).read_text(encoding='utf-8')
    if shim.owner == 'others':
        raise _foreign(shim.path)
    if shim.owner == 'package':
        return f'Nothing to do: {shim.path} came with the package.'
    if shim.owner == 'user' and shim.path.read_text(encoding='utf-8') == source:
        return f'Nothing to do: {shim.path} is there already.'
    try:
        with atomic_path(shim.path) as temporary:
            temporary.write_text(source, encoding='utf-8')
    except OutputError as error:
        raise OutputError(
            f"{error} Or start Ptychodus with '{DISTRIBUTION} gui', which needs no such file."
        ) from error
    return f'Wrote {shim.path}; Ptychodus finds the plugin from now on.'


def uninstall_shim() -> str:
    """Remove what `install_shim` wrote; return what happened.

    Raises
    ------
    OutputError
        If the file is somebody else's, came with the package, or cannot be removed.
    """
    shim = find_shim()
    if shim.owner == 'nobody':
        return f'Nothing to do: there is no {shim.path}.'
    if shim.owner == 'others':
        raise _foreign(shim.path)
    if shim.owner == 'package':
        raise OutputError(
            f'{shim.path} came with the package and goes with it: pip uninstall {DISTRIBUTION}'
        )
    try:
        shim.path.unlink()
    except OSError as error:
        raise OutputError(f'cannot remove {shim.path}: {error.strerror or error}.') from error
    for compiled in (shim.path.parent / '__pycache__').glob(f'{NAME}.*.pyc'):
        with suppress(OSError):  # without its source nobody reads it
            compiled.unlink()
    return f'Removed {shim.path}; Ptychodus is as it was.'


def _owner(path: Path) -> Owner:
    if not path.is_file():
        return 'nobody'
    if not path.read_text(encoding='utf-8', errors='replace').startswith(MARK):
        return 'others'
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(DISTRIBUTION) or ():
            if file.name == path.name and Path(str(file.locate())).resolve() == path.resolve():
                return 'package'
    return 'user'


def _foreign(path: Path) -> OutputError:
    return OutputError(
        f'{path} is not a file of this package, and is left alone; expected no such file, or one '
        f'that begins with {MARK!r}. Move it away.'
    )
