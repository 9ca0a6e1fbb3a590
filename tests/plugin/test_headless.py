"""Ptychodus' batch mode, its workflow API, and our own command: one scan, one seed, one object."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ptychodus.api.io import load_product
from ptychodus.api.product import Product
from ptychodus.model import ModelCore

from ptychodus_torch_plugin.bundle.archive import read_bundle
from ptychodus_torch_plugin.integration.bridge import install

from .scene import FIRST_INDEX

# What Ptychodus and its libraries warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings('ignore')

SETTINGS = """
[Processing]
Algorithm = pinn_pytorch{kind}
[PINNModel]
NumSweepsBefore = 4
NumSweepsAfter = 1
[PINNTraining]
NumEpochs = 2
NumThinnings = 1
[PINNExecution]
Accelerator = cpu
"""


@pytest.fixture(scope='module')
def work(folder, tmp_path_factory):
    """A copy of the scan's folder, with settings; the batch mode has trained a model in it."""
    found = tmp_path_factory.mktemp('batch')
    shutil.copytree(folder, found / 'in')
    (found / 'home').mkdir()
    (found / 'in' / 'settings.ini').write_text(SETTINGS.format(kind=''))
    ptychodus(found, '-b', 'train', '-i', found / 'in', '-o', found / 'trained')
    shutil.copy(found / 'trained' / 'model.zip', found / 'in')
    return found


def command(work, *arguments, code=0):
    """Run our command; return what it says, on whichever channel."""
    environment = os.environ | {'HOME': str(work / 'home')}
    line = [sys.executable, '-m', 'ptychodus_torch_plugin', *map(str, arguments)]
    ran = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def ptychodus(work, *arguments, code=0):
    return command(work, 'gui', *arguments, code=code)


def object_of(product: Product):
    return product.object_.get_array()[0]


def assert_same_object(one: Product, other: Product):
    assert one.object_.get_geometry() == other.object_.get_geometry()
    # By these Ptychodus finds the pattern of each position.
    numbers = [[position.index for position in each.probe_positions] for each in (one, other)]
    assert numbers[0] == numbers[1]
    assert numbers[0][0] == FIRST_INDEX
    error = np.linalg.norm(object_of(one) - object_of(other)) / np.linalg.norm(object_of(one))
    assert error < 1e-4
    probes = one.probes.get_array(), other.probes.get_array()
    np.testing.assert_allclose(*probes, atol=1e-3 * np.abs(probes[0]).max())


@pytest.fixture(scope='module')
def from_batch(work):
    said = ptychodus(work, '-b', 'reconstruct', '-i', work / 'in', '-o', work / 'out')
    assert '4 sweeps + network + 1 sweep: R 0.' in said
    return load_product(work / 'out' / 'product.000100.h5')


def test_batch_training_leaves_a_model(work):
    assert len(read_bundle(work / 'trained' / 'model.zip').history) == 2


def test_our_own_command_gives_the_same_object(work, from_batch):
    command(
        work,
        *('infer', '--backend', 'pytorch', '--accelerator', 'cpu'),
        *('--model_path', work / 'in' / 'model.zip'),
        *('--test_data', work / 'in' / 'product.h5'),
        *('--diffraction', work / 'in' / 'diffraction.h5'),
        *('--output_dir', work / 'ours'),
    )
    assert_same_object(from_batch, load_product(work / 'ours' / 'object.h5'))


def test_the_workflow_api_gives_the_same_object(work, from_batch, monkeypatch):
    monkeypatch.setenv('HOME', str(work / 'home'))
    install()
    with ModelCore(work / 'in' / 'settings.ini') as model:
        api = model.workflow_api
        diffraction = api.load_assembled_diffraction_data(work / 'in' / 'diffraction.h5')
        product = api.load_product(work / 'in' / 'product.h5', diffraction=diffraction)
        model.processing_core.processing_api.load_model_from_file(work / 'in' / 'model.zip')
        found = product.reconstruct_local(block=True)
        found.save_product(work / 'api.h5', file_type='HDF5')
    assert_same_object(from_batch, load_product(work / 'api.h5'))


def test_the_pretrained_network_gives_the_same_object(work):
    shutil.copytree(work / 'in', work / 'pretrained')
    (work / 'pretrained' / 'model.zip').unlink()
    (work / 'pretrained' / 'settings.ini').write_text(SETTINGS.format(kind='-pretrained'))
    ptychodus(work, '-b', 'reconstruct', '-i', work / 'pretrained', '-o', work / 'by-batch')
    command(
        work,
        *('infer', '--backend', 'pytorch', '--accelerator', 'cpu'),
        *('--model_path', 'pretrained', '--sweeps', 4, '--refine', 1),
        *('--test_data', work / 'in' / 'product.h5'),
        *('--diffraction', work / 'in' / 'diffraction.h5'),
        *('--output_dir', work / 'by-command'),
    )
    by_batch = load_product(work / 'by-batch' / 'product.000100.h5')
    assert_same_object(by_batch, load_product(work / 'by-command' / 'object.h5'))


@pytest.mark.slow
def test_a_fit_without_a_window(work):
    shutil.copytree(work / 'in', work / 'fit')
    (work / 'fit' / 'model.zip').unlink()
    (work / 'fit' / 'settings.ini').write_text(SETTINGS.format(kind='-fit'))
    ptychodus(work, '-b', 'reconstruct', '-i', work / 'fit', '-o', work / 'fitted')
    product = load_product(work / 'fitted' / 'product.000100.h5')
    assert [loss.epoch for loss in product.losses] == [1, 2]


def test_a_failure_is_a_failure(work):
    """No model: the batch mode ends in an error, and says the sentence."""
    shutil.copytree(work / 'in', work / 'without')
    (work / 'without' / 'model.zip').unlink()
    folders = ('-i', work / 'without', '-o', work / 'nowhere')
    said = ptychodus(work, '-b', 'reconstruct', *folders, code=1)
    assert 'pytorch has no model; expected one' in said
