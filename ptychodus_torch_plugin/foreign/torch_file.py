"""Files of `torch.save`: a zip archive of one pickle and of the bytes of each tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    CorruptBundleError,
    ForeignBundleError,
    quoted,
)
from ptychodus_torch_plugin.foreign.archive import Archive, open_inner
from ptychodus_torch_plugin.foreign.inert_pickle import Name, Persistent, Record, read_pickle
from ptychodus_torch_plugin.foreign.limits import (
    ARRAY_AXES,
    METADATA_BYTES,
    PARAMETERS_BYTES,
    WEIGHTS_BYTES,
)
from ptychodus_torch_plugin.foreign.pickled_values import described

_PICKLE = 'data.pkl'
_TENSOR = 'torch._utils._rebuild_tensor_v2'
_FLOATS = Name('torch', 'FloatStorage')
_DICTIONARY = 'collections.OrderedDict'


def read_values(data: bytes, *, source: str) -> Any:
    """Return the plain values in a file of `torch.save`; tensors stay records.

    Raises
    ------
    BundleError
        If it is damaged, or has more than plain values in it.
    """
    archive, folder = _opened(data, source)
    return _values(archive, folder, METADATA_BYTES)


def read_tensors(data: bytes, *, source: str) -> dict[str, FloatArray]:
    """Return the tensors of a state dictionary by name.

    Raises
    ------
    ForeignBundleError
        If it is no state dictionary of float32 tensors.
    CorruptBundleError, BundleContentError, BundleLimitError
        If it is damaged, or holds what it should not.
    """
    archive, folder = _opened(data, source)
    stored = _values(archive, folder, PARAMETERS_BYTES)
    entries = stored.entries if _is_made_by(stored, _DICTIONARY) else stored
    if not isinstance(entries, dict) or not all(
        isinstance(name, str) and _is_made_by(value, _TENSOR) for name, value in entries.items()
    ):
        raise ForeignBundleError(
            f'{source} is no dictionary of tensors; expected the trained weights of a model. The '
            'archive may be of a training that did not finish.'
        )
    return dict(_tensors(archive, folder, entries))


def _opened(data: bytes, source: str) -> tuple[Archive, str]:
    """Return the archive, and the folder in it that holds everything."""
    archive = open_inner(data, source)
    folders = [name.removesuffix(_PICKLE) for name in archive.names if _is_main_pickle(name)]
    if len(folders) != 1:
        raise CorruptBundleError(
            f'{source} has {len(folders)} folders with {_PICKLE}; expected one, as torch.save '
            'writes it. Take the archive as PtychoPINN wrote it.'
        )
    order = f'{folders[0]}byteorder'
    if order in archive.names and archive.read(order, at_most=16) != b'little':
        raise ForeignBundleError(
            f'{source} has numbers in big-endian order; expected them as PyTorch writes them on '
            'most machines. Save the weights again on another one.'
        )
    return archive, folders[0]


def _is_main_pickle(name: str) -> bool:
    return name.count('/') == 1 and name.endswith(f'/{_PICKLE}')


def _values(archive: Archive, folder: str, at_most: int) -> Any:
    name = folder + _PICKLE
    return read_pickle(archive.read(name, at_most=at_most), source=archive.source_of(name))


def _tensors(
    archive: Archive, folder: str, entries: Mapping[str, Record]
) -> Iterator[tuple[str, FloatArray]]:
    left, storages = WEIGHTS_BYTES, _Storages(archive, folder)
    for name, record in entries.items():
        key, offset, shape, strides = _description(name, record, archive.source)
        left -= 4 * math.prod(shape)
        if left < 0:
            raise BundleLimitError(
                f'{archive.source} has tensors of more than {WEIGHTS_BYTES} bytes; expected those '
                'of one model, each once.'
            )
        data = storages[key]
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if not math.prod(shape) or 4 * (last + 1) > len(data) or len(data) % 4:
            raise CorruptBundleError(
                f'{archive.source} has the tensor {quoted(name)} of shape {shape}, which is empty '
                'or larger than what is stored. Copy the archive again from where it was written.'
            )
        stored = np.frombuffer(data, '<f4')[offset:]
        steps = tuple(4 * stride for stride in strides)
        view = as_strided(stored, shape, steps, writeable=False)
        # A copy, in order and in the byte order of this machine.
        yield name, np.array(view, dtype=np.float32, order='C')


class _Storages(dict[str, bytes]):
    """The bytes that tensors lie in, each read once, all together within the limit."""

    def __init__(self, archive: Archive, folder: str) -> None:
        super().__init__()
        self._archive, self._folder, self._left = archive, folder, WEIGHTS_BYTES

    def __missing__(self, key: str) -> bytes:
        data = self._archive.read(f'{self._folder}data/{key}', at_most=self._left)
        self._left -= len(data)
        self[key] = data
        return data


_Shape = tuple[int, ...]


def _description(name: str, record: Record, source: str) -> tuple[str, int, _Shape, _Shape]:
    """Return the key of the stored bytes, and where in them a tensor lies: offset, shape, strides.

    The last three count numbers, not bytes.
    """
    match record.arguments:
        case (
            Persistent(identifier=('storage', kind, str(key), str(), int())),
            int(offset),
            tuple(shape),
            tuple(strides),
            *_,
        ) if len(shape) == len(strides) <= ARRAY_AXES and all(
            type(each) is int and each >= 0 for each in (offset, *shape, *strides)
        ):
            if kind != _FLOATS:
                raise ForeignBundleError(
                    f'{source} has the tensor {quoted(name)} in {described(kind)}; expected '
                    'float32. Save the weights again in single precision.'
                )
            return key, offset, shape, strides
    raise BundleContentError(
        f'{source} describes the tensor {quoted(name)} in a way that no release of PyTorch does '
        'that is known here. Save the weights again with a current one.'
    )


def _is_made_by(value: Any, kind: str) -> bool:
    return isinstance(value, Record) and value.kind == kind
