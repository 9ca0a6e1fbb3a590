"""Model archives of other programs: known by their names alone, and refused unread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ptychodus_torch_plugin.bundle.errors import ForeignBundleError
from ptychodus_torch_plugin.bundle.limits import LEGACY_MANIFEST, MANIFEST

_FRAMEWORK_FILES = {
    'model.keras': 'TensorFlow',
    'custom_objects.dill': 'TensorFlow',
    'model.pth': 'PyTorch',
}


def is_foreign(names: Sequence[str]) -> bool:
    """Whether the member names of an archive are those of a PtychoPINN archive."""
    return LEGACY_MANIFEST in names and MANIFEST not in names


def refuse_foreign(path: Path, names: Sequence[str]) -> None:
    """Raise `ForeignBundleError` if the member names are those of a PtychoPINN archive.

    A bundle is what it says; such an archive has to be interpreted: `foreign` does it on request.
    """
    if not is_foreign(names):
        return
    clues = (_FRAMEWORK_FILES.get(PurePosixPath(name).name) for name in names)
    framework = next((clue for clue in clues if clue), 'unknown framework')
    raise ForeignBundleError(
        f'{path} has {LEGACY_MANIFEST} but no {MANIFEST}: it seems to be a PtychoPINN archive '
        f'({framework}, judged by its member names), not a bundle of this package. Make one of '
        'it, without executing what is in it: ptychodus-torch-plugin convert ARCHIVE BUNDLE.'
    )
