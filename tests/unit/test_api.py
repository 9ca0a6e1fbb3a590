"""`train`, `reconstruct`, `load_bundle`, with a backend that writes down what it is asked."""

import re
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.backends import registry
from ptychodus_torch_plugin.backends.protocol import EpochRecord, TrainingResult
from ptychodus_torch_plugin.bundle.archive import read_bundle, read_manifest, write_bundle
from ptychodus_torch_plugin.bundle.weights import check_weights
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    SweepConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.errors import (
    BackendUnavailableError,
    BundleError,
    ConfigError,
    OutputError,
    ScanValueError,
    ShapeError,
)
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sweeps import first_probe

N = 16
SHAPES = {'kernel': (2, 3, 1, 1), 'bias': (2,)}
PNG = b'\x89PNG\r\n\x1a\n picture'


def scan_of(n_px=N, counts=3, name='scan'):
    rng = np.random.default_rng(1)
    y, x = np.indices((n_px, n_px)) - n_px / 2
    beam = np.exp(-(y**2 + 2 * x**2) / 9 + 0.3j * x)
    return ScanData(
        patterns=rng.poisson(counts, size=(4, n_px, n_px)).astype(np.float32),
        positions_px=rng.uniform(20, 30, size=(4, 2)),
        probe=np.stack([beam, 0.2j * y * beam]).astype(np.complex64),
        bad_pixels=np.zeros((n_px, n_px), dtype=bool),
        name=name,
    )


class RecordingModel:
    def __init__(self, config, calibration, fill):
        self.config, self.calibration = config, calibration
        self.weights = {name: np.full(s, fill, np.float32) for name, s in SHAPES.items()}
        self.calls = []

    def export_weights(self):
        return {name: array.copy() for name, array in self.weights.items()}

    def import_weights(self, weights):
        check_weights(weights, SHAPES)
        self.weights = {name: array.copy() for name, array in weights.items()}

    def reconstruct(self, *args, **options):
        self.calls.append((args, options))
        return 'a reconstruction'


RESULT = {
    'history': (EpochRecord(1, 0.5, 0.75), EpochRecord(2, 0.25, None)),
    'best_epoch': 1,
    'stopped': 'patience',
    'optimizer': {'exp_avg/bias': np.ones(2, np.float32)},
}


class RecordingBackend:
    """Trains by adding one."""

    name = 'recorder'

    def __init__(self):
        self.built, self.calls = [], []

    def versions(self):
        return {'abacus': '1.2'}

    def build(self, config, calibration, *, seed=0):
        self.built.append((config, seed))
        return RecordingModel(config, calibration, seed)

    def fit(self, model, *args, **options):
        self.calls.append((args, options))
        model.weights = {name: array + 1 for name, array in model.weights.items()}
        return TrainingResult(model, **RESULT)


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    backend = RecordingBackend()
    asked = []

    def get_backend(name):
        asked.append(name)
        return backend

    backend.asked = asked
    monkeypatch.setattr(registry, 'get_backend', get_backend)
    return backend


def test_training_hands_everything_to_the_named_backend(backend, tmp_path):
    scans = [scan_of(name='first'), scan_of(counts=5, name='second')]
    model = ModelConfig(N=N, sweeps=SweepConfig(probe_modes=3))
    training, execution = TrainingConfig(seed=41), ExecutionConfig(num_threads=7)
    options = {
        'checkpoint_dir': tmp_path,
        'log_dir': tmp_path / 'logs',
        'resume': True,
        'on_event': lambda event: None,
        'should_stop': lambda: True,
    }
    trained = api.train(scans, model, training, execution, backend='recorder', **options)
    assert backend.asked == ['recorder']
    assert backend.built == [(model, 41)]
    handed = options | {'optimizer': None}
    assert backend.calls == [((scans, training.for_model(model), execution), handed)]
    assert trained.config is model
    assert trained.trained.weights['bias'].tolist() == [42, 42]
    assert trained.history == RESULT['history']
    assert (trained.best_epoch, trained.stopped) == (1, 'patience')
    assert trained.mean_counts == pytest.approx(np.mean([s.mean_counts() for s in scans]))
    np.testing.assert_allclose(trained.probe, first_probe(scans[0], model.sweeps), rtol=1e-5)
    assert (len(trained.probe), trained.probe.dtype) == (3, np.complex64)
    energy = np.sum(np.abs(trained.probe) ** 2)
    assert energy == pytest.approx(scans[0].mean_counts(), rel=1e-5)


