"""A backend that shares nothing with the built-in ones but the NumPy oracle."""

from importlib import util
from pathlib import Path

import numpy as np

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.backends import registry
from ptychodus_torch_plugin.config import ModelConfig
from tests.parity.comparison import TOLERANCES
from tests.parity.scenes import simulated_scan
from tests.parity.trainings import BACKENDS

SOURCE = Path(__file__).parents[1] / 'unit' / 'third_party' / 'numpy_demo.py'


def test_three_backends_make_the_same_object_of_a_bundle(tmp_path, monkeypatch):
    """Stage by stage and without any alignment, whoever wrote the bundle."""
    spec = util.spec_from_file_location('numpy_demo', SOURCE)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    real = registry.get_backend

    def get_backend(name):
        return module.NumpyBackend() if name == 'numpy-demo' else real(name)

    monkeypatch.setattr(registry, 'get_backend', get_backend)
    scan = simulated_scan(probe_modes=2)
    config = ModelConfig(N=32, architecture='none', sweeps_before=6)
    bundle = api.train([scan], config, backend='numpy-demo').save(tmp_path)
    expected, *results = (
        api.reconstruct(api.load_bundle(bundle, backend=name), scan)
        for name in ('numpy-demo', *BACKENDS)
    )
    for result in results:
        assert result.stages.keys() == expected.stages.keys()
        difference = np.linalg.norm(result.object_ - expected.object_)
        assert difference < TOLERANCES['reconstruction'] * np.linalg.norm(expected.object_)
        for found, wanted in (
            (result.r_fitted, expected.r_fitted),
            (result.r_held_out, expected.r_held_out),
        ):
            pairs = [list(each.values()) for each in (found, wanted)]
            np.testing.assert_allclose(*pairs, rtol=TOLERANCES['reconstruction'])
