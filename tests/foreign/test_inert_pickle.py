"""Pickles as data: what is plain comes out, what would be called does not happen."""

import math
import os
import pickle  # noqa: TID251 - to make what must never be loaded
import pickletools
import random
import time
import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    CorruptBundleError,
)
from ptychodus_torch_plugin.errors import BundleError
from ptychodus_torch_plugin.foreign.inert_pickle import Name, Persistent, Record, read_pickle
from ptychodus_torch_plugin.foreign.limits import PICKLE_MARKS, PICKLE_OPCODES

from .lookalikes import Call, Storage, pickled

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def read(data):
    return read_pickle(data, source='a pickle')


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**127), 2**127)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=9) | st.integers(-(2**59), 2**59), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize('protocol', PROTOCOLS)
@given(value=values)
def test_plain_values_come_out_as_they_are(protocol, value):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize('protocol', PROTOCOLS[1:])
def test_other_plain_values(protocol):
    shared = [1.5]
    long = {'x' * 70_000: [b'', b'a' * 300, b'b' * 70_000, shared, shared]}
    assert read(pickle.dumps(long, protocol)) == long
    found = read(pickle.dumps([shared, shared], protocol))
    assert found[0] is found[1]
    assert math.isnan(read(pickle.dumps(math.nan, protocol)))
    assert read(pickle.dumps(({3}, frozenset({4}), list(range(3000))), protocol))[2][-1] == 2999
    if protocol == 5:
        assert read(pickle.dumps(bytearray(b'abc'), protocol)) == b'abc'


def test_a_value_may_contain_itself():
    value = []
    value.append(value)
    found = read(pickle.dumps(value))
    assert found[0] is found


# What would be called


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def hostile(path):
    """Return programs that would make a folder, by the way in which they would."""
    text = f"__import__('os').mkdir({path!r})".encode()
    name = b'\x8c\x02os\x8c\x05mkdir\x93'
    argument = b'X' + len(path).to_bytes(4, 'little') + path.encode() + b'\x85'
    code = b'X' + len(text).to_bytes(4, 'little') + text + b'\x85'
    return {
        'reduce': b'\x80\x04' + name + argument + b'R.',
        'new object': b'\x80\x04' + name + argument + b'\x81.',
        'new object with names': b'\x80\x04' + name + argument + b'}\x92.',
        'global': b'\x80\x02cos\nmkdir\n' + argument + b'R.',
        'eval': b'\x80\x02cbuiltins\neval\n' + code + b'R.',
        'called by a call': b'\x80\x04cbuiltins\ngetattr\ncos\npath\n\x8c\x05mkdir\x86R'
        + argument
        + b'R.',
        'state': b'\x80\x04' + name + b')R}' + argument[:-1] + b'K\x01sb.',
    }


@pytest.mark.parametrize('way', hostile('x'))
def test_nothing_is_called(tmp_path, monkeypatch, way):
    def refuse(*_):
        raise AssertionError('something was called or imported')

    monkeypatch.setattr(os, 'mkdir', refuse)
    monkeypatch.setattr('builtins.eval', refuse)
    data = hostile(str(tmp_path / 'trap'))[way]
    with monkeypatch.context() as context:
        context.setattr('builtins.__import__', refuse)
        found = read(data)
    assert isinstance(found, Record)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('way', ['reduce', 'global', 'eval'])
def test_they_would_have_worked(tmp_path, way):
    pickle.loads(hostile(str(tmp_path / 'trap'))[way])
    assert (tmp_path / 'trap').is_dir()


def test_calls_are_written_down():
    found = read(pickle.dumps(Payload('here'), 4))
    assert (found.kind, found.arguments) == (f'{os.mkdir.__module__}.mkdir', ('here',))
    made = read(pickle.dumps(OrderedDict([('b', 1), ('a', 2)]), 2))
    assert made.maker == Name('collections', 'OrderedDict')
    assert list(made.entries.items()) == [('b', 1), ('a', 2)]
    stored = read(pickled([Storage('7', 12)], 2))[0]
    assert isinstance(stored, Persistent)
    assert stored.identifier == ('storage', Name('torch', 'FloatStorage'), '7', 'cpu', 12)


def test_state_and_items_are_written_down():
    class_, state = read(pickle.dumps([Call(list, (1,)), ValueError('x')], 4))
    assert class_.kind == 'builtins.list'
    error = ValueError('y')
    error.why = 'z'
    assert read(pickle.dumps(error, 4)).state == {'why': 'z'}
    extended = b'\x80\x02c_\nlist_\n)R(K\x01K\x02e.'
    assert read(extended).items == [1, 2]
    assert state.arguments == ('x',)


# What is refused