def test_what_is_left_out_takes_the_defaults_for_the_scan(backend):
    trained = api.train([scan_of(24)])
    assert backend.asked == [None]
    assert trained.config == ModelConfig(N=24)
    ((args, options),) = backend.calls
    assert args[1:] == (TrainingConfig(objective='thinned-objects'), ExecutionConfig())
    assert options['checkpoint_dir'] is options['log_dir'] is None
    assert options['resume'] is False
    assert options['should_stop']() is False
    assert options['on_event'](None) is None


def test_a_model_says_where_it_came_from():
    scans = [scan_of(name='first'), scan_of(counts=5, name='second')]
    execution = ExecutionConfig(learning_rate=3e-4, num_threads=7)
    provenance = api.train(scans, None, TrainingConfig(seed=41), execution).provenance
    assert provenance['seed'] == 41
    assert provenance['optimizer'] == execution.course()
    assert provenance['optimizer']['learning_rate'] == 3e-4
    assert datetime.fromisoformat(provenance['date']).utcoffset().total_seconds() == 0
    assert provenance['scans'] == [
        {'name': scan.name, 'patterns': 4, 'sha256': scan.fingerprint()} for scan in scans
    ]


def test_training_needs_a_scan(backend):
    with pytest.raises(ScanValueError, match='no scan was given; expected at least one'):
        api.train([])
    assert backend.asked == []


@pytest.mark.parametrize('config', [None, ModelConfig(N=N)])
def test_every_scan_must_have_the_models_size(backend, config):
    scans = [scan_of(), scan_of(24, name='wide')]
    with pytest.raises(ShapeError) as caught:
        api.train(scans, config)
    assert str(caught.value).startswith(
        'wide: patterns are 24 x 24 px, but the model is for N = 16.'
    )
    assert backend.asked == []


def test_settings_are_completed_for_the_model_before_a_backend_is_asked(backend):
    config = ModelConfig(architecture='cnn', N=64, model_type='supervised')
    model = api.train([scan_of(64)], config, TrainingConfig(tv_weight=0.5))
    filled = TrainingConfig(
        objective='poisson', tv_weight=0.5, nll_weight=0.0, realspace_mae_weight=1.0
    )
    assert model.training == backend.calls[0][0][1] == filled
    backend.asked.clear()
    with pytest.raises(ConfigError, match="batch_size = 3 is a setting of architecture 'cnn'"):
        api.train([scan_of()], training=TrainingConfig(batch_size=3))
    assert backend.asked == []


def test_reconstruction_hands_everything_to_the_model():
    scan, model = scan_of(), api.train([scan_of()])
    inference, execution = InferenceConfig(refine=9), ExecutionConfig(num_threads=7)
    options = {'on_event': lambda event: None, 'should_stop': lambda: True}
    assert api.reconstruct(model, scan, inference, execution, **options) == 'a reconstruction'
    assert model.trained.calls == [((scan, inference, execution), options)]
    api.reconstruct(model, scan)
    args, options = model.trained.calls[1]
    assert args[1:] == (InferenceConfig(), ExecutionConfig())
    assert options['should_stop']() is False


def test_groups_of_another_size_are_not_reconstructed():
    model = api.train([scan_of(64)], ModelConfig(architecture='cnn', N=64))
    with pytest.raises(ShapeError, match=r'wide: patterns are 24 x 24 px, .* N = 64'):
        api.reconstruct(model, scan_of(24, name='wide'))
    assert model.trained.calls == []
    with pytest.raises(ConfigError, match="the model is a 'cnn'"):
        api.with_sweeps(model, sweeps_before=3)


