"""How close PyTorch must come to the NumPy oracle, and scenes on which both are compared."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ptychodus_torch_plugin import physics as oracle
from ptychodus_torch_plugin.backends.torch import physics
from ptychodus_torch_plugin.backends.torch.data import ScanTensors
from ptychodus_torch_plugin.backends.torch.sweeps import SweepState
from ptychodus_torch_plugin.scan import ScanData

TOLERANCES = {
    # All relative to the largest value of the oracle's result, which is in double precision.
    # Shifts, propagation, scatter: some roundings of single precision, 6e-8 each.
    'transform': 2e-6,
    # Forward intensity: squares of the above.
    'intensity': 1e-5,
    # Loss: a sum of terms that cancel, over many pixels.
    'loss': 1e-5,
    # Gradient of the loss with respect to the object: 1 - k / I, where I may be near zero.
    'gradient': 1e-3,
    # Analytic gradient of the oracle against its own finite differences: curvature over a step.
    'finite differences': 2e-5,
    # Ten sweeps in double precision: the same algorithm.  What is left comes from the final ramp,
    # which is applied in single precision.
    'ten sweeps, double precision': 1e-6,
    # Ten sweeps in single precision: roundings of a batch enter the next one.
    'ten sweeps': 1e-5,
}

CPU = torch.device('cpu')


def assert_close(actual: Any, expected: Any, tolerance: float, *, dtype: Any) -> None:
    """Compare with the oracle: shape, dtype, and values relative to the largest one."""
    if isinstance(actual, torch.Tensor):
        actual = actual.detach().numpy()
    expected = np.asarray(expected)
    assert actual.dtype == dtype, f'dtype {actual.dtype}; expected {np.dtype(dtype)}'
    assert actual.shape == expected.shape, f'shape {actual.shape}; expected {expected.shape}'
    scale = np.abs(expected).max()
    assert scale > 0, 'the expected values are all zero'
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f'off by {error:.2e} of the largest value; allowed {tolerance}'


def board(n_px):
    return physics.checkerboard(n_px, CPU)


def waves_of(shape, seed=0, *, flat=False):
    """Return complex noise that is strongest in one corner, or not."""
    noise = np.random.default_rng(seed).normal(size=(*shape, 2)).view(np.complex128)[..., 0]
    if flat:
        return noise
    y, x = np.indices(shape[-2:])
    return (noise * np.exp(-(y + 2 * x) / shape[-1])).astype(np.complex64)


@dataclass(frozen=True)
class Scene:
    """A scan, and an object on its canvas and a probe that do not fit it; also as tensors."""

    scan: ScanData
    object_: np.ndarray
    probe: np.ndarray

    @property
    def n_px(self):
        return self.scan.n_px

    @property
    def where(self):
        return self.scan.frame.corners(self.scan.positions_px, self.n_px)

    @property
    def tensors(self):
        return ScanTensors(self.scan, CPU)

    @property
    def state(self):
        state = SweepState.start(self.tensors, self.probe)
        state.object_ = torch.from_numpy(self.object_)
        return state

    def predicted(self):
        """Return what the oracle predicts, in double precision."""
        wide = self.object_.astype(complex), self.probe.astype(complex)
        return oracle.predict_counts(*wide, *self.where)

    def tensor_prediction(self, object_=None, chosen=None):
        tensors, state = self.tensors, self.state
        chosen = torch.arange(len(tensors)) if chosen is None else chosen
        object_ = state.object_ if object_ is None else object_
        patches = physics.gather_patches(object_, tensors.batch_index(chosen), self.n_px)
        return physics.predict_counts(patches, tensors.batch_probes(state.probe, chosen))


def scene_on(scan: ScanData, *, whole: bool) -> Scene:
    height, width = scan.frame.shape
    y, x = np.indices((height, width))
    disc = (y - 20) ** 2 + (x - 31) ** 2 < 90
    object_ = (0.8 + 0.15 * np.sin(y / 5) * np.cos(x / 7 + 0.5)) * np.exp(
        1j * np.sin(x / 6) + 0.7j * disc
    )
    # Fine texture scatters light into every pixel: a dark one has no phase to agree on.
    object_ += 0.1 * waves_of(object_.shape, 7, flat=True)
    assert np.any(scan.frame.corners(scan.positions_px, scan.n_px)[1]) != whole
    # Off the centre of the patch by whole pixels, unequal along y and x.
    probe = np.roll(scan.probe, (2, -3), axis=(-2, -1))
    return Scene(scan, object_.astype(np.complex64), probe)
