"""The HDF5 of Keras: plain numbers that lie in the file itself, or nothing."""

import io
import random

import h5py
import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    BundleWeightsError,
    CorruptBundleError,
    ForeignBundleError,
)
from ptychodus_torch_plugin.errors import BundleError
from ptychodus_torch_plugin.files.keras_weights import read_keras_weights

from .lookalikes import KerasGraph, keras_weights, small_keras_members


def hdf5(change):
    """Return weights with something changed in the file."""
    stream = io.BytesIO(KerasGraph(64).hdf5(keras_weights()))
    with h5py.File(stream, 'r+') as file:
        change(file)
    return small_keras_members(**{'model.weights.h5': stream.getvalue()})


def replaced(**options):
    """Write the first kernel in another way."""

    def change(file):
        values = file['layers/conv2d/vars/0'][()]
        del file['layers/conv2d/vars/0']
        file['layers/conv2d/vars'].create_dataset('0', **{'data': values, **options})

    return change


def linked(link):
    def change(file):
        del file['layers/conv2d/vars/0']
        file['layers/conv2d/vars/0'] = link

    return change


def external(file):
    del file['layers/conv2d/vars/0']
    file['layers/conv2d/vars'].create_dataset(
        '0', (3, 3, 1, 32), 'f4', external=[('/etc/passwd', 0, 1152)]
    )


def virtual(file):
    layout = h5py.VirtualLayout((3, 3, 1, 32), 'f4')
    layout[:] = h5py.VirtualSource('other.h5', 'x', (3, 3, 1, 32))
    del file['layers/conv2d/vars/0']
    file.create_virtual_dataset('layers/conv2d/vars/0', layout)


def unwritten(file):
    """A dataset that says it is large, and takes no room."""
    del file['layers/conv2d/vars/0']
    file['layers/conv2d/vars'].create_dataset('0', (10**6, 10**6), 'f4')


def shared(file):
    for number in range(60):
        group = file.create_group(f'layers/more_{number}/vars')
        for index in range(22):
            name = f'conv2d_{index}' if index else 'conv2d'
            group[str(index)] = file[f'layers/{name}/vars/0']


HDF5 = {
    'double precision': (replaced(dtype='f8'), BundleContentError, 'no plain dataset'),
    'text': (replaced(data='text'), BundleContentError, 'no plain dataset'),
    'chunks': (replaced(chunks=True), BundleContentError, 'no plain dataset'),
    'compressed': (replaced(compression='gzip'), BundleContentError, 'no plain dataset'),
    'a group': (
        linked(h5py.SoftLink('/layers/conv2d_1')),
        BundleContentError,
        'is a link to elsewhere',
    ),
    'another file': (
        linked(h5py.ExternalLink('/etc/passwd', '/x')),
        BundleContentError,
        'is a link to elsewhere',
    ),
    'bytes of another file': (external, BundleContentError, 'no plain dataset'),
    'parts of another file': (virtual, BundleContentError, 'no plain dataset'),
    'unwritten': (unwritten, BundleContentError, 'no plain dataset'),
    'shared': (shared, BundleLimitError, 'more than .* bytes'),
    'no layers': (lambda file: file.pop('layers'), CorruptBundleError, "no group 'layers'"),
    'a kernel less': (
        lambda file: file.pop('layers/conv2d_3/vars/1'),
        CorruptBundleError,
        'in conv2d_3; expected kernel and bias of encoder.1.conv2',
    ),
    'another layer': (
        lambda file: file.create_dataset('layers/dense/vars/0', data=np.ones(3, 'f4')),
        ForeignBundleError,
        "weights of 'dense'",
    ),
    'many': (
        lambda file: [file.create_group(f'layers/{n}') for n in range(4100)],
        BundleLimitError,
        'expected at most 4096',
    ),
    'not finite': (replaced(data=np.full((3, 3, 1, 32), np.nan, 'f4')), BundleWeightsError, 'NaN'),
    'turned': (
        replaced(data=np.ones((3, 3, 32, 1), 'f4')),
        BundleWeightsError,
        r"'encoder.0.conv1.weight' has shape \(1, 32, 3, 3\)",
    ),
}


@pytest.mark.parametrize(('change', 'error', 'words'), HDF5.values(), ids=HDF5)
def test_other_weights(refused, change, error, words):
    refused(hdf5(change), error, words)


@pytest.mark.parametrize('data', [b'', b'no HDF5', b'\x89HDF\r\n\x1a\n' + bytes(500)])
def test_weights_that_are_no_hdf5(refused, data):
    refused(
        small_keras_members(**{'model.weights.h5': data}),
        CorruptBundleError,
        'cannot be read as HDF5',
    )


def test_weights_with_flipped_bits():
    """Numbers may change, nothing else; and nothing else escapes."""
    source = random.Random(3)
    whole = KerasGraph(64).hdf5(keras_weights())
    shapes = {each.shape for pair in keras_weights().values() for each in pair}
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(5):
            # Mostly where the structure is.
            place = source.randrange(16_384 if source.random() < 0.8 else len(data))
            data[place] ^= 1 << source.randrange(8)
        try:
            found = read_keras_weights(bytes(data), source='weights', at_most=10**8)
        except BundleError:
            refused += 1
        else:
            assert {each.shape for pair in found.values() for each in pair} <= shapes
    assert 20 < refused < 280
