"""Canonical tensors: the strict check and the safetensors bytes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from ptychodus_torch_plugin.bundle.errors import (
    BundleLimitError,
    BundleWeightsError,
    CorruptBundleError,
)
from ptychodus_torch_plugin.bundle.weights import check_weights, from_safetensors, to_safetensors
from ptychodus_torch_plugin.errors import BundleError


def raw(header: object, data: bytes = b'') -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data


def entry(shape: list[int], first: int, last: int, dtype: str = 'F32') -> dict[str, object]:
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [first, last]}


def test_right_weights_pass() -> None:
    check_weights({'a': np.zeros((2, 3), np.float32)}, {'a': (2, 3)})
    check_weights({}, {})


def test_all_faults_are_in_one_message() -> None:
    nan = np.ones((2, 3), np.float32)
    nan[1, 0], nan[1, 2] = np.nan, -np.inf
    weights = {
        'good': np.zeros(4, np.float32),
        'unexpected': np.zeros((9, 8), np.float32),
        'misshaped': np.zeros((2, 3), np.float32),
        'typed': np.zeros(4, np.float64),
        'nan': nan,
        'list': [1.0, [2.0]],
        'both': np.full((1, 4), np.nan, np.float32),
    }
    expected = {name: (4,) for name in weights if name not in ('unexpected', 'nan')}
    with pytest.raises(BundleWeightsError) as caught:
        check_weights(weights, expected | {'nan': (2, 3), 'missing': (5, 6)}, source='my file')
    head, *lines = str(caught.value).splitlines()
    assert head.startswith('my file has 8 faults (7 tensors found, 7 expected)')
    assert [line.strip() for line in lines] == [
        "'both' has shape (1, 4); expected (4,)",
        "'both' has 4 of 4 values NaN or infinite, the first at index (0, 0)",
        "'list' is a list, not an array; expected float32",
        "'misshaped' has shape (2, 3); expected (4,)",
        "'missing' is missing; expected shape (5, 6)",
        "'nan' has 2 of 6 values NaN or infinite, the first at index (1, 0)",
        "'typed' has dtype float64; expected float32",
        "'unexpected' is not expected; its shape is (9, 8)",
    ]


def test_a_transposed_or_flattened_kernel_is_not_reshaped_to_fit() -> None:
    kernel = np.zeros((3, 2, 5, 5), np.float32)
    for wrong in (kernel.transpose(2, 3, 1, 0), kernel.ravel()):
        with pytest.raises(BundleWeightsError, match='expected \\(3, 2, 5, 5\\)'):
            check_weights({'kernel': wrong}, {'kernel': kernel.shape})


def test_bytes_depend_on_content_alone_and_other_readers_agree() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {'z': values, 'a': np.array(-1.5, np.float32), 'empty': np.zeros((0, 2), np.float32)}
    strided = np.zeros((2, 6, 4), np.float32)
    strided[:, ::2] = values
    other = {
        'empty': tensors['empty'],
        'a': tensors['a'].astype('>f4'),
        'z': strided[:, ::2],
    }
    data = to_safetensors(tensors)
    assert to_safetensors(other) == data
    assert list(other) == ['empty', 'a', 'z']
    assert other['a'].dtype == '>f4'
    for found in (load(data), from_safetensors(data)):
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found[name], tensor, strict=True)


def test_read_tensors_are_sorted_writable_and_apart() -> None:
    tensors = from_safetensors(to_safetensors({n: np.ones(3, np.float32) for n in 'cab'}))
    assert list(tensors) == ['a', 'b', 'c']
    tensors['a'][:] = 7
    np.testing.assert_array_equal(tensors['b'], np.ones(3, np.float32))


@pytest.mark.parametrize(
    ('data', 'error', 'words'),
    [
        (b'', CorruptBundleError, '0 bytes'),
        (b'1234567', CorruptBundleError, '7 bytes'),
        (struct.pack('<Q', 2**40), BundleLimitError, str(2**40)),
        (struct.pack('<Q', 2**64 - 1) + b'{}', BundleLimitError, 'at most 1048576'),
        (raw(b'[' * 500), BundleLimitError, 'nested'),
        (raw(b'{"a":'), CorruptBundleError, 'not valid JSON'),
        (raw(b'\xff\xfe'), CorruptBundleError, 'not valid JSON'),
        (raw([1]), CorruptBundleError, 'list'),
        (raw({'a': 5}), BundleWeightsError, 'None'),
        (raw({'a': entry([1], 0, 4)}), CorruptBundleError, 'not valid safetensors'),
        (raw({'a': entry([1], 0, 4)}, b'12345'), CorruptBundleError, 'not valid safetensors'),
        (raw({'a': entry([2], 0, 4)}, b'1234'), CorruptBundleError, 'not valid safetensors'),
        (raw({'a': entry([-1], 0, 4)}, b'1234'), CorruptBundleError, 'not valid safetensors'),
        (raw({'a': entry([0, 2**63], 0, 0)}), CorruptBundleError, 'not valid safetensors'),
        (raw({'a': entry([0] * 80, 0, 0)}), CorruptBundleError, 'not valid safetensors'),
        (
            raw({'a': entry([1], 0, 4), 'b': entry([1], 0, 4)}, b'1234'),
            CorruptBundleError,
            'not valid safetensors',
        ),
        (
            raw(b'{"a":%b,"a":%b}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), b'1234'),
            CorruptBundleError,
            'twice',
        ),
        (
            raw({'a': entry([1], 0, 2, 'F16'), 'b': entry([1], 2, 4, 'BF16')}, b'1234'),
            BundleWeightsError,
            "'a' is 'F16', 'b' is 'BF16'",
        ),
        (
            raw({'../a': entry([1], 0, 4), '': entry([1], 4, 8)}, b'12345678'),
            BundleWeightsError,
            "''",
        ),
        (raw({f't{i}': entry([0], 0, 0) for i in range(4097)}), BundleLimitError, '4097'),
    ],
)
def test_hostile_safetensors(data: bytes, error: type[BundleError], words: str) -> None:
    with pytest.raises(error, match=words):
        from_safetensors(data)


def test_more_tensors_than_a_reader_accepts_are_not_written() -> None:
    with pytest.raises(BundleLimitError, match='4097'):
        to_safetensors({f't{i}': np.zeros(0, np.float32) for i in range(4097)})


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_altered_safetensors_raise_nothing_else(data: st.DataObject) -> None:
    good = save({'a': np.ones((2, 3), np.float32), 'b': np.zeros(5, np.float32)})
    place = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 4))
    altered = good[:place] + data.draw(st.binary(max_size=6)) + good[place + cut :]
    try:
        found = from_safetensors(altered)
    except BundleError:
        return
    assert all(tensor.dtype == np.float32 for tensor in found.values())
