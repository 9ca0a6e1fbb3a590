"""Arrays and scalars from the pieces that a pickle has of them."""

import pickle  # noqa: TID251 - to make what must never be loaded

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.errors import BundleContentError, CorruptBundleError
from ptychodus_torch_plugin.foreign.inert_pickle import Record, read_pickle
from ptychodus_torch_plugin.foreign.pickled_values import as_array, as_plain, described

from .lookalikes import DILL_ARRAY, TO_TENSOR, Call, eager, pickled


def read(value, protocol=4):
    return read_pickle(pickled(value, protocol), source='a pickle')


ARRAY = np.arange(30, dtype=np.float64).reshape(2, 3, 5) - 7


@pytest.mark.parametrize('protocol', [3, 4, 5])
@pytest.mark.parametrize(
    'dtype', ['?', 'i1', 'u2', '<i8', '>i4', 'f2', 'f4', '>f4', 'f8', 'c8', '>c16']
)
@pytest.mark.parametrize('order', ['C', 'F'])
def test_arrays(protocol, dtype, order):
    array = np.asarray(ARRAY, dtype=dtype, order=order)
    for each in (array, array[:, ::2], array[0, 0, 0:1], array[:0]):
        found = as_array(read(each, protocol), what='x')
        np.testing.assert_array_equal(found, each)
        assert found.dtype == array.dtype.newbyteorder('=')
    scalar = as_plain(read(array[1, 2, 3], protocol), what='x')
    assert scalar == array[1, 2, 3]
    assert isinstance(scalar, bool | int | float | complex)


def test_an_array_in_a_tensor_of_tensorflow():
    np.testing.assert_array_equal(as_array(read(eager(ARRAY)), what='x'), ARRAY)
    assert as_plain(read(eager(np.array(2.5))), what='x') == 2.5
    assert as_plain(read(Call(TO_TENSOR, np.float32(0.5))), what='x') == 0.5


def test_what_is_no_number_of_numpy_stays():
    for value in (None, True, 3, 'text', [1], (2,)):
        assert as_plain(read(value), what='x') == value
    for value in (Call(TO_TENSOR, 'text'), ARRAY, Call(DILL_ARRAY, 1)):
        assert isinstance(as_plain(read(value), what='x'), Record)


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        (3, "x is '3'; expected an array of numbers"),
        ([ARRAY], 'x is of type list'),
        (Call(TO_TENSOR), "x is a record of 'tensorflow.python.framework.ops.convert_to_tensor'"),
        (np.array(['text']), 'x is an array of a record of .*expected numbers'),
        (np.array([{}, None]), 'expected numbers'),
        (np.zeros(3, dtype=[('a', 'f4')]), 'expected numbers'),
        (np.array(['2020-01-01'], dtype='M8[D]'), 'expected numbers'),
    ],
)
def test_what_is_no_array_of_numbers(value, words):
    with pytest.raises(BundleContentError, match=words):
        as_array(read(value), what='x')


@pytest.mark.parametrize(
    ('old', 'new', 'error'),
    [
        (b'K\x02K\x03K\x05\x87', b'K\x02K\x03K\x06\x87', CorruptBundleError),
        (b'K\x02K\x03K\x05\x87', b'K\x02K\x03J\xff\xff\xff\xff\x87', CorruptBundleError),
        (b'K\x02K\x03K\x05\x87', b'K\x02K\x03\x88\x87', CorruptBundleError),
        (b'K\x02K\x03K\x05\x87', b'(' + b'K\x01' * 9 + b't', CorruptBundleError),
        (b'\x8c\x02f8', b'\x8c\x02f3', BundleContentError),
        (b'\x8c\x02f8', b'\x8c\x02O8', BundleContentError),
        (b'\x8c\x01<', b'\x8c\x01!', BundleContentError),
        (b'\x8c\x05dtype', b'\x8c\x05dtyqe', BundleContentError),
        (b'_reconstruct', b'_reconstruck', BundleContentError),
    ],
)
def test_altered_arrays(old, new, error):
    whole = pickle.dumps(ARRAY, 4)
    assert whole.count(old) == 1
    altered = whole.replace(old, new)
    with pytest.raises(error, match=r'^x is'):
        as_array(read_pickle(b'\x80\x04' + altered[11:], source='a pickle'), what='x')


def test_containers_are_described_by_their_type_alone():
    nested = []
    for _ in range(60):
        nested = [nested, nested]
    assert described(nested) == 'of type list'
    assert described('x' * 999) == repr('x' * 80 + '...')
    assert described(2**127).startswith("'17014")
