"""Inputs of the networks, and the written graph of the U-Net in NumPy and SciPy."""

import numpy as np
from scipy import ndimage

from ptychodus_torch_plugin.config import ModelConfig

CANVAS_SHAPES = [(1, 1), (1, 7), (5, 3), (32, 32), (33, 47), (64, 41)]
CHANNELS = [(4,), (3, 5), (2, 3, 4)]


def canvas_arrays(shape, seed=0):
    """Return an object, and photons with a dark corner."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    object_ = (0.8 + 0.1 * rng.normal(size=shape)) * np.exp(0.4j * np.sin(x / 3 + y / 7))
    photons = 900 * np.exp(-(((y - 0.4 * shape[0]) / shape[0]) ** 2) * 3) * rng.random(shape)
    photons[: shape[0] // 3, : shape[1] // 4] = 0
    return object_.astype(np.complex64), photons.astype(np.float32)


def plain_correlation(x, kernel, bias):
    """Return 'same' correlation with zeros beyond the edge, (out, h, w), by SciPy."""
    return np.stack(
        [
            sum(ndimage.correlate(x[i], kernel[o, i], mode='constant') for i in range(len(x)))
            + bias[o]
            for o in range(len(kernel))
        ]
    )


def written_unrolled(weights, object_, photons):
    """Return the corrected object of `specs/model-graph.md` for three levels, in double precision.

    `weights` have canonical names; the canvas (30, 45) is padded to multiples of 4.
    """
    assert object_.shape == (30, 45)
    weights = {name: array.astype(float) for name, array in weights.items()}
    o, d = object_.astype(complex), photons.astype(float)
    g = np.sqrt((d * np.abs(o) ** 2).sum() / d.sum())
    g = g * (d * o).sum() / abs((d * o).sum())

    def block(x, name):
        for conv in ('conv1', 'conv2'):
            kernel = weights[f'unet.{name}.{conv}.weight']
            x = plain_correlation(x, kernel, weights[f'unet.{name}.{conv}.bias'])
            x = np.maximum(x, 0.1 * x)
        return x

    def pooled(x):
        return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean(axis=(2, 4))

    features = np.stack([(o / g).real - 1, (o / g).imag, 1 / np.sqrt(d + 1)])
    features = np.pad(features, ((0, 0), (0, 2), (0, 3)), mode='edge')
    first = block(features, 'encoder.0')
    second = block(pooled(first), 'encoder.1')
    x = block(pooled(second), 'encoder.2')
    for number, skip in ((0, second), (1, first)):
        x = block(np.concatenate([x.repeat(2, 1).repeat(2, 2), skip]), f'decoder.{number}')
    head = weights['unet.head.weight'][:, :, 0, 0]
    c = np.einsum('oi,ihw->ohw', head, x) + weights['unet.head.bias'][:, None, None]
    c = c[:, :30, :45]
    return o + g * d / (d + 1) / np.sqrt(d + 1) * (c[0] + 1j * c[1])


def cnn_config(**settings):
    return ModelConfig(architecture='cnn', **({'n_filters_scale': 1} | settings))


def amplitudes_of(config, batch=2):
    """Return amplitudes (B, C, N, N) of unequal channels, brightest off the centre, rms 0.5."""
    n_px, channels = config.N, config.patterns_per_group
    y, x = np.indices((n_px, n_px)) / n_px
    bright = 0.2 + np.exp(-20 * (y - 0.4) ** 2 - 8 * (x - 0.7) ** 2)
    noise = np.random.default_rng(n_px).random((batch, channels, n_px, n_px))
    amplitudes = noise * bright * (1 + np.arange(channels))[:, None, None]
    amplitudes *= 0.5 / np.sqrt(np.mean(amplitudes**2))
    return amplitudes.astype(np.float32)


def random_weights(shapes, *, seed=31, gain=1.2):
    """Return random float32 weights of canonical names and shapes, also outputs and biases.

    With many seeds some ReLU is so near zero that its gradient hangs on the last bit.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        spread = gain / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        weights[name] = np.array(spread * rng.normal(size=shape), np.float32)
    return weights


CNN_OPTIONS = {
    'every default, a group of 4': {'gridsize': 2},
    'one patch for 4 patterns': {'gridsize': 2, 'object_big': False, 'amp_activation': 'swish'},
    'nothing outside the middle': {'probe_big': False, 'amp_activation': 'softplus'},
    'all in one': {'pad_object': False, 'amp_activation': 'swish'},
    'all in one, without border': {
        'pad_object': False,
        'probe_big': False,
        'amp_activation': 'relu',
        'gridsize': 3,
    },
    '128 px': {'N': 128, 'n_filters_scale': 2},
}

CNN_COUNTS = [
    (64, 2, 1, 2_331_772),
    (64, 2, 2, 2_340_208),
    (64, 1, 1, 585_244),
    (64, 1, 2, 589_360),
    (128, 2, 1, 4_661_212),
    (128, 1, 1, 1_167_052),
]
"""Side, n_filters_scale, gridsize, and how many weights the reference has."""


def middle_of(n_px):
    middle = np.zeros((n_px, n_px), bool)
    middle[n_px // 4 : 3 * n_px // 4, n_px // 4 : 3 * n_px // 4] = True
    return middle
