"""One call from scans to amplitude and phase; the flat dictionary is told first, and once."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from ptychodus_torch_plugin import api, workflow
from ptychodus_torch_plugin.api import loading, training
from ptychodus_torch_plugin.backends import registry
from ptychodus_torch_plugin.backends.protocol import EpochRecord, Reconstruction, TrainingResult
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, RunConfig, TrainingConfig
from ptychodus_torch_plugin.errors import (
    BackendUnavailableError,
    ConfigError,
    ScanValueError,
    ShapeError,
)
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.scan import ScanData

N = 16
OBJECT = (np.arange(12).reshape(3, 4) * np.exp(0.1j * np.arange(4))).astype(np.complex64)


def scan_of(n_px=N, name='scan'):
    rng = np.random.default_rng(1)
    return ScanData(
        patterns=rng.poisson(3, size=(4, n_px, n_px)).astype(np.float32),
        positions_px=rng.uniform(20, 30, size=(4, 2)),
        probe=np.ones((1, n_px, n_px), np.complex64),
        bad_pixels=np.zeros((n_px, n_px), dtype=bool),
        name=name,
    )


class Backend:
    """Writes down what happens, and knows one object."""

    name = 'recorder'

    def __init__(self, happened):
        self.happened = happened

    def versions(self):
        return {'abacus': '1.2'}

    def build(self, config, calibration, *, seed=0):
        return SimpleNamespace(
            config=config,
            calibration=calibration,
            reconstruct=self.reconstruct,
            import_weights=lambda weights: None,
            export_weights=dict,
        )

    def fit(self, model, scans, training, execution, **options):
        self.happened.append(('fit', [scan.name for scan in scans], execution, options))
        history = (EpochRecord(1, 0.5, 0.75), EpochRecord(2, 0.25, None))
        return TrainingResult(model, history, best_epoch=1)

    def reconstruct(self, scan, inference, execution, **options):
        self.happened.append(('reconstruct', scan.name, inference, execution))
        return Reconstruction(
            object_=OBJECT,
            probe=scan.probe,
            occupancy=np.ones(OBJECT.shape, np.float32),
            frame=ObjectFrame((0, 0), OBJECT.shape),
            stage='all',
            stages={'all': OBJECT},
            r_fitted={},
            r_held_out={},
        )


@pytest.fixture(autouse=True)
def happened(monkeypatch):
    happened = []

    def get_backend(name):
        happened.append(('backend', name))
        return Backend(happened)

    monkeypatch.setattr(registry, 'get_backend', get_backend)
    for module in (loading, training, workflow):
        real = module.update_legacy_dict

        def update(cfg, config, real=real):
            happened.append(('dictionary', config))
            real(cfg, config)

        monkeypatch.setattr(module, 'update_legacy_dict', update)
    return happened


def test_amplitude_phase_and_results(happened, tmp_path):
    run = RunConfig(backend='recorder', model=ModelConfig(N=N), inference={'refine': 2})
    amplitude, phase, results = workflow.run_workflow(
        [scan_of(name='one'), scan_of(name='two')],
        scan_of(name='test'),
        run,
        checkpoint_dir=tmp_path,
        log_dir=tmp_path / 'logs',
        resume=True,
    )

    np.testing.assert_array_equal(amplitude, np.abs(OBJECT))
    np.testing.assert_array_equal(phase, np.angle(OBJECT))
    assert amplitude.dtype == phase.dtype == np.float32
    assert results['backend'] == 'recorder'
    assert results['history'] == {'train_loss': [0.5, 0.25], 'val_loss': [0.75, None]}
    assert results['reconstruction'].stage == 'all'
    assert results['model'].config == run.model
    [_, (_, scans, _, options), (_, tested, inference, _)] = happened
    assert scans == ['one', 'two']
    assert tested == 'test'
    assert inference.refine == 2
    wanted = {'checkpoint_dir': tmp_path, 'log_dir': tmp_path / 'logs', 'resume': True}
    assert options.items() >= wanted.items()


def test_without_a_test_scan_there_is_no_object(happened):
    amplitude, phase, results = workflow.run_workflow(scan_of())

    assert amplitude is phase is results['reconstruction'] is None
    assert [name for name, *_ in happened] == ['backend', 'fit']
    assert results['model'].config.N == N


def test_overrides_come_before_settings_and_settings_before_defaults(happened, caplog):
    run = RunConfig(model={'N': N}, execution={'learning_rate': 0.01, 'accum_steps': 3})
    with caplog.at_level(logging.INFO):
        *_, results = workflow.run_workflow(
            scan_of(), run=run, execution_overrides={'learning_rate': 0.5}
        )

    expected = ExecutionConfig(learning_rate=0.5, accum_steps=3)
    [applied] = [rest[1] for name, *rest in happened if name == 'fit']
    assert applied == expected
    assert results['execution'] == expected.to_json()
    [line] = [r.getMessage() for r in caplog.records if 'execution settings' in r.getMessage()]
    assert "'learning_rate': 0.5" in line
    with pytest.raises(ConfigError, match='accum_steps = 0'):
        workflow.run_workflow(scan_of(), run=run, execution_overrides={'accum_steps': 0})


def test_the_dictionary_is_told_once_and_before_any_backend(happened):
    cfg = {'N': 7, 'kept': 'as it was'}
    run = RunConfig(model={'N': 64, 'architecture': 'cnn', 'gridsize': 2, 'probe_big': False})
    workflow.run_workflow(scan_of(64), scan_of(64), run, legacy_dict=cfg)

    assert [name for name, *_ in happened] == ['dictionary', 'backend', 'fit', 'reconstruct']
    expected = {'N': 64, 'gridsize': 2, 'probe.big': False, 'nepochs': 12, 'kept': 'as it was'}
    assert cfg.items() >= expected.items()
    assert not cfg.keys() & set(ExecutionConfig.model_fields)


def test_training_tells_the_dictionary_once_too(happened):
    cfg = {}
    settings = TrainingConfig(epochs=3), ExecutionConfig(learning_rate=0.5)
    api.train([scan_of()], ModelConfig(N=N), *settings, legacy_dict=cfg)

    assert [name for name, *_ in happened] == ['dictionary', 'backend', 'fit']
    assert (cfg['N'], cfg['nepochs']) == (N, 3)
    assert 'learning_rate' not in cfg


def test_loading_a_bundle_tells_the_dictionary_before_the_backend(happened, tmp_path):
    model = api.train([scan_of()], ModelConfig(N=N, sweeps_before=5), TrainingConfig(epochs=3))
    happened.clear()
    cfg = {}

    api.load_bundle(model.save(tmp_path), legacy_dict=cfg)

    assert [name for name, *_ in happened] == ['dictionary', 'backend']
    assert (cfg['N'], cfg['nepochs'], cfg['sweeps_before']) == (N, 3, 5)


def test_a_backend_that_is_missing_still_leaves_the_dictionary_told(happened, monkeypatch):
    def missing(name):
        raise BackendUnavailableError('PyTorch backend selected, but torch is not installed')

    monkeypatch.setattr(registry, 'get_backend', missing)
    cfg = {}
    with pytest.raises(RuntimeError, match='PyTorch backend selected'):
        workflow.run_workflow(scan_of(), run=RunConfig(model={'N': N}), legacy_dict=cfg)

    assert cfg['N'] == N


def test_bad_input_costs_no_training(happened):
    run = RunConfig(model={'architecture': 'cnn', 'N': 64})
    with pytest.raises(ShapeError, match=r'32 px.*N = 64'):
        workflow.run_workflow(scan_of(64), scan_of(32), run)
    with pytest.raises(ScanValueError, match='no scan'):
        workflow.run_workflow([])

    assert not any(name == 'fit' for name, *_ in happened)


def test_a_run_may_start_from_a_bundle(happened, tmp_path):
    known = api.train([scan_of()], ModelConfig(N=N, sweeps_before=5), TrainingConfig(epochs=3))
    path = str(known.save(tmp_path))

    *_, results = workflow.run_workflow(scan_of(), run=RunConfig(resume_from=path))
    assert results['model'].config == known.config
    assert results['model'].provenance['started_from'] == [known.provenance]

    other = RunConfig(resume_from=path, model={'N': N, 'sweeps_before': 6})
    with pytest.raises(ConfigError, match="'sweeps_before': 6"):
        workflow.run_workflow(scan_of(), run=other)


def test_a_model_knows_all_that_it_was_trained_from(happened):
    """In a flat list, the newest first: a bundle admits only so many levels."""
    model, seeds = None, [7, 3, 5]
    for seed in seeds:
        model = api.train([scan_of()], training=TrainingConfig(seed=seed), start=model)
    assert model.provenance['seed'] == 5
    before = model.provenance['started_from']
    assert [each['seed'] for each in before] == [3, 7]
    assert not any('started_from' in each for each in before)
