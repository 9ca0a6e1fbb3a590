"""Files that Keras wrote: a network laid out as that of PtychoPINN says the same once converted."""

import pickle  # noqa: TID251 - to write what the reader must never load

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.foreign.conversion import convert_archive
from tests.foreign.lookalikes import DECODER, ENCODER, keras_parameters, probe_of, zipped
from tests.parity.comparison import assert_close
from tests.parity.graphs import amplitudes_of, middle_of


class ActivationLayer(layers.Layer):
    def __init__(self, activation_name, scale=1.0, **options):
        super().__init__(**options)
        self.activation_name, self.scale = activation_name, scale

    def call(self, x):
        return self.scale * keras.activations.get(self.activation_name)(x)

    def get_config(self):
        own = {'activation_name': self.activation_name, 'scale': self.scale}
        return super().get_config() | own


class CenterMaskLayer(layers.Layer):
    def call(self, x):
        return x * np.float32(~middle_of(x.shape[1]))[:, :, None]


class CombineComplexLayer(layers.Layer):
    def call(self, inputs):
        amplitude, phase = (tf.cast(each, tf.complex64) for each in inputs)
        return amplitude * tf.exp(1j * phase)


def conv(outputs, activation=None):
    return layers.Conv2D(outputs, (3, 3), padding='same', activation=activation)


def two(x, outputs):
    for _ in range(2):
        x = conv(outputs, 'relu')(x)
    return x


def up(x, outputs):
    return layers.UpSampling2D((2, 2))(two(x, outputs))


def decoder(x, n_px, channels, activation, name, *, padded, big):
    """The output layers are made first, whether or not they are used."""
    center, end = conv(channels), conv(channels)
    for outputs in DECODER[n_px][1:]:
        x = up(x, outputs)
    if not padded:
        return activation(end(up(x, 2048 // n_px)))
    inner = activation(center(x[..., :-4]))
    inner = layers.ZeroPadding2D((n_px // 4, n_px // 4), name=f'{name}_padded')(inner)
    if not big:
        return inner
    outer = keras.activations.silu(end(up(x[..., -4:], 2048 // n_px)))
    return inner + CenterMaskLayer()(outer)


def model_of(n_px, channels, activation, **options):
    source = keras.Input((n_px, n_px, channels), name='input')
    positions = keras.Input((1, 2, channels), name='input_positions')
    x = layers.Identity(name='intensity_scaler')(source)
    for outputs in ENCODER[n_px]:
        x = layers.MaxPooling2D((2, 2), padding='same')(two(x, outputs))
    heads = [
        decoder(x, n_px, channels, ActivationLayer(function, scale, name=head), name, **options)
        for function, scale, head, name in (
            (activation, 1.0, 'amp', 'amp'),
            ('tanh', np.pi, 'phi', 'phase'),
        )
    ]
    return keras.Model([source, positions], CombineComplexLayer(name='obj')(heads))


# Keras 3.15 with NumPy 2.
@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
@pytest.mark.parametrize(
    ('n_px', 'gridsize', 'activation', 'padded', 'big', 'made_before'),
    [
        (64, 2, 'sigmoid', True, True, 0),
        (64, 1, 'swish', True, True, 22),
        (128, 1, 'softplus', True, False, 5),
        (128, 2, 'relu', False, True, 0),
    ],
)
def test_a_model_that_keras_saved(tmp_path, n_px, gridsize, activation, padded, big, made_before):
    keras.backend.clear_session()
    for _ in range(made_before):
        conv(3)
    channels = gridsize**2
    model = model_of(n_px, channels, activation, padded=padded, big=big)
    rng = np.random.default_rng(6)
    for weight in model.weights:
        spread = 1.2 / np.sqrt(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 0.1
        weight.assign(spread * rng.normal(size=weight.shape))
    model.save(tmp_path / 'model.keras')
    parameters = keras_parameters(
        n_px,
        gridsize,
        amp_activation=activation,
        pad_object=padded,
        **{'probe.big': big, 'probe': tf.constant(probe_of(n_px)[..., None])},
    )
    manifest = {'models': ['autoencoder', 'diffraction_to_obj'], 'version': '1.0'}
    members = {
        'manifest.dill': pickle.dumps(manifest),
        'diffraction_to_obj/params.dill': pickle.dumps(parameters),
        'diffraction_to_obj/model.keras': (tmp_path / 'model.keras').read_bytes(),
    }
    (tmp_path / 'wts.h5.zip').write_bytes(zipped(members))
    bundle = convert_archive(tmp_path)
    config = ModelConfig.parse(bundle.model_settings)
    amplitudes = amplitudes_of(config)
    groups = np.moveaxis(amplitudes, 1, -1)
    expected = model([groups, np.zeros((len(groups), 1, 2, channels), np.float32)])
    network = CnnNetwork(config)
    network.set_canonical_weights(bundle.weights)
    assert_close(network(tf.constant(groups)), expected, 1e-5, dtype=np.complex64)
