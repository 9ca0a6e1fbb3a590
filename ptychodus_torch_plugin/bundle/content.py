"""What is neither weights nor in the schema of the manifest: probe, history, preview, both ways.

One check serves both directions, so that nothing is written that would be refused when read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray, check_array
from ptychodus_torch_plugin.bundle.errors import BundleContentError, quoted
from ptychodus_torch_plugin.errors import ShapeError

History = list[dict[str, float | int | None]]

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_EXACT_INTEGER = 2**53
_KEY_LENGTH = 100


def split_probe(probe: ComplexArray) -> dict[str, FloatArray]:
    """Return the parts ``real`` and ``imag`` (m, N, N) float32 of a probe (m, N, N) complex64."""
    try:
        modes = check_array(probe, 'm N N', name='probe', dtype=np.complex64)
    except ShapeError as error:
        raise BundleContentError(str(error)) from error
    if modes.size == 0:
        raise BundleContentError(f'probe has shape {modes.shape}; expected at least one mode.')
    return {'real': modes.real, 'imag': modes.imag}


def join_probe(parts: Mapping[str, FloatArray], *, source: str) -> ComplexArray:
    """Return the probe (m, N, N) complex64, bit by bit the one that was split."""
    if parts.keys() != {'real', 'imag'} or parts['real'].shape != parts['imag'].shape:
        found = ', '.join(f'{quoted(name)} {part.shape}' for name, part in sorted(parts.items()))
        raise BundleContentError(
            f'{source} holds {found or "nothing"}; expected real and imag, both (m, N, N).'
        )
    # Not real + 1j * imag: that loses the sign of zeros.
    probe = np.empty(parts['real'].shape, dtype=np.complex64)
    probe.real, probe.imag = parts['real'], parts['imag']
    try:
        split_probe(probe)
    except BundleContentError as error:
        raise BundleContentError(f'{source}: {error}') from error
    return probe


def check_history(history: Any, *, source: str) -> History:
    """Return `history` if it is a list of flat records of finite numbers.

    Raises
    ------
    BundleContentError
        Naming the first record and key that is something else.
    """
    if not isinstance(history, list):
        raise BundleContentError(
            f'{source} is a {type(history).__name__}; expected a list with one record per epoch.'
        )
    for epoch, record in enumerate(history):
        if not isinstance(record, dict):
            raise BundleContentError(
                f'{source}[{epoch}] is a {type(record).__name__}; expected a dictionary of losses.'
            )
        for key, value in record.items():
            if not (isinstance(key, str) and key.isprintable() and 0 < len(key) <= _KEY_LENGTH):
                raise BundleContentError(
                    f'{source}[{epoch}] has the key {quoted(key)}; expected 1 to {_KEY_LENGTH} '
                    'printable characters.'
                )
            if not _is_measure(value):
                raise BundleContentError(
                    f'{source}[{epoch}][{key!r}] is {quoted(value)} '
                    f'({type(value).__name__}); expected a finite float, an int below 2**53, or '
                    'None where nothing was measured.'
                )
    return history


def check_best_epoch(provenance: Mapping[str, Any], history: History, *, source: str) -> None:
    """Raise `BundleContentError` if a best epoch is named that is none of the history's."""
    best = provenance.get('best_epoch')
    if best is None:
        return
    if not isinstance(best, int) or isinstance(best, bool) or not 1 <= best <= len(history):
        raise BundleContentError(
            f'{source} has best_epoch = {quoted(best)} ({type(best).__name__}), but the history '
            f'has {len(history)} epochs; expected the int that counts one of them from 1, or None. '
            'Leave it out, or take the bundle as it was written.'
        )


def check_preview(preview: bytes | None, *, source: str) -> bytes | None:
    """Return `preview` if it is None or begins as a PNG picture does; it is never decoded here."""
    if preview is not None and not preview.startswith(_PNG_SIGNATURE):
        raise BundleContentError(
            f'{source} begins with {preview[:8]!r}; expected the bytes of a PNG picture.'
        )
    return preview


def _is_measure(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) <= _EXACT_INTEGER
    return value is None or (isinstance(value, float) and math.isfinite(value))