def test_a_network_on_the_canvas_is_trained_on_with_scans_of_another_size(backend):
    start = api.train([scan_of()])
    model = api.train([scan_of(24)], start=start)
    assert model.config == start.config.model_copy(update={'N': 24})
    assert model.probe.shape[-1] == 24


# Bundles


@pytest.fixture
def saved(tmp_path):
    """A trained model and its file."""
    config = ModelConfig(N=N, channels=(3, 5), sweeps=SweepConfig(probe_modes=3))
    model = api.train([scan_of()], config, TrainingConfig(seed=41, epochs=7))
    return model, model.save(tmp_path / 'saved.zip', preview_png=PNG)


def test_a_saved_model_comes_back_whole(saved, backend):
    model, path = saved
    loaded = api.load_bundle(path, backend='recorder')
    assert backend.asked == [None, 'recorder']
    assert loaded.backend is backend
    assert loaded.config == model.config
    for name, array in model.trained.weights.items():
        np.testing.assert_array_equal(loaded.trained.weights[name], array)
    np.testing.assert_array_equal(loaded.probe, model.probe)
    assert loaded.mean_counts == model.mean_counts
    assert loaded.training == model.training
    assert tuple(loaded.history) == tuple(model.history)
    assert (loaded.best_epoch, loaded.stopped) == (1, 'patience')
    assert loaded.provenance == model.provenance
    assert loaded.optimizer['exp_avg/bias'].tolist() == [1, 1]


def test_a_loaded_model_can_be_saved_again(saved, tmp_path):
    _, path = saved
    again = api.load_bundle(path).save(tmp_path / 'again.zip', preview_png=PNG)
    assert again.read_bytes() == path.read_bytes()


def test_the_file_carries_scales_and_versions(saved):
    model, path = saved
    bundle = read_bundle(path)
    assert bundle.backend == 'recorder'
    assert bundle.producer.keys() == {'ptychodus-torch-plugin', 'abacus'}
    assert bundle.preview_png == PNG
    scales, counts = bundle.normalisation, model.mean_counts
    assert scales.mean_counts == counts
    # The sum of (root of the counts / scale)^2 over a mean pattern is (N / 2)^2.
    assert counts / scales.input_scale**2 == pytest.approx((N / 2) ** 2)
    assert scales.probe_scale**2 == pytest.approx(counts, rel=1e-5)


def names(settings):
    """Yield the names of settings, and of settings within them."""
    for name, value in settings.items():
        yield name
        if isinstance(value, dict):
            yield from names(value)


@pytest.mark.parametrize('config', [ModelConfig(N=N), ModelConfig(architecture='cnn', N=64)])
def test_nothing_of_the_execution_is_among_the_settings_of_a_file(tmp_path, config):
    model = api.train([scan_of(config.N)], config, execution=ExecutionConfig(learning_rate=3e-4))
    manifest = read_manifest(model.save(tmp_path))
    found = {*names(manifest.model_settings), *names(manifest.training_settings)}
    assert {'sweeps_after', 'momentum', 'epochs', 'objective', 'seed'} < found
    assert not found & ExecutionConfig.model_fields.keys()


@pytest.mark.parametrize('trained', [False, True])
def test_a_loaded_model_knows_whether_its_probe_was_trained(tmp_path, trained):
    config, training = ModelConfig(architecture='cnn'), TrainingConfig(probe_trainable=trained)
    path = api.train([scan_of(64)], config, training).save(tmp_path)
    assert api.load_bundle(path).trained.calibration.probe_trained is trained


def test_a_model_goes_into_a_folder_or_a_file(saved, tmp_path):
    model, _ = saved
    folder = tmp_path / 'run.1'
    folder.mkdir()
    for path in (folder, str(folder), folder / 'wts.h5.zip'):
        assert model.save(path) == folder / 'wts.h5.zip'
    assert model.save(str(folder / 'm.zip')) == folder / 'm.zip'
    assert api.load_bundle(folder).config == model.config
    assert model.save(tmp_path / 'new' / 'folder') == tmp_path / 'new' / 'folder' / 'wts.h5.zip'


