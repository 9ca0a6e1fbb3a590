"""A model trained in one backend is the same model in the other one, there and back."""

import json
import zipfile
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.config.model import CNN_SIZES_PX
from ptychodus_torch_plugin.grouping import draw_groups
from ptychodus_torch_plugin.scan import ScanData
from tests.parity.comparison import TOLERANCES, assert_close
from tests.parity.scenes import simulated_scan
from tests.parity.trainings import BOTH_WAYS, first_model

CPU = ExecutionConfig(accelerator='cpu')
CNN = {'architecture': 'cnn', 'n_filters_scale': 1}
GROUPS = {'epochs': 2, 'batch_size': 4, 'n_groups': 16}
CASES = {
    'sweeps alone': ({'architecture': 'none', 'sweeps_before': 6}, {}),
    'unrolled': (
        {'sweeps_before': 6, 'channels': (4, 8)},
        {'objective': 'thinned', 'epochs': 2, 'thinnings': 1, 'patterns_per_step': 8},
    ),
    'groups of 1': (CNN, GROUPS),
    'groups of 4, probe and scale trained': (
        CNN | {'gridsize': 2, 'sweeps_after': 2},
        GROUPS | {'probe_trainable': True, 'intensity_scale_trainable': True},
    ),
    'groups of 9 with one patch': (
        CNN | {'gridsize': 3, 'object_big': False, 'pad_object': False, 'amp_activation': 'swish'},
        GROUPS,
    ),
    '128 px': (CNN | {'N': 128, 'gridsize': 2}, {'epochs': 1, 'batch_size': 4, 'n_groups': 6}),
}
SAID_BY_SIZES = {'groups of 1', '128 px'}
"""Cases that `test_every_size_goes_over` tries with fresh weights."""
SIZES = [*product((1, 2, 3), (64, 128)), (1, 256)]
"""Of 'cnn': gridsize and N."""


def scan_of(config: ModelConfig) -> ScanData:
    step_px, n_positions = {64: (7.0, 36), 128: (16.0, 9)}[config.N]
    # An unrolled network learns noise, which needs few photons.
    photons = 300 if config.architecture == 'unrolled' else 1e4
    return simulated_scan(
        N=config.N, n_positions=n_positions, step_px=step_px, photons=photons, probe_modes=3
    )


def execution_of(config: ModelConfig) -> ExecutionConfig:
    rate = 1e-2 if config.architecture == 'unrolled' else 1e-3
    return ExecutionConfig(accelerator='cpu', learning_rate=rate)


@dataclass(frozen=True)
class Trained:
    """A model in the backend that trained it, its bundle, and the other backend's name."""

    model: api.Model
    scan: ScanData
    bundle: Path
    other: str

    def there(self) -> api.Model:
        return api.load_bundle(self.bundle, backend=self.other)


@pytest.fixture(scope='module', params=BOTH_WAYS, ids=' to '.join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(case, id=name, marks=[pytest.mark.slow] * (name in SAID_BY_SIZES))
        for name, case in CASES.items()
    ],
)
def trained(request: pytest.FixtureRequest, way: tuple[str, str], tmp_path_factory: Any) -> Trained:
    model, training = request.param
    config = ModelConfig(**model)
    scan, execution = scan_of(config), execution_of(config)
    found = api.train([scan], config, TrainingConfig(**training), execution, backend=way[0])
    return Trained(found, scan, found.save(tmp_path_factory.mktemp('bundle')), way[1])


def test_every_architecture_and_size_goes_over():
    architectures = get_args(ModelConfig.model_fields['architecture'].annotation)
    assert {ModelConfig(**model).architecture for model, _ in CASES.values()} == {*architectures}
    assert {n_px for _, n_px in SIZES} == {*CNN_SIZES_PX}


@pytest.mark.parametrize(
    ('gridsize', 'n_px'),
    [
        pytest.param(*size, marks=[pytest.mark.slow] * (size in {(1, 128), (2, 128), (3, 64)}))
        for size in SIZES
    ],
)
def test_every_size_goes_over(way, gridsize, n_px, tmp_path):
    here, there = way
    config = ModelConfig(**CNN, gridsize=gridsize, N=n_px)
    scan = simulated_scan(N=n_px, n_positions=10, step_px=n_px / 8)
    model = first_model([scan], config, backend=here)
    bundle = model.save(tmp_path / 'here')
    other = api.load_bundle(bundle, backend=there)
    patterns = scan.patterns[: gridsize**2][None]
    offsets = (scan.positions_px[: gridsize**2] - scan.positions_px[0])[None].astype(np.float32)
    one, same = (each.trained.predict(patterns, offsets) for each in (model, other))
    assert_close(one.patches, same.patches, TOLERANCES['prediction'], dtype=np.complex64)
    assert_close(one.merged, same.merged, TOLERANCES['prediction'], dtype=np.complex64)
    back = api.load_bundle(other.save(tmp_path / 'there'), backend=here)
    assert back.save(tmp_path / 'back').read_bytes() == bundle.read_bytes()


