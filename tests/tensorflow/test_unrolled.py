"""The unrolled network by itself: `specs/model-graph.md` in tests."""

import numpy as np
import pytest
import tensorflow as tf

from ptychodus_torch_plugin.backends.tensorflow import unrolled
from ptychodus_torch_plugin.backends.tensorflow.unrolled import UnrolledNetwork, mean_transmission
from tests.parity.comparison import assert_close
from tests.parity.graphs import (
    CANVAS_SHAPES,
    CHANNELS,
    canvas_arrays,
    random_weights,
    written_unrolled,
)


def network_with(channels, *, head=True):
    """Return a network with random weights; without a head it is as it starts."""
    network = UnrolledNetwork(channels)
    own = network.canonical_weights()
    weights = random_weights({name: array.shape for name, array in own.items()}, gain=2)
    kept = {} if head else {n: array for n, array in own.items() if n.startswith('unet.head')}
    network.set_canonical_weights(weights | kept)
    return network


def canvas(shape):
    """Return an object, photons with a dark corner, and the gauge."""
    object_, photons = (tf.constant(array) for array in canvas_arrays(shape))
    return object_, photons, mean_transmission(object_, photons)


@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('shape', CANVAS_SHAPES)
def test_any_canvas_comes_back_in_its_shape(shape, channels):
    result = network_with(channels)(*canvas(shape))
    assert (result.shape, result.dtype) == (shape, tf.complex64)
    assert np.isfinite(result).all()


@pytest.mark.parametrize('channels', CHANNELS)
def test_an_untrained_network_changes_nothing(channels):
    arguments = canvas((33, 47))
    for network in (UnrolledNetwork(channels), network_with(channels, head=False)):
        np.testing.assert_array_equal(network(*arguments), arguments[0])
        np.testing.assert_array_equal(network.tiled(*arguments), arguments[0])


def test_a_network_with_a_head_changes_what_photons_saw_and_nothing_else():
    object_, photons, gauge = canvas((33, 47))
    change = np.abs(network_with((3, 5))(object_, photons, gauge) - object_)
    lit = photons.numpy() > 0
    assert (change[~lit] == 0).all()
    assert (change[lit] > 0).mean() > 0.99
    assert change[photons.numpy() > 1].mean() > 1e-3


@pytest.mark.parametrize('factor', [np.exp(2.3j), -1.0, 40.0, 0.02 * np.exp(-1.1j)])
def test_global_phase_and_scale_pass_through(factor):
    object_, photons, gauge = canvas((33, 47))
    network = network_with((3, 5))
    plain = network(object_, photons, gauge)
    turned = object_ * tf.constant(factor, tf.complex64)
    result = network(turned, photons, mean_transmission(turned, photons))
    assert np.abs(plain - object_).max() > 0.01
    assert_close(result, plain.numpy() * factor, 1e-5, dtype=np.complex64)


def test_corrections_shrink_with_the_noise():
    """One and the same output of the U-Net: four times the photons, half the correction."""
    object_, _, gauge = canvas((16, 16))
    network = UnrolledNetwork((2,))
    bias = {'unet.head.bias': np.array([0.5, -0.25], np.float32)}
    network.set_canonical_weights(network.canonical_weights() | bias)
    for photons in (0.0, 3.0, 1e4):
        change = (network(object_, tf.fill((16, 16), photons), gauge) - object_) / gauge
        expected = photons / (photons + 1) ** 1.5 * (0.5 - 0.25j)
        np.testing.assert_allclose(change, expected, rtol=1e-3, atol=1e-6)


def test_the_graph_is_the_written_one():
    """The whole network of `specs/model-graph.md`, in NumPy and SciPy, on an odd canvas."""
    network = network_with((3, 5, 4))
    object_, photons, gauge = canvas((30, 45))
    expected = written_unrolled(network.canonical_weights(), object_.numpy(), photons.numpy())
    result = network(object_, photons, gauge)
    assert np.abs(expected - object_).max() > 0.1
    assert_close(result, expected, 1e-5, dtype=np.complex64)


def test_the_size_of_the_canvas_is_free():
    """Traced once, without a height and a width."""
    network = network_with((2, 3, 4))
    traced = tf.function(
        network.__call__,
        input_signature=[
            tf.TensorSpec([None, None], tf.complex64),
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([], tf.complex64),
        ],
    )
    for shape in ((33, 47), (5, 3)):
        arguments = canvas(shape)
        change = network(*arguments) - arguments[0]
        assert_close(traced(*arguments) - arguments[0], change, 1e-4, dtype=np.complex64)