def test_a_model_does_not_go_where_nothing_can(saved, tmp_path):
    model, _ = saved
    (tmp_path / 'file').write_text('somebody else')
    for path in (tmp_path / 'file', tmp_path / 'file' / 'folder'):
        with pytest.raises(OutputError, match=f'cannot make the folder {re.escape(str(path))}'):
            model.save(path)
    with pytest.raises(OutputError, match='there is no folder'):
        model.save(tmp_path / 'absent' / 'm.zip')
    assert (tmp_path / 'file').read_text() == 'somebody else'


def test_a_model_without_optimiser_or_training_is_a_model(backend, tmp_path):
    missing = {'training': None, 'optimizer': None, 'history': (), 'provenance': {}}
    model = replace(api.train([scan_of()]), **missing)
    loaded = api.load_bundle(model.save(tmp_path / 'plain.zip'))
    assert loaded.training is None
    assert loaded.optimizer is None
    assert (list(loaded.history), loaded.best_epoch) == ([], None)


def test_a_bundle_with_settings_of_another_release_is_refused(saved, tmp_path):
    _, path = saved
    bundle = read_bundle(path)
    other = tmp_path / 'other.zip'
    settings = bundle.model_settings | {'attention_heads': 4}
    write_bundle(other, replace(bundle, model_settings=settings))
    with pytest.raises(ConfigError) as caught:
        api.load_bundle(other)
    expected = f'{other}: model settings: attention_heads is not a known setting'
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize('record', [{'loss': 0.5}, {'epoch': 1}, {'epoch': 1, 'loss': None}])
def test_a_bundle_with_a_history_of_something_else_is_refused(record, saved, tmp_path):
    _, path = saved
    other = tmp_path / 'other.zip'
    bundle = read_bundle(path)
    write_bundle(other, replace(bundle, history=[bundle.history[0], record]))
    words = r'history\[1\] is .* expected numbers for epoch and loss'
    with pytest.raises(BundleError, match=words):
        api.load_bundle(other)


def test_a_bundle_whose_weights_do_not_fit_is_refused(saved, tmp_path):
    _, path = saved
    bundle = read_bundle(path)
    other = tmp_path / 'other.zip'
    weights = {'kernel': np.zeros((3, 2, 1, 1), np.float32), 'extra': np.zeros(1, np.float32)}
    write_bundle(other, replace(bundle, weights=weights, weight_axes={}))
    with pytest.raises(BundleError) as caught:
        api.load_bundle(other)
    for fault in (
        'bias is missing; expected shape (2,)',
        'extra is not expected',
        'kernel has shape (3, 2, 1, 1); expected (2, 3, 1, 1)',
    ):
        assert fault in str(caught.value).replace("'", '').replace('"', '')


def test_a_bundle_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / 'absent.zip'))):
        api.load_bundle(tmp_path / 'absent.zip')


# The flat dictionary of other programs


def test_training_updates_the_flat_dictionary_before_anything_can_go_wrong():
    flat = {'nepochs': 50, 'N': 128, 'of somebody else': 1}
    scans, training = [scan_of(24)], TrainingConfig(epochs=7)
    with pytest.raises(ShapeError):
        api.train(scans, ModelConfig(N=N), training, legacy_dict=flat)
    assert (flat['nepochs'], flat['N'], flat['of somebody else']) == (7, N, 1)
    assert not flat.keys() & ExecutionConfig.model_fields.keys()


def test_loading_updates_it_with_what_is_in_the_bundle(saved, monkeypatch):
    def get_backend(name):
        raise BackendUnavailableError('none here')

    _, path = saved
    flat = {'nepochs': 50}
    monkeypatch.setattr(registry, 'get_backend', get_backend)
    with pytest.raises(BackendUnavailableError):
        api.load_bundle(path, legacy_dict=flat)
    assert (flat['nepochs'], flat['N'], flat['channels']) == (7, N, [3, 5])
