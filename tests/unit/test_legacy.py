"""What programs see that read PtychoPINN's dictionaries."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError
from ptychodus_torch_plugin.grouping import draw_groups
from ptychodus_torch_plugin.legacy import KEY_MAPPINGS, grouped_data, update_legacy_dict
from ptychodus_torch_plugin.scan import ScanData

N = 16


@dataclass
class Device:
    accelerator: str = 'cpu'


@dataclass
class Network:
    N: int = 128
    object_big: bool = False
    probe_mask: bool | None = None
    shared: str = 'of the network'


@dataclass
class Job:
    model: Network = field(default_factory=Network)
    train_data_file: Path | None = Path('a/train.npz')
    output_dir: Path = Path('out')
    epochs: int = 7
    n_groups: int | None = None
    shared: str = 'of the job'
    execution: Device = field(default_factory=Device)
    machine: ExecutionConfig = field(default_factory=ExecutionConfig)


class Layers(BaseModel):
    channels: tuple[int, ...] = (3, 5)
    extra: dict[str, Path] = {'log': Path('x/y')}
    inner: Network = Network()


# The flat dictionary of settings


def test_nine_settings_have_another_key():
    @dataclass
    class Settings:
        object_big: str = 'object.big'
        probe_big: str = 'probe.big'
        probe_mask: str = 'probe.mask'
        probe_trainable: str = 'probe.trainable'
        intensity_scale_trainable: str = 'intensity_scale.trainable'
        positions_provided: str = 'positions.provided'
        output_dir: str = 'output_prefix'
        train_data_file: str = 'train_data_file_path'
        test_data_file: str = 'test_data_file_path'
        gridsize: str = 'gridsize'

    cfg = {}
    update_legacy_dict(cfg, Settings())
    assert len(cfg) == 10
    assert all(key == value for key, value in cfg.items())
    assert len(KEY_MAPPINGS) == 9


def test_settings_are_merged_flat_and_none_leaves_what_was_there():
    cfg = {'n_groups': 512, 'probe.mask': True, 'object.big': True, 'offset': 4}
    update_legacy_dict(cfg, Job())
    assert cfg == {
        'N': 128,
        'n_groups': 512,
        'probe.mask': True,
        'object.big': False,
        'offset': 4,
        'train_data_file_path': str(Path('a/train.npz')),
        'output_prefix': 'out',
        'nepochs': 7,
        'shared': 'of the job',
    }


def test_values_become_json_types():
    cfg = {}
    update_legacy_dict(cfg, Layers())
    assert cfg == {
        'channels': [3, 5],
        'extra': {'log': str(Path('x/y'))},
        'inner': {'N': 128, 'object_big': False, 'probe_mask': None, 'shared': 'of the network'},
    }


def test_a_whole_run_enters_without_its_execution():
    run = RunConfig(
        model=ModelConfig(architecture='cnn', gridsize=2, probe_big=False, N=128),
        training=TrainingConfig(epochs=3, seed=5, probe_trainable=True, n_groups=40),
        inference=InferenceConfig(seed=9, refine=2),
        execution=ExecutionConfig(learning_rate=0.25),
    )
    cfg = {'backend': 'as before'}
    update_legacy_dict(cfg, run)
    expected = {
        'backend': 'as before',
        'architecture': 'cnn',
        'N': 128,
        'gridsize': 2,
        'model_type': 'pinn',
        'probe.big': False,
        'object.big': True,
        'probe.trainable': True,
        'nepochs': 3,
        'n_groups': 40,
        'refine': 2,
        'seed': 5,  # of training
        'channels': list(run.model.channels),
        'sweeps': run.model.sweeps.to_json(),
    }
    assert {key: cfg.get(key) for key in expected} == expected
    assert not cfg.keys() & ExecutionConfig.model_fields
    assert not cfg.keys() & {*KEY_MAPPINGS, 'epochs', 'model', 'training', 'inference', 'execution'}


@pytest.mark.parametrize('config', [ModelConfig(), TrainingConfig(), InferenceConfig(refine=1)])
def test_settings_may_enter_by_themselves(config):
    by_itself, in_a_run = {}, {}
    update_legacy_dict(by_itself, config)
    name = type(config).__name__.removesuffix('Config').lower()
    update_legacy_dict(in_a_run, RunConfig(**{name: config}))
    assert by_itself
    assert by_itself.items() <= in_a_run.items()


@pytest.mark.parametrize('config', [ExecutionConfig(), {'N': 64}, Job, None])
def test_anything_else_does_not_enter(config):
    cfg = {'N': 32}
    with pytest.raises(ConfigError, match=r'cannot enter the flat dictionary; expected settings'):
        update_legacy_dict(cfg, config)
    assert cfg == {'N': 32}


def test_a_fault_leaves_the_dictionary_alone():
    cfg = {}
    with pytest.raises(ValueError, match='serialize'):
        update_legacy_dict(cfg, Job(epochs=3, output_dir=object()))
    assert cfg == {}


# Grouped data


@pytest.fixture
def scan():
    rng = np.random.default_rng(6)
    bad = np.zeros((N, N), dtype=bool)
    bad[3, 11] = True
    patterns = rng.poisson(rng.uniform(1, 50, size=(10, 1, 1)), size=(10, N, N))
    patterns[:, bad] = 10**6
    y, x = np.indices((40, 52))
    return ScanData(
        patterns=patterns.astype(np.float32),
        positions_px=rng.uniform((8, 8), (31, 43), size=(10, 2)),
        probe=np.ones((1, N, N), dtype=np.complex64),
        bad_pixels=bad,
        object_guess=(y + 1j * x).astype(np.complex64),
    )


@pytest.fixture(params=[1, 2])
def groups(request, scan):
    return draw_groups(scan.positions_px, request.param, n_groups=7, neighbor_count=5)


SHAPES = {
    'diffraction': ('g N N C', np.float32),
    'X_full': ('g N N C', np.float32),
    'Y': ('g N N C', np.complex64),
    'coords_offsets': ('g 1 2 1', np.float64),
    'coords_relative': ('g 1 2 C', np.float64),
    'coords_start_offsets': ('g 1 2 1', np.float64),
    'coords_start_relative': ('g 1 2 C', np.float64),
    'coords_nn': ('g 1 2 C', np.float64),
    'coords_start_nn': ('g 1 2 C', np.float64),
    'nn_indices': ('g C', np.int32),
    'objectGuess': ('h w', np.complex64),
}


def test_keys_shapes_and_types_are_those_of_the_reference(scan, groups):
    data = grouped_data(scan, groups)
    lengths = {'g': 7, 'N': N, 'C': groups.gridsize**2, 'h': 40, 'w': 52}
    found = {key: (value.shape, value.dtype) for key, value in data.items()}
    assert found == {
        key: (tuple(lengths.get(axis) or int(axis) for axis in axes.split()), np.dtype(dtype))
        for key, (axes, dtype) in SHAPES.items()
    }


def test_coordinates_are_x_before_y_and_relative_ones_point_to_the_centre(scan, groups):
    data = grouped_data(scan, groups)
    for g, members in enumerate(groups.indices):
        mean = scan.positions_px[members].mean(axis=0)
        np.testing.assert_allclose(data['coords_offsets'][g, 0, :, 0], mean[::-1])
        for c, pattern in enumerate(members):
            y, x = scan.positions_px[pattern]
            assert data['coords_nn'][g, 0, :, c].tolist() == [x, y]
            relative = [-(x - mean[1]), -(y - mean[0])]
            np.testing.assert_allclose(data['coords_relative'][g, 0, :, c], relative, atol=1e-12)
    for name in ('offsets', 'relative', 'nn'):
        start = data[f'coords_start_{name}']
        np.testing.assert_array_equal(start, data[f'coords_{name}'])
        assert not np.shares_memory(start, data[f'coords_{name}'])
    np.testing.assert_array_equal(data['nn_indices'], groups.indices)


def test_patterns_are_amplitudes_with_channels_last(scan, groups):
    data = grouped_data(scan, groups)
    for g, members in enumerate(groups.indices):
        for c, pattern in enumerate(members):
            np.testing.assert_allclose(
                data['diffraction'][g, :, :, c] ** 2, scan.patterns[pattern], rtol=1e-6
            )


def test_the_scale_of_the_input_is_that_of_the_scan_not_of_the_draw(scan, groups):
    every = grouped_data(scan, draw_groups(scan.positions_px, 1))['X_full']
    assert np.sum(every**2, axis=(1, 2, 3)).mean() == pytest.approx((N / 2) ** 2, rel=1e-5)
    drawn = grouped_data(scan, groups)
    assert not drawn['X_full'][:, 3, 11].any()
    for g, members in enumerate(groups.indices):
        for c, pattern in enumerate(members):
            np.testing.assert_array_equal(drawn['X_full'][g, :, :, c], every[pattern, :, :, 0])
    good, factor = ~scan.bad_pixels, N / 2 / np.sqrt(scan.mean_counts())
    expected = drawn['diffraction'][:, good] * factor
    np.testing.assert_allclose(drawn['X_full'][:, good], expected, rtol=1e-5)


def test_the_truth_lies_at_the_true_positions(scan, groups):
    """The object is y + i x, so a patch says where each of its pixels is."""
    truth = grouped_data(scan, groups)['Y']
    pixel = np.arange(N) - (N - 1) / 2
    for g, members in enumerate(groups.indices):
        for c, (y, x) in enumerate(scan.positions_px[members]):
            expected = (y + pixel)[:, None] + 1j * (x + pixel)
            np.testing.assert_allclose(truth[g, :, :, c], expected, atol=1e-4)


def test_without_an_object_there_is_no_truth(scan, groups):
    blind = ScanData(scan.patterns, scan.positions_px, scan.probe, scan.bad_pixels)
    data = grouped_data(blind, groups)
    assert data['Y'] is None
    assert data['objectGuess'] is None
    assert data.keys() == SHAPES.keys()


def test_groups_of_another_scan_are_refused(scan, groups):
    few = scan.subset(np.arange(4))
    with pytest.raises(ScanValueError, match=r'groups have pattern \d, but the scan 4 patterns'):
        grouped_data(few, groups)
