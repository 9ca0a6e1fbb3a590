"""NumPy arrays and scalars, from the pieces in which an inert pickle has them."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.bundle.errors import BundleContentError, CorruptBundleError, quoted
from ptychodus_torch_plugin.foreign.inert_pickle import Name, Record
from ptychodus_torch_plugin.foreign.limits import ARRAY_AXES

_NUMPY = re.compile(r'numpy\.(?:_?core\.(?:multiarray|numeric)\.)?(\w+)')
_NUMBER = re.compile(r'[biufc]\d{1,2}')
_WRAPPERS = re.compile(r'tensorflow\..*\.convert_to_tensor')
"""What an eager tensor of TensorFlow says it is made by, from an array."""


def as_array(value: Any, *, what: str) -> NDArray[Any]:
    """Return the array that a value of `inert_pickle.read_pickle` would have become.

    Also an array in an eager tensor of TensorFlow, or in a record of dill.

    Raises
    ------
    BundleContentError
        If it is something else, or not of numbers.
    CorruptBundleError
        If its bytes are not as many as its shape says.
    """
    record = _unwrapped(value)
    made_by = _numpy_name(record)
    if made_by == '_reconstruct' and _fits(record.state, 5):
        _, shape, dtype, fortran, data = record.state
        return _decoded(data, dtype, shape, 'F' if fortran is True else 'C', what)
    if made_by == '_frombuffer' and _fits(record.arguments, 4):
        data, dtype, shape, order = record.arguments
        return _decoded(data, dtype, shape, 'F' if order == 'F' else 'C', what)
    if made_by == 'scalar' and _fits(record.arguments, 2):
        dtype, data = record.arguments
        return _decoded(data, dtype, (), 'C', what)
    raise BundleContentError(f'{what} is {described(value)}; expected an array of numbers.')


def as_plain(value: Any, *, what: str) -> Any:
    """Return a number of Python where `value` is one of NumPy or TensorFlow; else `value`."""
    if not isinstance(value, Record):
        return value
    record = _unwrapped(value)
    if _numpy_name(record) not in ('scalar', '_reconstruct', '_frombuffer'):
        return value
    array = as_array(record, what=what)
    return array.item() if array.ndim == 0 else value


def described(value: Any) -> str:
    """Return what a value is, for a message: containers by their type alone, for they may be huge.

    Integers are bounded by the reader of pickles.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return quoted(value)
    if isinstance(value, Record):
        return f'a record of {quoted(value.kind or "an unknown call")}'
    if isinstance(value, Name):
        return f'the name {quoted(value)}'
    return f'of type {type(value).__name__}'


def _unwrapped(value: Any) -> Record:
    """Return the record of an array itself; any other record as it is."""
    record = value if isinstance(value, Record) else Record(None, ())
    if _WRAPPERS.fullmatch(record.kind) and record.arguments:
        inner = record.arguments[0]
        record = inner if isinstance(inner, Record) else record
    if record.kind == 'dill._dill._create_array' and _fits(record.arguments, 4):
        maker, arguments, state, _ = record.arguments
        return Record(maker, arguments, state)
    return record


def _numpy_name(record: Record) -> str:
    match = _NUMPY.fullmatch(record.kind)
    return match[1] if match else ''


def _fits(values: Any, count: int) -> bool:
    return isinstance(values, tuple) and len(values) == count


def _decoded(data: Any, dtype: Any, shape: Any, order: Any, what: str) -> NDArray[Any]:
    kind = _dtype(dtype, what)
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if not (
        isinstance(data, bytes)
        and len(sizes) <= ARRAY_AXES
        and all(type(size) is int and size >= 0 for size in sizes)
        and math.prod(sizes) * kind.itemsize == len(data)
    ):
        raise CorruptBundleError(
            f'{what} is an array whose shape, type and bytes contradict each other. '
            'Copy the archive again from where it was written.'
        )
    array: NDArray[Any] = np.frombuffer(data, kind).reshape(sizes, order=order)
    return array.astype(kind.newbyteorder('='))


def _dtype(value: Any, what: str) -> np.dtype[Any]:
    """Return the dtype of numbers in a record: its code and, in its state, the byte order."""
    if isinstance(value, Record) and _numpy_name(value) == 'dtype' and value.arguments:
        code, state = value.arguments[0], value.state
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else '='
        if isinstance(code, str) and _NUMBER.fullmatch(code) and order in ('<', '>', '=', '|'):
            try:
                return np.dtype(order + code)
            except TypeError:  # e.g. a float of three bytes
                pass
    raise BundleContentError(f'{what} is an array of {described(value)}; expected numbers.')
