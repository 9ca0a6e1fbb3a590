"""The weights in a `model.weights.h5` of Keras 3, read as plain numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import numpy as np

from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    CorruptBundleError,
    quoted,
)
from ptychodus_torch_plugin.errors import BundleError

LAYERS, VARIABLES = 'layers', 'vars'
MAX_GROUPS = 4096
MAX_VARIABLES = 64


def read_keras_weights(data: bytes, *, source: str, at_most: int) -> dict[str, list[FloatArray]]:
    """Return the variables of every layer that has some, by the name of the layer's group.

    Keras names these groups after the class of a layer, numbered in the order of the model's
    layers, whatever the layers' own names are.

    Parameters
    ----------
    data
        Bytes of the HDF5 file.
    source
        What to call it in a message.
    at_most
        Bytes of all variables together.

    Raises
    ------
    CorruptBundleError
        If it is damaged, or no such file.
    BundleContentError
        If a variable is not float32, or does not lie in the file as plain numbers.
    BundleLimitError
        If there is too much of it.
    """
    with _damage_reported(source), h5py.File(io.BytesIO(data), 'r') as file:
        layers = _group(file, LAYERS, source)
        _check_count(layers, MAX_GROUPS, source)
        found: dict[str, list[FloatArray]] = {}
        left = min(at_most, len(data))
        for name in layers:
            layer = _group(layers, name, source)
            for dataset in _datasets(layer, source) if VARIABLES in layer else ():
                left -= dataset.nbytes
                if left < 0:
                    raise BundleLimitError(
                        f'{source} has weights of more than {min(at_most, len(data))} bytes; '
                        'expected those of one model, each once.'
                    )
                variable = np.asarray(dataset[()], dtype=np.float32)
                found.setdefault(str(name), []).append(variable)
        return found


def _datasets(layer: h5py.Group, source: str) -> Iterator[h5py.Dataset]:
    """Yield the variables '0', '1', ... of a layer."""
    group = _group(layer, VARIABLES, source)
    _check_count(group, MAX_VARIABLES, source)
    for index in range(len(group)):
        dataset = _linked(group, str(index), source)
        if not isinstance(dataset, h5py.Dataset) or not _is_plain(dataset):
            raise BundleContentError(
                f'{source} has {quoted(f"{group.name}/{index}")}, which is no plain dataset of '
                'float32; expected the weights of a model as Keras writes them.'
            )
        yield dataset


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether the numbers lie in this file, one after the other, as many as the shape says."""
    size: int = dataset.id.get_storage_size()
    return bool(
        dataset.dtype == np.float32
        and dataset.chunks is None
        and not dataset.is_virtual
        and not dataset.external
        and size == dataset.size * dataset.dtype.itemsize
    )


def _group(parent: h5py.Group, name: str, source: str) -> h5py.Group:
    group = _linked(parent, name, source)
    if not isinstance(group, h5py.Group):
        raise CorruptBundleError(
            f'{source} has no group {quoted(name)} in {quoted(parent.name)}; expected the weights '
            'of a model as Keras 3 writes them.'
        )
    return group


def _linked(parent: h5py.Group, name: str, source: str) -> object:
    """Return a member of a group, but follow no link to anywhere else."""
    link = parent.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise BundleContentError(
            f'{source} has {quoted(name)} in {quoted(parent.name)}, which is a link to elsewhere; '
            'expected the weights themselves.'
        )
    return parent.get(name)


def _check_count(group: h5py.Group, at_most: int, source: str) -> None:
    if len(group) > at_most:
        raise BundleLimitError(
            f'{source} has {len(group)} members in {quoted(group.name)}; expected at most '
            f'{at_most}.'
        )


@contextmanager
def _damage_reported(source: str) -> Iterator[None]:
    try:
        yield
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001, RUF100 - whatever a damaged file makes HDF5 raise
        raise CorruptBundleError(
            f'{source} cannot be read as HDF5 ({type(error).__name__}: {quoted(error)}). '
            'Copy the archive again from where it was written.'
        ) from error