def test_it_predicts_the_same(trained):
    """Patches of groups in both; or the counts that one and the same reconstruction predicts."""
    models, scan = (trained.model, trained.there()), trained.scan
    if trained.model.config.architecture != 'cnn':
        found = api.reconstruct(trained.model, scan, execution=CPU)
        counts = [model.trained.predict_patterns(scan, found) for model in models]
        assert_close(*counts, TOLERANCES['intensity'], dtype=np.float32)
        return
    groups = draw_groups(scan.positions_px, trained.model.config.gridsize, seed=3)
    patterns = scan.patterns[groups.indices[:6]]
    one, other = (model.trained.predict(patterns, groups.offsets_px[:6]) for model in models)
    assert_close(one.patches, other.patches, TOLERANCES['prediction'], dtype=np.complex64)
    assert_close(one.merged, other.merged, TOLERANCES['prediction'], dtype=np.complex64)


def test_it_reconstructs_the_same(trained):
    """Object, probe and R, without any alignment, with and without held-out patterns."""
    one, other = (
        api.reconstruct(model, trained.scan, InferenceConfig(seed=2), CPU)
        for model in (trained.model, trained.there())
    )
    assert (one.stage, one.frame, *one.stages) == (other.stage, other.frame, *other.stages)
    for first, second in ((one.object_, other.object_), (one.probe, other.probe)):
        assert difference(first, second) < TOLERANCES['reconstruction']
    np.testing.assert_array_equal(one.held_out, other.held_out)
    for name in ('r_fitted', 'r_held_out'):
        pairs = [list(getattr(each, name).values()) for each in (one, other)]
        np.testing.assert_allclose(*pairs, rtol=TOLERANCES['reconstruction'])
    assert difference(one.object_, one.object_[::-1, ::-1]) > 10 * TOLERANCES['reconstruction']


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_it_comes_back_as_it_was(trained, tmp_path):
    """Bit-equal weights, and bit-equal bundles but for the name and versions of the backend."""
    there = trained.there()
    copy = there.save(tmp_path / 'there')
    back = api.load_bundle(copy, backend=trained.model.backend.name)
    weights, others = (model.trained.export_weights() for model in (trained.model, back))
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        assert others[name].dtype == array.dtype
        np.testing.assert_array_equal(others[name], array, err_msg=name)
    assert back.save(tmp_path / 'back').read_bytes() == trained.bundle.read_bytes()

    ours, theirs = contents(trained.bundle), contents(copy)
    assert ours.pop('backend') != theirs.pop('backend')
    producers = ours.pop('producer'), theirs.pop('producer')
    assert producers[0].keys() & producers[1].keys() == {'ptychodus-torch-plugin'}
    assert ours == theirs


def contents(bundle: Path) -> dict[str, Any]:
    """Return the manifest of a bundle, and the bytes of all members but the pickle with names."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop('manifest.json'))
    del members['manifest.dill'], manifest['members']['manifest.dill']
    return {**manifest, 'bytes': members}


@pytest.mark.parametrize(
    'trained',
    [CASES[name] for name in ('unrolled', 'groups of 4, probe and scale trained')],
    ids=['unrolled', 'groups of 4, probe and scale trained'],
    indirect=True,
)
def test_it_is_trained_on_in_the_other_backend(trained):
    """With Adam's moments, which matter: without them the next epoch is another one."""
    here = api.load_bundle(trained.bundle, backend=trained.model.backend.name)
    forgetful = replace(trained.there(), optimizer=None)
    expected, found, without = (
        next_loss(trained, start) for start in (here, trained.there(), forgetful)
    )
    assert abs(found / expected - 1) < TOLERANCES['continued']
    assert abs(without / expected - 1) > 4 * TOLERANCES['continued']


def next_loss(trained: Trained, start: api.Model) -> float:
    settings = trained.model.training.model_copy(update={'epochs': 1})
    execution = execution_of(start.config).model_copy(update={'scheduler': 'constant'})
    model = api.train(
        [trained.scan], None, settings, execution, backend=start.backend.name, start=start
    )
    return model.history[0].loss
