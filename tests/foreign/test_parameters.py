"""Settings of an archive: each is checked when it is asked for, and named when it is wrong."""

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.errors import BundleContentError, ForeignBundleError
from ptychodus_torch_plugin.foreign.parameters import Parameters, read_parameters

from .lookalikes import Call, eager, pickled


def parameters(**values):
    return read_parameters(pickled(values), source='params')


GOOD = parameters(
    i=np.int32(7), f=np.float32(0.25), g=3, b=np.bool_(True), t='text', n=None, e=eager(np.eye(2))
)


def test_good_values():
    assert (GOOD.integer('i'), GOOD.number('f'), GOOD.number('g')) == (7, 0.25, 3.0)
    assert GOOD.flag('b', default=False) is True
    assert (GOOD.text('t'), GOOD.plain('t'), GOOD.plain('n')) == ('text', 'text', None)
    np.testing.assert_array_equal(GOOD.array('e'), np.eye(2))
    assert 't' in GOOD
    assert 'n' not in GOOD
    assert 'missing' not in GOOD


def test_defaults_stand_for_what_is_absent_or_none():
    assert (GOOD.integer('n', 3), GOOD.number('missing', 0.5)) == (3, 0.5)
    assert (GOOD.flag('missing', default=True), GOOD.text('n', 'x')) == (True, 'x')
    with pytest.raises(BundleContentError, match='params has no missing; expected'):
        GOOD.integer('missing')


@pytest.mark.parametrize(
    ('method', 'key', 'words'),
    [
        ('integer', 'f', "f = '0.25'; expected a whole number"),
        ('integer', 'b', "b = 'True'; expected a whole number"),
        ('integer', 't', "t = 'text'; expected a whole number"),
        ('number', 't', "t = 'text'; expected a finite number"),
        ('number', 'b', "b = 'True'; expected a finite number"),
        ('text', 'i', "i = '7'; expected text"),
        ('text', 'e', 'e = a record of .*; expected text'),
        ('flag', 'g', "g = '3'; expected true or false"),
    ],
)
def test_wrong_types(method, key, words):
    options = {'default': True} if method == 'flag' else {}
    with pytest.raises(BundleContentError, match=f'params has {words}'):
        getattr(GOOD, method)(key, **options)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_numbers_are_finite(value):
    with pytest.raises(BundleContentError, match='expected a finite number'):
        parameters(x=float(value)).number('x')


def test_required_values():
    GOOD.require('t', 'other', 'text')
    GOOD.require('missing', 'text')
    GOOD.require('n')
    for key, allowed in (('t', ('x',)), ('i', (8,)), ('b', (1,)), ('e', (1,)), ('g', ())):
        with pytest.raises(ForeignBundleError, match=f'params has {key} = '):
            GOOD.require(key, *allowed)


@pytest.mark.parametrize('value', [[1], 'text', None, Call(dict)])
def test_what_is_no_dictionary(value):
    with pytest.raises(BundleContentError, match='expected a dictionary of settings'):
        read_parameters(pickled(value), source='params')


def test_a_section_is_named_in_its_errors():
    section = Parameters({'a': {'b': 1}}, 'params').section('a')
    with pytest.raises(BundleContentError, match="a of params has b = '1'; expected text"):
        section.text('b')
