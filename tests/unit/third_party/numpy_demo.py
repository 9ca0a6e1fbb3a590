"""A backend of another package: physics sweeps in NumPy, slow and plain, and nothing else."""

import numpy as np

from ptychodus_torch_plugin import physics
from ptychodus_torch_plugin.backends import stages
from ptychodus_torch_plugin.backends.protocol import TrainingResult
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.sweeps import SweepState, sweep_oracle


class NumpyBackend:
    name = 'numpy-demo'

    def versions(self):
        return {'numpy': np.__version__}

    def build(self, config, calibration, *, seed=0):
        if config.architecture != 'none':
            raise ConfigError(f"{self.name} has no network; expected architecture 'none'.")
        return SweepModel(config, calibration)

    def fit(self, model, scans, training, execution, **options):
        return TrainingResult(model, history=(), best_epoch=None)


class SweepModel:
    def __init__(self, config, calibration):
        self.config, self.calibration = config, calibration

    def export_weights(self):
        return {}

    def import_weights(self, weights):
        assert not weights

    def reconstruct(self, scan, inference, execution, **callbacks):
        engine = NumpyEngine(self.config.sweeps, scan)
        arguments = self.config, self.calibration, scan, inference, execution
        return stages.reconstruct(engine, *arguments, **callbacks)


class NumpyEngine:
    """See `protocol.Engine`."""

    def __init__(self, sweeps, scan):
        self.sweeps, self.scan = sweeps, scan
        self.where = scan.frame.corners(scan.positions_px, scan.n_px)

    def start(self, probe):
        return SweepState(np.ones(self.scan.frame.shape, complex), probe.astype(complex))

    def swept(self, state, pool, sweeps, seed, on_sweep):
        result = SweepState(state.object_.copy(), state.probe.copy())
        sweep_oracle(self.scan, result, self.sweeps, sweeps, pool=pool, seed=seed)
        for _ in sweeps:
            on_sweep()
        return result

    def photons(self, state, pool):
        where = (each[pool] for each in self.where)
        return physics.illumination(state.probe, *where, self.scan.frame.shape).astype(np.float32)

    def r_factor(self, state, chosen):
        where = (each[chosen] for each in self.where)
        predicted = physics.predict_counts(state.object_, state.probe, *where)
        both = predicted, self.scan.patterns[chosen]
        predicted, measured = (np.sqrt(each[:, self.scan.valid_pixels]) for each in both)
        return float(np.abs(predicted - measured).sum() / measured.sum())

    def export(self, state):
        return state.object_.astype(np.complex64), state.probe.astype(np.complex64)

    def exposures(self, state):
        return None
