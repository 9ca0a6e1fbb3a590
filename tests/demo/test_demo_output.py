"""What the demonstration of README.md leaves behind, and Ptychodus reading it.

The `ptychodus` environment of tox runs the demonstration and names its folder in a variable;
without it there is nothing to look at, and the tests are skipped, but never in that environment.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from ptychodus_torch_plugin import load_bundle, read_scan
from ptychodus_torch_plugin.bundle.archive import read_bundle

FOLDER_VARIABLE = 'PTYCHODUS_TORCH_PLUGIN_DEMO'

pytestmark = pytest.mark.skipif(
    FOLDER_VARIABLE not in os.environ and os.environ.get('TOX_ENV_NAME') != 'ptychodus',
    reason=f'{FOLDER_VARIABLE} names no folder with the output of a demonstration',
)


@pytest.fixture(scope='module')
def folder():
    return Path(os.environ[FOLDER_VARIABLE])


@pytest.fixture(scope='module')
def metrics(folder):
    return json.loads((folder / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def product(folder):
    from ptychodus.api.io import load_product

    return load_product(folder / 'object.h5')


def test_the_object_is_plainly_the_true_one(metrics):
    whole = metrics['stages'][metrics['stage']]['object']
    assert whole['phase_psnr_dB'] > 24
    assert whole['phase_ssim'] > 0.75


def test_each_stage_is_measured(metrics):
    names = list(metrics['stages'])
    assert names[-1] == metrics['stage']
    assert ['network' in name for name in names] == [False, True]
    for figures in metrics['stages'].values():
        assert 0 < figures['r_fitted'] < 1
        assert 0 < figures['r_held_out'] < 1
        assert figures['object']['phase_psnr_dB'] > 0
    assert metrics['held_out_patterns'] > 0
    assert metrics['held_out_seen_in_training'] == 0
    assert metrics['backend'] == 'pytorch'


def test_the_product_alone_leads_to_the_same_figures(folder, metrics):
    command = [sys.executable, '-m', 'ptychodus_torch_plugin', 'evaluate', folder / 'object.h5']
    run = subprocess.run(
        [*command, '--truth', folder / 'scan.h5', '--json'],
        capture_output=True,
        text=True,
        check=True,
    )
    found, told = json.loads(run.stdout), metrics['stages'][metrics['stage']]['object']
    assert found['phase_psnr_dB'] == pytest.approx(told['phase_psnr_dB'], abs=0.3)
    assert found['phase_ssim'] == pytest.approx(told['phase_ssim'], abs=0.01)


def test_ptychodus_loads_the_product(folder, product, metrics):
    scan = read_scan(folder / 'scan.h5')
    layer = product.object_.get_layer(0)
    with np.load(folder / 'object.npz', allow_pickle=False) as arrays:
        np.testing.assert_allclose(layer, arrays['object'], rtol=1e-6)
        origin_px = arrays['origin_px']
    assert product.metadata.name == metrics['scan'] == scan.name
    assert product.metadata.photon_energy_eV == scan.optics.photon_energy_eV
    assert len(product.probe_positions) == metrics['patterns'] == scan.n_patterns
    geometry = product.object_.get_geometry()
    found = [
        geometry.map_probe_positions_to_object_y_px(product.probe_positions),
        geometry.map_probe_positions_to_object_x_px(product.probe_positions),
    ]
    np.testing.assert_allclose(np.transpose(found), scan.positions_px - origin_px, atol=1e-6)


def test_the_probe_in_the_product_has_the_photons(product):
    energy = sum(np.sum(np.abs(mode) ** 2) for mode in product.probes.get_array()[0])
    assert energy == pytest.approx(product.metadata.probe_photon_count, rel=0.02)


@pytest.mark.parametrize(('name', 'fewest'), [('object', (400, 800)), ('stages', (600, 800))])
def test_the_pictures_are_of_a_size_to_be_looked_at(folder, name, fewest):
    file = folder / f'{name}.png'
    assert file.read_bytes().startswith(b'\x89PNG')
    assert 10_000 < file.stat().st_size < 5_000_000
    image = matplotlib.image.imread(file)[..., :3]
    assert image.shape[0] >= fewest[0]
    assert image.shape[1] >= fewest[1]
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500  # colours: there is something on it


def test_the_model_reads_without_a_framework_and_with_one(folder):
    bundle = read_bundle(folder / 'model' / 'wts.h5.zip')
    assert bundle.backend == 'pytorch'
    assert bundle.preview_png.startswith(b'\x89PNG')
    assert all(np.isfinite(array).all() for array in bundle.weights.values())
    model = load_bundle(folder / 'model', backend='pytorch')
    assert (model.config.N, model.config.architecture) == (64, 'unrolled')
    for name, array in model.trained.export_weights().items():
        np.testing.assert_array_equal(array, bundle.weights[name])
