"""Whatever a damaged file makes its library raise, in one kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ptychodus_torch_plugin.errors import PluginError, ScanFileError


def as_text(attribute: Any) -> str:
    """Return a string attribute, which other programs may store as bytes."""
    return attribute.decode(errors='replace') if isinstance(attribute, bytes) else str(attribute)


@contextmanager
def damage_reported(what: str) -> Iterator[None]:
    """Turn whatever a damaged file makes its library raise into `ScanFileError`."""
    try:
        yield
    except PluginError:
        raise
    except Exception as error:  # zlib.error, BadZipFile, OSError, KeyError, MemoryError, ...
        text = ' '.join(str(error).split())
        if 'allow_pickle' in text or 'pickled data' in text:
            raise ScanFileError(
                f'{what} holds Python objects (a pickle), which are never loaded because they can '
                'run code; expected plain numbers. Save it again as an array of numbers.'
            ) from error
        raise ScanFileError(
            f'{what} cannot be read ({type(error).__name__}: {text}); '
            'expected an undamaged file. Copy or write it again.'
        ) from error
