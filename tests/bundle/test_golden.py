"""Every bundle that was ever committed is read, without any backend."""

from pathlib import Path

import pytest

from ptychodus_torch_plugin.bundle.archive import read_bundle
from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig

FILES = sorted((Path(__file__).parent / 'golden').glob('*.zip'))


def test_each_backend_has_one():
    assert {'unrolled-pytorch-1.0.wts.h5.zip', 'unrolled-tensorflow-1.0.wts.h5.zip'} <= {
        path.name for path in FILES
    }


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_it_is_read(path):
    assert path.stat().st_size < 200_000
    bundle = read_bundle(path)
    assert bundle.weights
    if path.name.startswith('unrolled'):
        model = ModelConfig.parse(bundle.model_settings)
        assert (model.architecture, model.channels) == ('unrolled', (3, 4))
        assert TrainingConfig.parse(bundle.training_settings).seed == 4
        names = {name.removeprefix('exp_avg/') for name in bundle.optimizer if '_sq' not in name}
        assert {name for name in names if 'step' not in name} == bundle.weights.keys()
