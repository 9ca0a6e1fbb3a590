"""What computes without training does so without Lightning, which takes seconds to import."""

import subprocess
import sys

import lightning
import numpy as np
import pytest
import torch

from ptychodus_torch_plugin import train, write_scan
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig
from ptychodus_torch_plugin.errors import BackendUnavailableError
from tests.both.quick import EXECUTION, MODEL, TRAINING

LIST = """
import sys
print('LOADED', *[name for name in ('torch', 'lightning', 'torchmetrics') if name in sys.modules])
"""
START = """
from ptychodus_torch_plugin import load_bundle, read_scan, reconstruct
from ptychodus_torch_plugin.backends.registry import get_backend
"""
QUESTIONS = 'get_backend("pytorch").versions(); get_backend("pytorch").limits(1)'
RECONSTRUCT = 'reconstruct(load_bundle("model.zip", backend="pytorch"), read_scan("scan.h5"))'
PREDICT = """
import numpy as np
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ModelConfig
calibration = Calibration(np.ones((1, 64, 64), np.complex64), 1.0)
config = ModelConfig(architecture='cnn', n_filters_scale=1)
model = get_backend('pytorch').build(config, calibration)
model.predict(np.ones((1, 1, 64, 64), np.float32), np.zeros((1, 1, 2), np.float32))
"""
COMMAND = """
from ptychodus_torch_plugin.cli.app import run
where = ['--test_data', 'scan.h5', '--model_path', 'model.zip', '--output_dir', 'out']
assert run(['infer', *where, '--backend', 'pytorch', '--accelerator', 'cpu', '--quiet']) == 0
"""
TRAIN = """
from pathlib import Path
from ptychodus_torch_plugin import train
from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig
settings = ModelConfig(N=32, channels=(4, 8), sweeps_before=1), TrainingConfig(epochs=1)
train([read_scan('scan.h5')], *settings, backend='pytorch')
"""


@pytest.fixture(scope='module')
def folder(simulated, tmp_path_factory):
    """A folder with a scan and a model."""
    folder = tmp_path_factory.mktemp('imports')
    scan = simulated(photons=3e3)
    write_scan(folder / 'scan.h5', scan)
    short = TRAINING.model_copy(update={'epochs': 1})
    train([scan], MODEL, short, EXECUTION, backend='pytorch').save(folder / 'model.zip')
    return folder


def loaded_by(code, folder):
    """Run `code` in a fresh interpreter; return which of the packages it loads."""
    ran = subprocess.run(
        [sys.executable, '-c', code + LIST], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    'code',
    [START + QUESTIONS, START + RECONSTRUCT, START + PREDICT, COMMAND],
    ids=['versions and limits', 'reconstruct', 'predict', 'infer'],
)
def test_what_does_not_train_does_not_import_lightning(folder, code):
    assert loaded_by(code, folder) == ['torch']


def test_what_trains_does(folder):
    assert loaded_by(START + TRAIN, folder) == ['torch', 'lightning', 'torchmetrics']


def test_the_versions_are_those_that_the_packages_name():
    expected = {'torch': torch.__version__, 'lightning': lightning.__version__}
    assert get_backend('pytorch').versions() == expected


def test_a_lightning_that_fails_to_import_stops_a_training_alone(simulated, monkeypatch):
    scan = simulated(photons=3e3)
    backend = get_backend('pytorch')
    fitting = 'ptychodus_torch_plugin.backends.torch.fitting'
    monkeypatch.delitem(sys.modules, fitting, raising=False)
    monkeypatch.setitem(sys.modules, 'lightning.pytorch', None)
    model = backend.build(MODEL, Calibration.of([scan], MODEL))
    with pytest.raises(BackendUnavailableError, match=r'lightning\.pytorch.*pip install'):
        backend.fit(model, [scan], TRAINING, EXECUTION)
    execution = ExecutionConfig(accelerator='cpu')
    found = model.reconstruct(scan, InferenceConfig(), execution)
    assert np.isfinite(found.object_).all()
