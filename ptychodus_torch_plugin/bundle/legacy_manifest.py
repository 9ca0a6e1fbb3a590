"""`manifest.dill`: a courtesy to programs that follow the reference contract, section 4.6.

They unpickle it to learn the models, the version and the backend.  This package only writes it.
"""

from __future__ import annotations

# Nothing is ever unpickled here; the name of the member and its format are the contract's.
import pickle  # noqa: TID251 - to write, never to read


def legacy_manifest(models: tuple[str, ...], version: str, backend: str) -> bytes:
    """Return a plain pickle of one dictionary of strings and a list of strings."""
    content = {'models': list(models), 'version': version, 'backend': backend}
    return pickle.dumps(content, protocol=2)
