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


def refuse_foreign(path: Path, names: Sequence[str]) -> None:
    """Raise `ForeignBundleError` if the member names are those of a PtychoPINN archive.

    Its manifest is a pickle: to learn the backend from it would be to execute it.
    """
    if MANIFEST in names or LEGACY_MANIFEST not in names:
        return
    clues = (_FRAMEWORK_FILES.get(PurePosixPath(name).name) for name in names)
    framework = next((clue for clue in clues if clue), 'unknown framework')
    raise ForeignBundleError(
        f'{path} has {LEGACY_MANIFEST} but no {MANIFEST}: it seems to be a PtychoPINN archive '
        f'({framework}, judged by its member names). Its backend was not read, for that would '
        'execute what is in the file. This release reads only bundles of this package; a reader '
        'for PtychoPINN archives comes with a later one. Train the model here instead.'
    )
