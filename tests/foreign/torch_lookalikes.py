"""Archives as PtychoPINN's PyTorch variant writes them; see `lookalikes`."""

import zipfile
from collections import OrderedDict
from itertools import pairwise

import numpy as np

from .lookalikes import (
    DECODER,
    ENCODER,
    FLOATS,
    PARTS,
    PHOTONS,
    PROBE_SCALE,
    REBUILD,
    Call,
    Storage,
    drawn,
    pickled,
    zipped,
)


def torch_state(n_px=64, scale=1, channels=1, *, cbam=True, outer=None, seed=2):
    """Return the tensors of a model by the names that they have in the reference."""
    rng = np.random.default_rng(seed)
    outer, state = outer or channels, {}
    encoder = [channels, *(scale * n for n in ENCODER[n_px])]
    decoder = [scale * n for n in DECODER[n_px]]

    def conv(name, inputs, outputs):
        state[f'{name}.weight'] = drawn(rng, outputs, inputs, 3, 3)
        state[f'{name}.bias'] = drawn(rng, outputs)

    def blocks(name, sizes):
        for level, (inputs, outputs) in enumerate(pairwise(sizes)):
            conv(f'{name}.blocks.{level}.conv1', inputs, outputs)
            conv(f'{name}.blocks.{level}.conv2', outputs, outputs)

    blocks('encoder', encoder)
    for level, size in enumerate(encoder[1:] if cbam else ()):
        gate = f'encoder.blocks.{level}.attention'
        for number, (inputs, outputs) in ((1, (size, size // 16)), (3, (size // 16, size))):
            state[f'{gate}.ChannelGate.mlp.{number}.weight'] = drawn(rng, outputs, inputs)
            state[f'{gate}.ChannelGate.mlp.{number}.bias'] = drawn(rng, outputs)
        state[f'{gate}.SpatialGate.compress.weight'] = drawn(rng, 1, 2, 7, 7)
    for part in PARTS.values():
        blocks(f'decoder_{part}', decoder)
        conv(f'decoder_{part}.{part}.conv1', decoder[-1] - outer, channels)
        conv(f'decoder_{part}.{part}.conv_up_block.conv1', outer, 32 * scale)
        conv(f'decoder_{part}.{part}.conv_up_block.conv2', 32 * scale, 32 * scale)
        conv(f'decoder_{part}.{part}.conv2', 32 * scale, channels)
    state = {f'model.autoencoder.{name}': tensor for name, tensor in state.items()}
    ones = {'alpha': 1, 'beta': 0, 'rect_scaler.s1': 1, 'rect_scaler.s2': 1}
    scalars = {f'model.forward_model.{n}': np.full(1, v, np.float32) for n, v in ones.items()}
    return {**scalars, **state}


def torch_file(value, tensors=(), *, kind=FLOATS, folder='archive'):
    """A file of torch.save; `value(rebuilt)` gets the tensors by name as records."""
    members, rebuilt = {}, OrderedDict()
    for key, (name, tensor) in enumerate(dict(tensors).items()):
        strides = tuple(n // tensor.itemsize for n in tensor.strides)
        storage = Storage(str(key), tensor.size, kind)
        arguments = (storage, 0, tensor.shape, strides, False, OrderedDict())
        rebuilt[name] = Call(REBUILD, *arguments)
        members[f'{folder}/data/{key}'] = tensor.tobytes()
    pickle_ = {f'{folder}/data.pkl': pickled(value(rebuilt), protocol=2)}
    order = {f'{folder}/byteorder': b'little', f'{folder}/version': b'3\n'}
    return zipped({**pickle_, **order, **members}, zipfile.ZIP_STORED)


def torch_parameters(n_px=64, gridsize=1, scale=1, **changes):
    return {
        'N': n_px,
        'gridsize': gridsize,
        'n_filters_scale': scale,
        'amp_activation': 'swish',
        'model_type': 'pinn',
        'object.big': True,
        'probe.big': True,
        'pad_object': True,
        'probe.mask': False,
        'nphotons': PHOTONS,
        'intensity_scale.trainable': True,
        'intensity_scale': 4.25,
        '_version': '2.0-pytorch',
        **changes,
    }


def torch_metadata(n_px=64, gridsize=1, scale=1, *, data=(), **changes):
    """The metadata of July 2026."""
    model = {
        'mode': 'Unsupervised',
        'architecture': 'cnn',
        'generator_output_mode': 'real_imag',
        'cnn_output_mode': 'amp_phase',
        'use_shared_decoder': False,
        'C_model': gridsize**2,
        'n_filters_scale': scale,
        'amp_activation': 'silu',
        'batch_norm': False,
        'probe_mask': False,
        'probe_mask_tensor': None,
        'eca_encoder': False,
        'cbam_encoder': True,
        'cbam_bottleneck': False,
        'cbam_decoder': False,
        'eca_decoder': False,
        'spatial_decoder': False,
        'object_big': True,
        'probe_big': True,
        'physics_forward_mode': 'amplitude',
        'amplitude_physics_gain': 1.0,
        'intensity_scale_trainable': False,
        **changes,
    }
    measured = {
        'nphotons': PHOTONS,
        'N': n_px,
        'grid_size': (gridsize, gridsize),
        'probe_scale': PROBE_SCALE,
        'scale_contract_version': 'legacy_v1',
        'measurement_domain': 'normalized_amplitude',
        **dict(data),
    }
    return {
        'schema_version': 'ci-entrypoints-v1',
        'model_config': model,
        'data_config': measured,
        'training_config': {'epochs': 50},
        'inference_config': {'batch_size': 1000},
        'ci_statistics': None,
    }


def torch_members(parameters, state, metadata=None):
    """Return the members of an archive of the PyTorch variant."""
    manifest = {'models': ['diffraction_to_obj', 'autoencoder'], 'version': '2.0-pytorch'}
    sentinel = torch_file(lambda _: {'_sentinel': 'autoencoder'})
    members = {
        'manifest.dill': pickled(manifest),
        'autoencoder/model.pth': sentinel,
        'diffraction_to_obj/params.dill': pickled(parameters),
        'diffraction_to_obj/model.pth': torch_file(lambda tensors: tensors, state),
    }
    if metadata is not None:
        members['torch_scaling_metadata.pt'] = torch_file(lambda _: metadata)
    return members
