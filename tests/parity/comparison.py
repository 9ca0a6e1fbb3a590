"""How close a backend must come to the NumPy oracle, and arrays without symmetry to compare on."""

from typing import Any

import numpy as np

from tests.parity.tolerances import TOLERANCES

__all__ = [
    'SPOILED',
    'TOLERANCES',
    'assert_close',
    'single',
    'unlike',
    'waves_of',
]


def assert_close(actual: Any, expected: Any, tolerance: float, *, dtype: Any) -> None:
    """Compare with the oracle: shape, dtype, and values relative to the largest one."""
    actual = np.asarray(actual.detach() if hasattr(actual, 'detach') else actual)
    expected = np.asarray(expected)
    assert actual.dtype == dtype, f'dtype {actual.dtype}; expected {np.dtype(dtype)}'
    assert actual.shape == expected.shape, f'shape {actual.shape}; expected {expected.shape}'
    scale = np.abs(expected).max()
    assert scale > 0, 'the expected values are all zero'
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f'off by {error:.2e} of the largest value; allowed {tolerance}'


def waves_of(shape, seed=0, *, flat=False):
    """Return complex noise that is strongest in one corner, or not."""
    noise = np.random.default_rng(seed).normal(size=(*shape, 2)).view(np.complex128)[..., 0]
    if flat:
        return noise
    y, x = np.indices(shape[-2:])
    return (noise * np.exp(-(y + 2 * x) / shape[-1])).astype(np.complex64)


def unlike(n, n_px, seed=0):
    """Return counts, predictions, patches, truth, weight and valid pixels, all without symmetry."""
    rng = np.random.default_rng([seed, n_px])
    y, x = np.indices((n_px, n_px))
    counts = rng.poisson(3 + 0.2 * y, size=(n, n_px, n_px))
    predicted = counts * rng.uniform(0.5, 1.6, size=counts.shape) + 0.1
    valid = rng.random((n_px, n_px)) > 0.002 * (y + 3 * x)
    patches, truth = waves_of((2, n, n_px, n_px), seed).astype(complex)
    weight = np.exp(-((y - 0.3 * n_px) ** 2 + 2 * (x - 0.6 * n_px) ** 2) / n_px**2)
    return counts, predicted, patches, truth, weight, valid


def single(*arrays):
    """Return arrays in single precision."""
    kinds = {'c': np.complex64, 'b': np.float32, 'f': np.float32, 'i': np.float32}
    return [array.astype(kinds[array.dtype.kind]) for array in arrays]


SPOILED = {
    'column': lambda x: np.roll(x, 1, axis=-1),
    'row': lambda x: np.roll(x, 1, axis=-2),
    'axes': lambda x: x.swapaxes(-2, -1),
    'modes': lambda x: x[::-1],
    'conjugate': lambda x: x.conj(),
    'dtype': lambda x: x.astype(np.complex128),
    'shape': lambda x: x[:, :-1],
    'scale': lambda x: x * (1 + 2e-5),
    'nan': lambda x: x * np.nan,
}
"""What a comparison must notice."""
