"""The model that comes with this package.

`pretraining` says how it was trained.
"""

from __future__ import annotations

from pathlib import Path

PRETRAINED = 'pretrained'
"""What stands for its path."""

SHIPPED_FILE = Path(__file__).with_name('pretrained.wts.h5.zip')


def is_shipped(path: str | Path) -> bool:
    """Return whether a path means the model of the package: no file is called like that."""
    return str(path) == PRETRAINED and not Path(path).exists()
