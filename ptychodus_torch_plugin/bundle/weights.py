"""Canonical tensors: a dictionary of float32 arrays, its strict check, and its safetensors bytes.

Canonical means the same for every backend: convolution kernels are (out, in, kh, kw), names come
from the written model graph.  A backend transposes into its own layout when it loads, never here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.bundle.errors import (
    BundleLimitError,
    BundleWeightsError,
    CorruptBundleError,
    quoted,
)
from ptychodus_torch_plugin.bundle.limits import HEADER_BYTES, TENSOR_COUNT
from ptychodus_torch_plugin.bundle.strict_json import decode_json

TENSOR_NAME_PATTERN = '^[A-Za-z0-9_.-][A-Za-z0-9_./-]{0,199}$'
_RESERVED_NAME = '__metadata__'  # safetensors keeps its own notes under this name


def check_weights(
    weights: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    *,
    source: str = 'weights',
) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Parameters
    ----------
    weights
        Tensors by canonical name; each must be a finite float32 array.
    expected
        Shape by canonical name.
    source
        What to call the tensors in the error, e.g. a file and its member.

    Raises
    ------
    BundleWeightsError
        Once, listing every missing, unexpected, misshaped, wrongly typed and non-finite tensor.
    """
    faults = []
    for name in sorted({*weights, *expected}):
        if name in weights:
            faults.extend(_tensor_faults(name, weights[name], expected.get(name)))
        else:
            faults.append(f'{quoted(name)} is missing; expected shape {tuple(expected[name])}')
    if faults:
        listed = '\n  '.join(faults)
        raise BundleWeightsError(
            f'{source} has {len(faults)} faults ({len(weights)} tensors found, {len(expected)} '
            'expected); none was used. Take weights and model from the same run:\n  '
            f'{listed}'
        )


def _tensor_faults(name: str, tensor: Any, expected: tuple[int, ...] | None) -> list[str]:
    if not isinstance(tensor, np.ndarray):
        return [f'{quoted(name)} is a {type(tensor).__name__}, not an array; expected float32']
    faults = []
    if expected is None:
        faults.append(f'{quoted(name)} is not expected; its shape is {tensor.shape}')
    elif tensor.shape != tuple(expected):
        faults.append(f'{quoted(name)} has shape {tensor.shape}; expected {tuple(expected)}')
    if tensor.dtype.newbyteorder('=') != np.float32:
        return [*faults, f'{quoted(name)} has dtype {tensor.dtype}; expected float32']
    finite = np.isfinite(tensor)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        faults.append(
            f'{quoted(name)} has {int((~finite).sum())} of {tensor.size} values NaN or infinite, '
            f'the first at index {first}'
        )
    return faults


def to_safetensors(tensors: Mapping[str, FloatArray], *, source: str = 'tensors') -> bytes:
    """Return the safetensors bytes of float32 arrays, the same for the same content.

    The arrays may be strided, transposed or big-endian: what is written are fresh contiguous
    little-endian copies, and `tensors` stays as it is.

    Raises
    ------
    BundleWeightsError
        If a name is not canonical, or a tensor is not a finite float32 array.
    BundleLimitError
        If there are more tensors or longer names than `from_safetensors` accepts.
    """
    _check_names(tensors, source)
    check_weights(tensors, {name: np.shape(t) for name, t in tensors.items()}, source=source)
    # Not ascontiguousarray: it turns a scalar into a vector.
    copies = {name: np.array(tensors[name], dtype='<f4', order='C') for name in sorted(tensors)}
    data = save(copies)
    _header(data, source)
    return data


def from_safetensors(data: bytes, *, source: str = 'tensors') -> dict[str, FloatArray]:
    """Return the tensors of safetensors bytes as writable native float32 arrays, sorted by name.

    Values may be NaN: compare with what is expected by `check_weights`.

    Raises
    ------
    BundleLimitError
        If the header is too long, too deep, or names too many tensors.
    CorruptBundleError
        If the bytes are truncated or do not follow the format.
    BundleWeightsError
        If a name is not canonical or a tensor is not float32.
    """
    header = _header(data, source)
    _check_names(header, source)
    _check_dtypes(header, source)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, OverflowError) as error:
        raise CorruptBundleError(
            f'{source} is not valid safetensors: {error}. '
            'Copy the bundle again from where it was written.'
        ) from error
    return {name: tensors[name] for name in sorted(tensors)}


def _header(data: bytes, source: str) -> dict[str, Any]:
    """Return the header's entries after bounding its length, which comes first in the file."""
    if len(data) < 8:
        raise CorruptBundleError(f'{source} has {len(data)} bytes; safetensors has at least 8.')
    (length,) = struct.unpack_from('<Q', data)
    if length > HEADER_BYTES:
        raise BundleLimitError(
            f'{source} has a header of {length} bytes; expected at most {HEADER_BYTES}.'
        )
    header = decode_json(data[8 : 8 + length], source=f'the header of {source}')
    if not isinstance(header, dict):
        raise CorruptBundleError(f'the header of {source} is a {type(header).__name__}, no object.')
    header.pop(_RESERVED_NAME, None)
    if len(header) > TENSOR_COUNT:
        raise BundleLimitError(
            f'{source} names {len(header)} tensors; expected at most {TENSOR_COUNT}.'
        )
    return header


def _check_names(tensors: Mapping[str, Any], source: str) -> None:
    bad = sorted(
        name
        for name in tensors
        if name == _RESERVED_NAME or not re.fullmatch(TENSOR_NAME_PATTERN, name)
    )
    if bad:
        listed = ', '.join(quoted(name) for name in bad)
        raise BundleWeightsError(
            f'{source} has tensors with the names {listed}; expected 1 to 200 of the characters '
            'A-Z a-z 0-9 _ . / -, as in the written model graph.'
        )


def _check_dtypes(header: Mapping[str, Any], source: str) -> None:
    dtypes = {
        name: entry.get('dtype') if isinstance(entry, dict) else None
        for name, entry in header.items()
    }
    wrong = [
        f'{quoted(name)} is {quoted(found)}'
        for name, found in sorted(dtypes.items())
        if found != 'F32'
    ]
    if wrong:
        raise BundleWeightsError(
            f'{source}: {", ".join(wrong)}; expected float32 (F32) tensors only.'
        )
