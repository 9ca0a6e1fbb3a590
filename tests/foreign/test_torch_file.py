"""Files of torch.save: whatever a description of a tensor says, no byte beyond its own is read."""

from collections import OrderedDict

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    CorruptBundleError,
    ForeignBundleError,
)
from ptychodus_torch_plugin.foreign import torch_file as reader

from .lookalikes import DOUBLES, REBUILD, Call, Storage, zipped
from .torch_lookalikes import torch_file, torch_members, torch_metadata, torch_parameters

TORCH_FILE = 'diffraction_to_obj/model.pth'
METADATA_FILE = 'torch_scaling_metadata.pt'


def with_file(data, name=TORCH_FILE):
    members = torch_members(torch_parameters(), {'x': np.ones(3, 'f4')}, torch_metadata())
    return members | {name: data}


def tensor(storage, offset, shape, strides, *more):
    """A file of one tensor `x` in 12 numbers."""
    arguments = (storage, offset, shape, strides, False, OrderedDict(), *more)
    return torch_file(lambda _: OrderedDict(x=Call(REBUILD, *arguments)), {'y': np.ones(12, 'f4')})


FILES = {
    'no zip': (b'\x80\x02\x8a', ForeignBundleError, None),
    'no pickle': (zipped({'archive/x': b''}), CorruptBundleError, '0 folders with data.pkl'),
    'two pickles': (
        zipped({'a/data.pkl': b'', 'b/data.pkl': b''}),
        CorruptBundleError,
        '2 folders',
    ),
    'big-endian': (
        zipped({'a/data.pkl': b'N.', 'a/byteorder': b'big'}),
        ForeignBundleError,
        'big-endian',
    ),
    'sentinel': (
        torch_file(lambda _: {'_sentinel': 'autoencoder'}),
        ForeignBundleError,
        'no dictionary of tensors',
    ),
    'list': (torch_file(lambda _: [1]), ForeignBundleError, 'no dictionary of tensors'),
    'double precision': (
        torch_file(lambda tensors: tensors, {'x': np.ones(3)}, kind=DOUBLES),
        ForeignBundleError,
        "'x' in the name 'torch.DoubleStorage'; expected float32",
    ),
    'no bytes': (
        tensor(Storage('7', 3), 0, (3,), (1,)),
        CorruptBundleError,
        'lacks the member archive/data/7',
    ),
    'too large': (tensor(Storage('0', 12), 0, (13,), (1,)), CorruptBundleError, r'shape \(13,\)'),
    'too far': (tensor(Storage('0', 12), 10, (3,), (1,)), CorruptBundleError, 'larger than'),
    'too wide': (tensor(Storage('0', 12), 0, (3, 3), (5, 1)), CorruptBundleError, 'larger than'),
    'empty': (tensor(Storage('0', 12), 0, (3, 0), (1, 1)), CorruptBundleError, 'is empty or'),
    'backwards': (tensor(Storage('0', 12), 0, (3,), (-1,)), BundleContentError, "tensor 'x'"),
    'negative': (tensor(Storage('0', 12), 0, (-3,), (1,)), BundleContentError, "tensor 'x'"),
    'axes': (tensor(Storage('0', 12), 0, (3, 3), (1,)), BundleContentError, "tensor 'x'"),
    'many axes': (tensor(Storage('0', 12), 0, (1,) * 9, (1,) * 9), BundleContentError, "'x'"),
    'repeated': (
        tensor(Storage('0', 12), 0, (10**6, 10**6), (0, 0)),
        BundleLimitError,
        'more than .* bytes',
    ),
    'no storage': (tensor('0', 0, (3,), (1,)), BundleContentError, "tensor 'x'"),
    'path': (
        tensor(Storage('../data.pkl', 12), 0, (3,), (1,)),
        CorruptBundleError,
        'lacks the member archive/data/../data.pkl',
    ),
}


@pytest.mark.parametrize(('data', 'error', 'words'), list(FILES.values())[1:], ids=list(FILES)[1:])
def test_other_files(refused, data, error, words):
    refused(with_file(data), error, words)


@pytest.mark.parametrize('name', [TORCH_FILE, METADATA_FILE])
def test_files_that_are_no_zip(refused, name):
    """As torch.save wrote them before 2020, and would still on request."""
    refused(with_file(b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.', name), ValueError, 'no.* zip')


def test_tensors_that_share_what_they_lie_in_are_limited_together(monkeypatch, refused):
    def many(tensors):
        record = tensors['x']
        return OrderedDict((f'x{n}', record) for n in range(40))

    data = torch_file(many, {'x': np.ones(1000, 'f4')})
    monkeypatch.setattr(reader, 'WEIGHTS_BYTES', 100_000)
    refused(with_file(data), BundleLimitError, 'more than 100000 bytes')


def test_the_same_bytes_are_read_once(monkeypatch):
    def many(tensors):
        _, arguments = tensors['x'].reduced
        part = Call(REBUILD, arguments[0], 0, (1,), (1,), False, OrderedDict())
        return OrderedDict((f'x{n}', part) for n in range(500))

    data = torch_file(many, {'x': np.ones(1000, 'f4')})
    read, seen = reader.Archive.read, []

    def counted(archive, name, **options):
        seen.append(name)
        return read(archive, name, **options)

    monkeypatch.setattr(reader.Archive, 'read', counted)
    assert len(reader.read_tensors(data, source='x')) == 500
    assert seen.count('archive/data/0') == 1


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ([1], 'expected a dictionary of settings'),
        ({'schema_version': 'ci-entrypoints-v1'}, 'model_config of .* is .None.'),
        ({'schema_version': 'ci-entrypoints-v1', 'model_config': {}}, 'data_config of .* is'),
        ({'schema_version': 'ci-entrypoints-v1', 'model_config': 3}, 'model_config of .* is .3.'),
    ],
)
def test_metadata_that_are_none(refused, value, words):
    members = with_file(torch_file(lambda _: value), METADATA_FILE)
    refused(members, BundleContentError, words)
