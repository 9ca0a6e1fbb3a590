"""Kernels between the transforms of a visit; the parity tests of both backends hold them to the
oracle as a whole."""

import numpy as np
import pytest
from numba import njit

from ptychodus_torch_plugin.backends import kernels
from ptychodus_torch_plugin.exposures import displacement_figures

N_PX = 22
"""No multiple of the lines that are done at once."""


def random(*shape):
    rng = np.random.default_rng(sum(shape))
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.fixture(params=[1, 2, 4, 9])
def scene(request):
    """Return an object, corners, weights and probes at so many nodes, and the shifted probes."""
    n_nodes = request.param
    rng = np.random.default_rng(n_nodes)
    object_, corners = random(40, 53), rng.integers(0, 18, (5, 2))
    weights, probes = rng.normal(size=(5, n_nodes)), random(n_nodes, 2, N_PX, N_PX)
    shifted = np.tensordot(weights, probes, axes=1)
    return object_, corners, weights, probes.reshape(n_nodes, -1), shifted


def patches_of(object_, corners):
    return np.stack([object_[y : y + N_PX, x : x + N_PX] for y, x in corners])


@pytest.mark.parametrize('dtype', [np.complex64, np.complex128])
def test_exit_waves(scene, dtype):
    object_, corners, weights, probes, shifted = scene
    real = np.zeros(0, dtype).real.dtype
    exits = np.full(shifted.shape, np.nan, dtype)
    kernels.expose(
        exits, object_.astype(dtype), corners, weights.astype(real), probes.astype(dtype)
    )
    expected = shifted * patches_of(object_, corners)[:, None]
    np.testing.assert_allclose(exits, expected, atol=1e-4 if dtype == np.complex64 else 1e-12)


def test_what_pulls_on_the_object(scene):
    """Patches overlap, and add up."""
    object_, corners, weights, pulls, shifted = scene
    change, pulled = random(*shifted.shape), object_.copy()
    kernels.pull_object(pulled, corners, weights, pulls, change)
    expected = object_.copy()
    for (y, x), step in zip(corners, (shifted * change).sum(1), strict=True):
        expected[y : y + N_PX, x : x + N_PX] += step
    np.testing.assert_allclose(pulled, expected, atol=1e-12)
    assert np.abs(expected - object_).max() > 1


def test_what_pulls_on_the_probe(scene):
    object_, corners, weights, probes, shifted = scene
    change, patches = random(*shifted.shape), patches_of(object_, corners)
    waves, light = np.full_like(probes, np.nan), np.full((N_PX, N_PX), np.nan)
    kernels.pull_probe(waves, light, object_, corners, weights, change)
    expected = np.tensordot(weights.T, change * patches.conj()[:, None], axes=1)
    np.testing.assert_allclose(waves, expected.reshape(waves.shape), atol=1e-12)
    np.testing.assert_allclose(light, (np.abs(patches) ** 2).sum(0), atol=1e-12)


def test_displacements(scene):
    object_, corners, weights, probes, shifted = scene
    change, figures = random(*shifted.shape), np.full((5, 5), np.nan)
    kernels.note_displacements(figures, object_, corners, weights, probes, change)
    expected = displacement_figures(patches_of(object_, corners), shifted, change)
    np.testing.assert_allclose(figures, expected, rtol=1e-10)


def test_nothing_is_noted_where_no_figures_are_wanted():
    waves, flat = random(3, 1, 4), np.ones(4)
    noted, unnoted = waves.copy(), waves.copy()
    counts = np.full((3, 4), 2.0, np.float32)
    figures = np.empty((3, 8))
    for array, wanted in ((noted, figures), (unnoted, np.empty((3, 0)))):
        kernels.impose_counts(array, wanted, counts, flat, flat, flat, np.ones((4, 4)))
    np.testing.assert_array_equal(noted, unnoted)
    assert not np.array_equal(noted, waves)
    # Without the background of one count in each of four pixels.
    np.testing.assert_allclose(figures[:, 1], 4.0)


def test_kernels_work_where_nothing_can_be_kept(monkeypatch, caplog):
    def nowhere(cache=False, **options):
        if cache:
            raise RuntimeError('no locator available')
        return njit(**options)

    monkeypatch.setattr(kernels, 'njit', nowhere)
    fill = kernels._compiled(_fill)
    values = np.zeros(3)
    fill(values)
    assert values.all()
    assert 'no locator available' in caplog.text
    assert 'NUMBA_CACHE_DIR' in caplog.text


def _fill(values):
    values[:] = 1
