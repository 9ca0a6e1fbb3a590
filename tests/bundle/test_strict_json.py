"""JSON from strangers: depth, duplicates, numbers, and time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    CorruptBundleError,
)
from ptychodus_torch_plugin.bundle.strict_json import decode_json, encode_json
from ptychodus_torch_plugin.errors import BundleError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**38), 10**38)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec='utf-8')),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    data = encode_json(value, source='x')
    assert decode_json(data, source='x') == value
    assert data.isascii()


@given(st.binary(max_size=40) | st.text('[]{}",:\\u0e1 truefalsn', max_size=40).map(str.encode))
def test_any_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        value = decode_json(data, source='x')
    except BundleError:
        return
    assert value == json.loads(data)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'{"a": 1, "b": 2, "a": 1}', "'a' occurs twice"),
        (b'[{"a": {"c": 1, "c": 2}}]', "'c' occurs twice"),
        (b'NaN', 'NaN'),
        (b'[-Infinity]', 'Infinity'),
        (b'1e400', 'finite'),
        (b'1' * 41, '41 digits'),
        (b'', 'x is not valid JSON'),
        (b'[1,]', 'x is not valid JSON'),
        (b'\xef\xbb\xbf[]', 'BOM'),
        ('[]'.encode('utf-16'), 'UTF-8'),
        (b'"\xff"', 'UTF-8'),
    ],
)
def test_refused_texts(data: bytes, words: str) -> None:
    with pytest.raises(CorruptBundleError, match=words):
        decode_json(data, source='x')


def test_depth_is_limited_outside_strings_only() -> None:
    deepest = b'[' * 32 + b']' * 32
    assert decode_json(deepest, source='x') is not None
    assert decode_json(b'["' + b'[' * 99 + b'\\"' + b'{' * 99 + b'"]', source='x')
    for deep in (b'[' + deepest + b']', b'{"a":' * 33, b'[' * 2_000_000, b'["\\"",' * 33):
        with pytest.raises(BundleLimitError, match='32 levels'):
            decode_json(deep, source='x')


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    'data',
    [
        b'"' + b'\\"' * 2_000_000,
        b'[' + b'[],' * 1_300_000,
        b'{' + b','.join(b'"%d":1' % i for i in range(300_000)) + b',"7":1}',
        b'"' * 4_000_000,
    ],
    ids=['escapes', 'lists', 'keys', 'quotes'],
)
def test_time_grows_with_the_length_only(data: bytes) -> None:
    with pytest.raises(CorruptBundleError):
        decode_json(data, source='x')


@pytest.mark.parametrize('value', [float('inf'), {1, 2}, {(1, 2): 3}, {'a': object()}])
def test_values_that_json_does_not_know(value: object) -> None:
    with pytest.raises(BundleContentError, match='x cannot be written'):
        encode_json(value, source='x')


def test_circular_and_deep_values() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(BundleContentError):
        encode_json(circle, source='x')
    deep: list[object] = []
    for _ in range(33):
        deep = [deep]
    with pytest.raises(BundleLimitError):
        encode_json(deep, source='x')