@pytest.mark.parametrize(('channels', 'tile'), [((4,), 8), ((3, 5), 16), ((2, 3, 4), 16)])
@pytest.mark.parametrize('shape', [(83, 45), (20, 150), (16, 16), (48, 64)])
def test_tiles_make_up_the_whole(monkeypatch, shape, channels, tile):
    network = network_with(channels)
    arguments = canvas(shape)
    whole = network(*arguments)
    monkeypatch.setattr(unrolled, 'TILE_PX', tile)
    sizes, real = [], network.call

    def call(object_, photons, gauge):
        sizes.append(object_.shape)
        return real(object_, photons, gauge)

    monkeypatch.setattr(network, 'call', call)
    tiled = network.tiled(*arguments)
    change = whole - arguments[0]
    assert_close(tiled - arguments[0], change, 1e-4, dtype=np.complex64)
    if shape != (16, 16):
        assert len(sizes) == -(-shape[0] // tile) * -(-shape[1] // tile)
        margin = network.unet.reach_px + network.unet.multiple
        assert max(max(size) for size in sizes) <= tile + 2 * margin


@pytest.mark.parametrize('channels', [(1,), (1, 1, 1, 1, 1, 1)])
def test_the_usual_tile_fits_every_depth(channels):
    """Tiles start at a multiple of the coarsest pixel, or pooling would see other pixels."""
    assert unrolled.TILE_PX % UnrolledNetwork(channels).unet.multiple == 0


@pytest.mark.parametrize('channels', CHANNELS)
def test_no_pixel_reaches_farther_than_the_margin(channels):
    network = network_with(channels)
    reach = network.unet.reach_px
    side = 2 * reach + 9
    object_, photons, gauge = canvas((side, side))
    photons = tf.fill(photons.shape, 100.0)
    y = x = side // 2
    changed = object_.numpy().copy()
    changed[y, x] += 5
    one, other = (network(o, photons, gauge).numpy() for o in (object_, tf.constant(changed)))
    rows, columns = np.nonzero(one != other)
    distance = max(np.abs(rows - y).max(), np.abs(columns - x).max())
    assert 2 <= distance <= reach


def test_canonical_names_and_shapes():
    weights = UnrolledNetwork((4, 8, 16)).canonical_weights()
    assert {name: array.shape for name, array in weights.items()} == {
        'unet.encoder.0.conv1.weight': (4, 3, 3, 3),
        'unet.encoder.0.conv1.bias': (4,),
        'unet.encoder.0.conv2.weight': (4, 4, 3, 3),
        'unet.encoder.0.conv2.bias': (4,),
        'unet.encoder.1.conv1.weight': (8, 4, 3, 3),
        'unet.encoder.1.conv1.bias': (8,),
        'unet.encoder.1.conv2.weight': (8, 8, 3, 3),
        'unet.encoder.1.conv2.bias': (8,),
        'unet.encoder.2.conv1.weight': (16, 8, 3, 3),
        'unet.encoder.2.conv1.bias': (16,),
        'unet.encoder.2.conv2.weight': (16, 16, 3, 3),
        'unet.encoder.2.conv2.bias': (16,),
        'unet.decoder.0.conv1.weight': (8, 24, 3, 3),
        'unet.decoder.0.conv1.bias': (8,),
        'unet.decoder.0.conv2.weight': (8, 8, 3, 3),
        'unet.decoder.0.conv2.bias': (8,),
        'unet.decoder.1.conv1.weight': (4, 12, 3, 3),
        'unet.decoder.1.conv1.bias': (4,),
        'unet.decoder.1.conv2.weight': (4, 4, 3, 3),
        'unet.decoder.1.conv2.bias': (4,),
        'unet.head.weight': (2, 4, 1, 1),
        'unet.head.bias': (2,),
    }
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


def test_first_weights_depend_on_the_seed_alone():
    first, again, other = (UnrolledNetwork((4, 8), s).canonical_weights() for s in (3, 3, 4))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        if not name.startswith('unet.head'):
            assert (array != other[name]).all()


def test_first_weights_are_uniform_as_those_of_pytorch():
    weights = UnrolledNetwork((16, 32)).canonical_weights()
    for name in ('unet.encoder.1.conv2', 'unet.decoder.0.conv1'):
        kernel, bias = weights[f'{name}.weight'], weights[f'{name}.bias']
        bound = 1 / np.sqrt(kernel[0].size)
        assert 0.95 * bound < np.abs(kernel).max() <= bound
        assert np.mean(kernel**2) == pytest.approx(bound**2 / 3, rel=0.1)
        assert 0.5 * bound < np.abs(bias).max() <= bound


def gradients(network):
    """Return the gradient of every weight by its canonical name."""
    object_, photons, gauge = canvas((33, 47))
    variables = network.canonical_variables()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.abs(network(object_, photons, gauge)) ** 2)
    return tape.gradient(total, {name: v.value for name, v in variables.items()})


def test_every_weight_has_a_gradient():
    for name, gradient in gradients(network_with((3, 5))).items():
        assert gradient is not None, name
        assert np.abs(gradient).max() > 0, name


def test_an_untrained_head_can_learn():
    found = gradients(UnrolledNetwork((3, 5)))
    assert np.abs(found['unet.head.weight']).max() > 0
    assert np.abs(found['unet.head.bias']).max() > 0


def test_the_gauge_has_rms_amplitude_and_mean_phase():
    object_ = tf.constant([[2j, 4j], [1.0, 100.0]], tf.complex64)
    photons = tf.constant([[1.0, 3.0], [0.0, 0.0]])
    gauge = complex(mean_transmission(object_, photons))
    assert gauge == pytest.approx(1j * np.sqrt((1 * 4 + 3 * 16) / 4))
    assert complex(mean_transmission(object_ * 1j, photons)) == pytest.approx(gauge * 1j)
    assert complex(mean_transmission(object_, 7 * photons)) == pytest.approx(gauge)
