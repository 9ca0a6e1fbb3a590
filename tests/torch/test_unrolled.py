"""The unrolled network by itself: `specs/model-graph.md` in tests."""

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.backends.torch import unrolled
from ptychodus_torch_plugin.backends.torch.unrolled import UnrolledNetwork, mean_transmission
from tests.parity.graphs import CANVAS_SHAPES, CHANNELS, canvas_arrays, written_unrolled

from .parity import assert_close


def network_with(channels, *, head=True, seed=1):
    """Return a network with random weights; without a head it is as it starts."""
    network = UnrolledNetwork(channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if head or not name.startswith('unet.head'):
                spread = 1 / np.sqrt(max(1, parameter[0].numel()))
                parameter.copy_(2 * spread * torch.randn(parameter.shape, generator=generator))
    return network


def canvas(shape):
    """Return an object, photons with a dark corner, and the gauge."""
    object_, photons = (torch.from_numpy(array) for array in canvas_arrays(shape))
    return object_, photons, mean_transmission(object_, photons)


@torch.no_grad()
def corrected(network, object_, photons, gauge):
    return network(object_, photons, gauge)


@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('shape', CANVAS_SHAPES)
def test_any_canvas_comes_back_in_its_shape(shape, channels):
    arguments = canvas(shape)
    result = corrected(network_with(channels), *arguments)
    assert (result.shape, result.dtype) == (shape, torch.complex64)
    assert torch.isfinite(torch.view_as_real(result)).all()


@pytest.mark.parametrize('channels', CHANNELS)
def test_an_untrained_network_changes_nothing(channels):
    arguments = canvas((33, 47))
    for network in (UnrolledNetwork(channels), network_with(channels, head=False)):
        assert torch.equal(corrected(network, *arguments), arguments[0])
        assert torch.equal(network.tiled(*arguments), arguments[0])


def test_a_network_with_a_head_changes_what_photons_saw_and_nothing_else():
    object_, photons, gauge = canvas((33, 47))
    change = (corrected(network_with((3, 5)), object_, photons, gauge) - object_).abs()
    assert (change[photons == 0] == 0).all()
    assert (change[photons > 0] > 0).float().mean() > 0.99
    assert change[photons > 1].mean() > 1e-3


@pytest.mark.parametrize('factor', [np.exp(2.3j), -1.0, 40.0, 0.02 * np.exp(-1.1j)])
def test_global_phase_and_scale_pass_through(factor):
    object_, photons, gauge = canvas((33, 47))
    network = network_with((3, 5))
    plain = corrected(network, object_, photons, gauge)
    turned = object_ * factor
    result = corrected(network, turned, photons, mean_transmission(turned, photons))
    assert (plain - object_).abs().max() > 0.01
    assert_close(result, plain.numpy() * factor, 1e-5, dtype=np.complex64)


def test_corrections_shrink_with_the_noise():
    """One and the same output of the U-Net: four times the photons, half the correction."""
    object_, _, gauge = canvas((16, 16))
    network = UnrolledNetwork((2,))
    with torch.no_grad():
        network.unet.head.bias.copy_(torch.tensor([0.5, -0.25]))
        for photons in (0.0, 3.0, 1e4):
            light = torch.full((16, 16), photons)
            change = (network(object_, light, gauge) - object_) / gauge
            expected = photons / (photons + 1) ** 1.5 * (0.5 - 0.25j)
            np.testing.assert_allclose(change.numpy(), expected, rtol=1e-3, atol=1e-6)


def test_the_graph_is_the_written_one():
    """The whole network of `specs/model-graph.md`, in NumPy and SciPy, on an odd canvas."""
    network = network_with((3, 5, 4))
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    object_, photons, gauge = canvas((30, 45))
    expected = written_unrolled(weights, object_.numpy(), photons.numpy())
    result = corrected(network, object_, photons, gauge)
    assert np.abs(expected - object_.numpy()).max() > 0.1
    assert_close(result, expected, 1e-5, dtype=np.complex64)


@pytest.mark.parametrize(('channels', 'tile'), [((4,), 8), ((3, 5), 16), ((2, 3, 4), 16)])
@pytest.mark.parametrize('shape', [(83, 45), (20, 150), (16, 16), (48, 64)])
def test_tiles_make_up_the_whole(monkeypatch, shape, channels, tile):
    network = network_with(channels)
    arguments = canvas(shape)
    whole = corrected(network, *arguments)
    monkeypatch.setattr(unrolled, 'TILE_PX', tile)
    sizes = []
    network.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape))
    tiled = network.tiled(*arguments)
    change = (whole - arguments[0]).numpy()
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
    photons = torch.full_like(photons, 100.0)
    y = x = side // 2
    changed = object_.clone()
    changed[y, x] += 5
    one, other = (corrected(network, o, photons, gauge) for o in (object_, changed))
    rows, columns = torch.nonzero(one != other, as_tuple=True)
    distance = max((rows - y).abs().max(), (columns - x).abs().max())
    assert 2 <= distance <= reach


def test_canonical_names_and_shapes():
    weights = UnrolledNetwork((4, 8, 16)).state_dict()
    assert {name: tuple(array.shape) for name, array in weights.items()} == {
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
    assert {array.dtype for array in weights.values()} == {torch.float32}


def test_every_weight_has_a_gradient():
    object_, photons, gauge = canvas((33, 47))
    network = network_with((3, 5))
    network(object_, photons, gauge).abs().square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_an_untrained_head_can_learn():
    object_, photons, gauge = canvas((33, 47))
    network = UnrolledNetwork((3, 5))
    network(object_, photons, gauge).abs().square().sum().backward()
    assert network.unet.head.weight.grad.abs().max() > 0
    assert network.unet.head.bias.grad.abs().max() > 0


def test_the_gauge_has_rms_amplitude_and_mean_phase():
    object_ = torch.tensor([[2j, 4j], [1.0, 100.0]], dtype=torch.complex64)
    photons = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    gauge = mean_transmission(object_, photons)
    assert complex(gauge) == pytest.approx(1j * np.sqrt((1 * 4 + 3 * 16) / 4))
    assert complex(mean_transmission(object_ * 1j, photons)) == pytest.approx(complex(gauge) * 1j)
    assert complex(mean_transmission(object_, 7 * photons)) == pytest.approx(complex(gauge))
