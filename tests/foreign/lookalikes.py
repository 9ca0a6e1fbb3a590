"""Archives as PtychoPINN writes them, made from what is known of them, without its frameworks.

The weights are drawn under the names that they have there; no two kernels are alike.
"""

import io
import json
import pickle  # noqa: TID251 - to make what the reader must never load
import sys
import types
import zipfile
from itertools import accumulate, pairwise
from unittest import mock

import h5py
import numpy as np

PROBE_SCALE, PHOTONS = 3.0, 2e4
ENCODER = {64: (32, 64, 128), 128: (16, 32, 64, 128), 256: (8, 16, 32, 64, 128)}
DECODER = {64: (128, 64, 32), 128: (128, 128, 64, 32), 256: (128, 256, 128, 64, 32)}
PARTS = {'amplitude': 'amp', 'phase': 'phase'}
CONVS = ('conv1', 'conv2')


def probe_of(n_px):
    """A probe off the centre, (N, N) complex64."""
    y, x = np.indices((n_px, n_px)) - n_px / 2
    return (7 * np.exp(-(y**2 + 2 * (x - 3) ** 2) / n_px + 0.1j * x)).astype(np.complex64)


def zipped(members, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', method, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def drawn(rng, *shape):
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


# Pickles of things that cannot be imported here


def _stub(module, name):
    def called(*_):
        raise AssertionError(f'{module}.{name} was called')

    called.__module__, called.__qualname__ = module, name
    return called


TO_TENSOR = _stub('tensorflow.python.framework.ops', 'convert_to_tensor')
DILL_ARRAY = _stub('dill._dill', '_create_array')
REBUILD = _stub('torch._utils', '_rebuild_tensor_v2')
FLOATS = _stub('torch', 'FloatStorage')
DOUBLES = _stub('torch', 'DoubleStorage')
STUBS = (TO_TENSOR, DILL_ARRAY, REBUILD, FLOATS, DOUBLES)


class Call:
    """Pickled as a call."""

    def __init__(self, called, *arguments):
        self.reduced = called, arguments

    def __reduce__(self):
        return self.reduced


class Storage:
    """What a tensor of PyTorch lies in."""

    def __init__(self, key, size, kind=FLOATS):
        self.identifier = ('storage', kind, key, 'cpu', size)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.identifier if isinstance(value, Storage) else None


def pickled(value, protocol=4):
    modules = {}
    for each in STUBS:
        for name in accumulate(each.__module__.split('.'), '{}.{}'.format):
            modules.setdefault(name, types.ModuleType(name))
        setattr(modules[each.__module__], each.__qualname__, each)
    stream = io.BytesIO()
    with mock.patch.dict(sys.modules, modules):
        _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def eager(array):
    """An eager tensor of TensorFlow, as dill writes it."""
    function, arguments, state = array.__reduce__()
    return Call(TO_TENSOR, Call(DILL_ARRAY, function, arguments, state, None))


# TensorFlow


def creation_order(n_px, *, padded=True, big=True):
    """Return the canonical names of the layers in the order in which the reference makes them.

    The encoder; then, for amplitude and phase, both output layers, the decoder, and what is left.
    """
    depth, names = len(ENCODER[n_px]), []
    names += [f'encoder.{level}.{conv}' for level in range(depth) for conv in CONVS]
    for part in PARTS:
        end = f'{part}.border' if padded else f'{part}.whole'
        names += [f'{part}.center', f'{end}.out']
        names += [f'{part}.decoder.{i}.{conv}' for i in range(depth - 1) for conv in CONVS]
        names += [f'{end}.{conv}' for conv in CONVS] if big or not padded else []
    return names


def keras_weights(n_px=64, scale=1, channels=1, *, padded=True, big=True, patches=None, seed=1):
    """Return kernel (kh, kw, in, out) and bias of each layer by its canonical name."""
    rng, wide = np.random.default_rng(seed), scale * 2048 // n_px
    patches = patches or channels
    encoder = [channels, *(scale * n for n in ENCODER[n_px])]
    decoder = [scale * n for n in DECODER[n_px]]
    sizes = _levels('encoder', encoder)
    for part in PARTS:
        sizes |= _levels(f'{part}.decoder', decoder)
        if padded:
            sizes[f'{part}.center'] = decoder[-1] - 4, patches
        if big or not padded:
            end = f'{part}.border' if padded else f'{part}.whole'
            sizes[f'{end}.conv1'] = 4 if padded else decoder[-1], wide
            sizes[f'{end}.conv2'], sizes[f'{end}.out'] = (wide, wide), (wide, patches)
    return {
        name: (drawn(rng, out, n, 3, 3).transpose(2, 3, 1, 0), drawn(rng, out))
        for name, (n, out) in sizes.items()
    }


def _levels(name, channels):
    return {
        f'{name}.{level}.{conv}': (inputs if conv == 'conv1' else outputs, outputs)
        for level, (inputs, outputs) in enumerate(pairwise(channels))
        for conv in CONVS
    }


class KerasGraph:
    """The layers of a model in the order in which Keras lists them: both decoders in turns.

    Convolutions are called after the order of their creation, on from the number `first`.
    """

    def __init__(self, n_px, *, padded=True, big=True, activation='sigmoid', first=22):
        order = enumerate(creation_order(n_px, padded=padded, big=big), first)
        self.names = {role: f'conv2d_{i}' if i else 'conv2d' for i, role in order}
        self.entries, self.roles = [], []
        last = self.add('IntensityScaler', 'intensity_scaler', self.add('InputLayer', 'input'))
        for level in range(len(ENCODER[n_px])):
            (last,) = self.block(['encoder'], level, [last])
            last = self.add('MaxPooling2D', f'max_pooling2d_{level}', last)
        ends = [last, last]
        for level in range(len(DECODER[n_px]) - 1):
            ends = self.block([f'{part}.decoder' for part in PARTS], level, ends)
            ends = [self.add('UpSampling2D', f'up_{end}', end) for end in ends]
        outer = self.outer(ends, 'border' if padded else 'whole') if big or not padded else []
        inner = [
            self.conv(f'{part}.center', self.add('GetItem', f'inner_{end}', end))
            for part, end in zip(PARTS, ends, strict=True)
            if padded
        ]
        functions = {'amp': activation, 'phi': 'tanh'}
        heads = [
            self.add('ActivationLayer', head, source, activation_name=function)
            for (head, function), source in zip(functions.items(), inner or outer, strict=True)
        ]
        if inner and outer:
            outer = [self.add('CenterMaskLayer', f'mask_{each}', each) for each in outer]
            pairs = zip(heads, outer, strict=True)
            heads = [self.add('Add', f'add_{head}', head, border) for head, border in pairs]
        self.add('CombineComplexLayer', 'obj', *heads)

    def add(self, kind, name, *inputs, **config):
        tensors = [
            {'class_name': '__keras_tensor__', 'config': {'keras_history': [each, 0, 0]}}
            for each in inputs
        ]
        node = {'args': tensors if len(tensors) == 1 else [tensors], 'kwargs': {}}
        self.entries.append(
            {
                'module': 'keras.layers',
                'class_name': kind,
                'name': name,
                'config': {'name': name, **config},
                'inbound_nodes': [node] if inputs else [],
            }
        )
        return name

    def conv(self, role, source):
        self.roles.append(role)
        return self.add(
            'Conv2D',
            self.names[role],
            source,
            filters=1,
            kernel_size=[3, 3],
            strides=[1, 1],
            padding='same',
            data_format='channels_last',
            dilation_rate=[1, 1],
            groups=1,
            activation='relu' if role.endswith(CONVS) else 'linear',
            use_bias=True,
        )

    def block(self, names, level, sources):
        for conv in CONVS:
            sources = [
                self.conv(f'{name}.{level}.{conv}', source)
                for name, source in zip(names, sources, strict=True)
            ]
        return sources

    def outer(self, ends, name):
        ends = [self.add('GetItem', f'outer_{end}', end) for end in ends]
        for conv in CONVS:
            pairs = zip(PARTS, ends, strict=True)
            ends = [self.conv(f'{part}.{name}.{conv}', end) for part, end in pairs]
        ends = [self.add('UpSampling2D', f'up_{end}', end) for end in ends]
        return [self.conv(f'{p}.{name}.out', e) for p, e in zip(PARTS, ends, strict=True)]

    @property
    def description(self):
        return {
            'module': 'keras.src.models.functional',
            'class_name': 'Functional',
            'config': {'name': 'functional', 'layers': self.entries},
        }

    def hdf5(self, weights):
        """Groups are numbered in the order of the layers, whatever the layers are called."""
        stream = io.BytesIO()
        with h5py.File(stream, 'w') as file:
            for number, role in enumerate(self.roles):
                name = f'conv2d_{number}' if number else 'conv2d'
                for index, values in enumerate(weights[role]):
                    file[f'layers/{name}/vars/{index}'] = values
                    file[f'optimizer/vars/{2 * number + index + 1}'] = 0 * values
            for name in ('input_layer', 'max_pooling2d', 'intensity_scaler'):
                file.create_group(f'layers/{name}/vars')
            file['optimizer/vars/0'] = 100
        return stream.getvalue()


def keras_parameters(n_px=64, gridsize=1, scale=1, **changes):
    """The flat dictionary, with what nobody asks for in between."""
    return {
        'N': n_px,
        'offset': 4,
        'gridsize': gridsize,
        'n_filters_scale': scale,
        'amp_activation': 'sigmoid',
        'object.big': True,
        'probe.big': True,
        'pad_object': True,
        'probe.mask': np.bool_(False),
        'gaussian_smoothing_sigma': 0.0,
        'nphotons': PHOTONS,
        'probe_scale': np.float64(PROBE_SCALE),
        'intensity_scale': np.float32(4.25),
        'probe': eager(probe_of(n_px)[..., None]),
        'sim_jitter_scale': np.arange(6.0).reshape(2, 3),
        'train_data_file_path': None,
        '_version': '1.0',
        **changes,
    }


def keras_members(parameters, graph, weights, **changes):
    """Return the members of an archive of the TensorFlow variant."""
    keras = {
        'metadata.json': b'{"keras_version": "3.15.1"}',
        'config.json': json.dumps(graph.description).encode(),
        'model.weights.h5': graph.hdf5(weights),
    }
    manifest = {'models': ['autoencoder', 'diffraction_to_obj'], 'version': '1.0'}
    return {
        'manifest.dill': pickled(manifest),
        'autoencoder/custom_objects.dill': b'never looked at',
        'diffraction_to_obj/params.dill': pickled(parameters),
        'diffraction_to_obj/model.keras': zipped({**keras, **changes}, zipfile.ZIP_STORED),
        'diffraction_to_obj/model.h5': b'',
    }


def small_keras_members(parameters=(), graph=None, weights=None, **changes):
    """Return those of a small one, with some of it changed."""
    return keras_members(
        keras_parameters(**dict(parameters)),
        graph or KerasGraph(64),
        weights or keras_weights(),
        **changes,
    )