@pytest.mark.parametrize(
    ('data', 'error', 'words'),
    [
        (b'\x80\x02\x82\x01.', BundleContentError, 'instruction EXT1 at byte 2'),
        (b'\x80\x02\x83\x01\0.', BundleContentError, 'EXT2'),
        (b'\x80\x02\x84\x01\0\0\0.', BundleContentError, 'EXT4'),
        (b'(S"ls"\nios\nsystem\n.', BundleContentError, 'STRING'),
        (b'(ios\nsystem\n.', BundleContentError, 'INST'),
        (b'(cos\nsystem\no.', BundleContentError, 'OBJ'),
        (b'Pkey\n.', BundleContentError, 'PERSID'),
        (b'I1' + b'0' * 3000 + b'\n.', BundleContentError, 'INT'),
        (b'\x80\x05\x97.', BundleContentError, 'NEXT_BUFFER'),
        (b'\x80\x02}]K\x01s.', BundleContentError, 'key of type list'),
        (b'\x80\x02}c_\nx\nK\x01s.', BundleContentError, 'key of type Name'),
        (b'\x80\x02}\x8a\x09' + b'\x01' * 9 + b'K\x01s.', BundleContentError, '60 bits'),
        (b'\x80\x02\x8a\x14' + b'\x01' * 20 + b'.', BundleLimitError, 'integer of 153 bits'),
        (b'', CorruptBundleError, 'no valid pickle'),
        (b'.', CorruptBundleError, 'no valid pickle'),
        (b'K\x01', CorruptBundleError, 'no valid pickle'),
        (b'\xff', CorruptBundleError, 'no valid pickle'),
        (b'K\x01\x86.', CorruptBundleError, 'more values are taken'),
        (b'K\x01K\x02R.', CorruptBundleError, 'a call without arguments'),
        (b'K\x01}b.', CorruptBundleError, 'attributes of a plain value'),
        (b'K\x01K\x02a.', CorruptBundleError, 'items without a list'),
        (b'K\x01K\x02K\x03s.', CorruptBundleError, 'without a dictionary'),
        (b'}(K\x01u.', CorruptBundleError, 'without a dictionary'),
        (b'h\x05.', CorruptBundleError, 'no valid pickle'),
        (b'K\x01K\x02\x93.', CorruptBundleError, 'a name that is no text'),
        (b't.', CorruptBundleError, 'no valid pickle'),
        (b'\x80\x04\x8e' + b'\xff' * 8 + b'.', CorruptBundleError, 'no valid pickle'),
        (b'\x80\x04X\xff\xff\xff\x7fabc.', CorruptBundleError, 'no valid pickle'),
        (b'\x80\x04\x8c\x02\xff\xff.', CorruptBundleError, 'no valid pickle'),
    ],
)
def test_refused(data, error, words):
    with pytest.raises(error, match=words):
        read(data)


BOMBS = {
    'instructions': b'N0' * (PICKLE_OPCODES // 2) + b'N.',
    'lists in lists': b']' + b'(]' * (PICKLE_MARKS + 1),
    'doubling': b']q\0' + b''.join(b'](h%ch%ce\x71%c' % (n, n, n + 1) for n in range(99)) * 200,
}


@pytest.mark.parametrize('bomb', BOMBS)
def test_bombs_are_refused(bomb):
    with pytest.raises(BundleLimitError, match='expected the settings or the weights'):
        read(BOMBS[bomb])


@pytest.mark.parametrize(
    'data',
    [
        b']q\0' + b''.join(b'](h%ch%ceq%c' % (n, n, n + 1) for n in range(99)) + b'.',
        b')' + b'\x85' * 90_000 + b'.',
        b'c_\nx\n' + b'\x85R' * 45_000 + b'.',
        b'c_\nx\n)R' + b'c_\nx\n)R' * 20_000 + b'.',
        b'\x80\x04}'
        + b''.join(b'K\x01\x8a\x07%bs' % n.to_bytes(7, 'little') for n in range(20_000)),
        b'\x80\x04X\0\0\x80\0' + b'a' * (1 << 23) + b'q\0' + b'h\0' * 40_000 + b'.',
    ],
    ids=['doubled lists', 'tuples in tuples', 'calls of calls', 'many calls', 'keys', 'long text'],
)
def test_what_is_deep_or_shared_costs_little(data):
    """Nothing walks through a value; to let go of it is no recursion either."""
    tracemalloc.start()
    begun = time.perf_counter()
    try:
        found = read(data)
        del found
    except BundleError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6 + 3 * len(data)
    assert time.perf_counter() - begun < 20


def test_whatever_the_bytes_nothing_else_escapes():
    """Altered and truncated pickles, and sequences of instructions drawn at random."""
    source = random.Random(5)
    whole = pickled({'N': 64, 'a': (1, 2.5, [None, True]), 'b': Payload('x'), 'c': b'12' * 9})
    codes = [each.code.encode('latin-1') for each in pickletools.opcodes]
    drawn = [
        b''.join(source.choice(codes) + source.randbytes(source.randrange(3)) for _ in range(9))
        for _ in range(3000)
    ]
    altered = []
    for _ in range(2000):
        data = bytearray(whole)
        data[source.randrange(len(data))] = source.randrange(256)
        altered.append(
            bytes(data[: source.randrange(len(data)) if source.random() < 0.3 else None])
        )
    refused = 0
    for data in drawn + altered:
        try:
            read(data)
        except BundleError:
            refused += 1
    assert refused > 2000
