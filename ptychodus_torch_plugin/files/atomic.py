"""`atomic_path`: an output file is either the old one or the whole new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychodus_torch_plugin.errors import OutputError, PluginError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary file to write to; put it in the place of `path` when all went well.

    The temporary file lies in the same folder, so that the exchange is one step of the file
    system.  A symbolic link is followed.  On any error the temporary file is removed and whatever
    stood at `path` stays.

    Parameters
    ----------
    path
        The file to write; its folder must exist.

    Yields
    ------
    pathlib.Path
        An empty file with the suffix of `path`.

    Raises
    ------
    OutputError
        If the folder is missing or not writable, `path` is no plain file, or writing fails.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise OutputError(f'Cannot write {path}: it exists and is not a plain file.')
    if not target.parent.is_dir():
        raise OutputError(
            f'Cannot write {path}: there is no folder {target.parent}; make it first.'
        )
    temporary = target.with_name(f'.{target.stem}-{secrets.token_hex(4)}{target.suffix}')
    try:
        # Not tempfile.mkstemp: its files are private to the user, whatever the umask says.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(target)
    except PluginError:
        raise
    except OSError as error:
        reason = ' '.join(str(error).split())
        raise OutputError(
            f'Cannot write {path} ({reason}); what stood there before is untouched. '
            f'Check that the folder {target.parent} is writable and has space left.'
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _flush_to_disk(path: Path) -> None:
    with path.open('rb+') as stream:
        os.fsync(stream.fileno())
