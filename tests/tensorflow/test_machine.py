"""TensorFlow's own sides of a training: threads, traces, memory, files, Keras."""

import gc
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from ptychodus_torch_plugin.api import train
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.backends.tensorflow import checkpoints, unrolled
from ptychodus_torch_plugin.backends.tensorflow.cnn import CnnNetwork
from ptychodus_torch_plugin.backends.tensorflow.data import channels_first, channels_last
from ptychodus_torch_plugin.backends.tensorflow.training import Training
from ptychodus_torch_plugin.calibration import scaled_amplitudes
from ptychodus_torch_plugin.config import InferenceConfig
from ptychodus_torch_plugin.scan import ScanData
from tests.both.quick import (
    CNN,
    CNN_EXECUTION,
    CNN_TRAINING,
    EXECUTION,
    MODEL,
    TRAINING,
    PowerCutError,
    Runs,
    assert_same_run,
)
from tests.parity.scenes import lopsided_scan, simulated_scan


@pytest.fixture(scope='module')
def quick() -> Runs:
    return Runs(get_backend('tensorflow'), MODEL, TRAINING, EXECUTION)


@pytest.fixture(scope='module')
def quick_cnn() -> Runs:
    return Runs(get_backend('tensorflow'), CNN, CNN_TRAINING, CNN_EXECUTION)


@pytest.fixture(scope='module')
def noisy() -> ScanData:
    return simulated_scan(photons=3e3)


@pytest.fixture(scope='module')
def wide() -> ScanData:
    """20 patterns for the reference network."""
    return simulated_scan(N=64, n_positions=20, seed=2)


# Traces


@pytest.fixture
def trainings(monkeypatch):
    """The trainings that began."""
    begun = []
    real = Training.begin

    def begin(training):
        real(training)
        begun.append(training)

    monkeypatch.setattr(Training, 'begin', begin)
    return begun


def traces(training):
    functions = training._gather, training._step, training._score
    return [function.experimental_get_tracing_count() for function in functions]


def test_batches_of_all_sizes_share_their_traces(quick, noisy, trainings):
    """The second size makes TensorFlow forget sizes, and no third one costs anything."""
    quick.fit(noisy, epochs=6, window_px=40)
    assert traces(trainings[0]) == [2, 1, 1]


@pytest.mark.slow
def test_scans_of_all_sizes_share_their_traces(quick, noisy, trainings):
    """But for those without sub-pixel shifts, and those with more modes."""
    scans = [noisy, simulated_scan(n_positions=16, seed=8), simulated_scan(n_positions=25, seed=9)]
    quick.fit([*scans, lopsided_scan(32, 3, whole=True)], epochs=2)
    gathered, stepped, scored = traces(trainings[0])
    assert gathered <= 4
    assert stepped == 1
    assert scored <= 4


@pytest.mark.slow
def test_groups_of_all_scans_share_their_traces(quick_cnn, wide, trainings):
    other = simulated_scan(N=64, n_positions=13, seed=3, probe_modes=2)
    quick_cnn.fit([wide, other], epochs=2)
    gathered, stepped, scored = traces(trainings[0])
    assert (gathered, stepped) == (2, 1)
    assert scored <= 2


def test_predictions_share_a_trace(quick_cnn, wide, monkeypatch):
    """For batches of every size, and for other weights."""
    traced = []
    real = CnnNetwork.call

    def call(network, amplitudes):
        traced.append(tuple(amplitudes.shape))
        return real(network, amplitudes)

    model, groups = quick_cnn.build([wide]), np.stack([wide.patterns[k : k + 4] for k in range(9)])
    offsets = np.zeros((9, 4, 2), np.float32)
    monkeypatch.setattr(CnnNetwork, 'call', call)
    whole = model.predict(groups, offsets).patches
    parts = [model.predict(groups[rows], offsets[rows]).patches for rows in (slice(7), slice(7, 9))]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    model.import_weights({n: np.array(1.2 * w, 'f4') for n, w in model.export_weights().items()})
    brighter = model.predict(groups, offsets).patches
    assert traced == [(None, 64, 64, 4)]

    amplitudes = channels_last(scaled_amplitudes(groups, model.calibration.input_scale))
    step_by_step = channels_first(model.network(amplitudes) * float(model.network.intensity_scale))
    np.testing.assert_allclose(brighter, step_by_step, atol=1e-5)
    assert np.abs(brighter - whole).max() > 0.1


def test_a_trace_does_not_keep_its_network(quick_cnn, wide):
    model = quick_cnn.build([wide])
    model.predict(wide.patterns[None, :4], np.zeros((1, 4, 2), np.float32))
    network = weakref.ref(model.network)
    del model
    gc.collect()
    assert network() is None


@pytest.mark.slow
def test_a_prediction_amid_a_training_has_a_trace_of_its_own(quick_cnn, wide):
    """Which ends with the training's precision."""
    model = quick_cnn.build([wide])
    group, offsets = wide.patterns[None, :4], np.zeros((1, 4, 2), np.float32)
    found = []

    def on_event(event):
        if not found and event.phase == 'train':
            weights = model.export_weights()
            found.append((weights, model.predict(group, offsets).patches))

    quick_cnn.fit(
        wide, built=model, epochs=1, precision='bf16-mixed', options={'on_event': on_event}
    )
    [(weights, short)] = found
    model.import_weights(weights)
    fresh = quick_cnn.build([wide])
    fresh.import_weights(weights)
    full = [each.predict(group, offsets).patches for each in (model, fresh)]
    np.testing.assert_array_equal(*full)
    assert np.abs(full[0] - short).max() > 1e-4


@pytest.mark.slow
def test_a_small_training_begins_at_once(quick_cnn, wide):
    start, reached = time.perf_counter(), []

    def on_event(event):
        reached.append(time.perf_counter() - start)

    quick_cnn.fit(wide, epochs=1, options={'on_event': on_event})
    assert reached[-1] < 20  # on a busy machine; two seconds on a free one


# Memory


def resident_mib():
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


@pytest.mark.slow
def test_memory_does_not_grow_from_epoch_to_epoch(quick_cnn, wide, tmp_path):
    """Nor are weights of every epoch, 2.3 MiB, kept anywhere but on the disk."""
    used = {}

    def on_event(event):
        used[event.epoch] = resident_mib()

    options = {'checkpoint_dir': tmp_path, 'on_event': on_event}
    quick_cnn.fit(wide, epochs=18, gridsize=1, checkpoint_save_top_k=-1, options=options)
    assert used[18] - used[6] < 10
    assert len(list(tmp_path.glob('best*'))) == 18


def test_validation_is_tiled(quick, noisy, monkeypatch):
    """A canvas of any size takes bounded memory, and its loss is the same."""
    whole = quick.fit(noisy, epochs=1)
    shapes = []
    real = unrolled.UnrolledNetwork.call

    def call(network, object_, photons, gauge):
        shapes.append(tuple(object_.shape))
        return real(network, object_, photons, gauge)

    monkeypatch.setattr(unrolled.UnrolledNetwork, 'call', call)
    monkeypatch.setattr(unrolled, 'TILE_PX', 12)
    tiled = quick.fit(noisy, epochs=1)
    height, width = noisy.frame.shape
    assert len(shapes) - 1 == -(-height // 12) * -(-width // 12)
    assert tiled.history[0].loss == whole.history[0].loss
    expected = whole.history[0].validation_loss
    assert tiled.history[0].validation_loss == pytest.approx(expected, rel=1e-5)


# Threads


THREADS = """
import sys
from ptychodus_torch_plugin import ExecutionConfig, InferenceConfig, load_bundle
from ptychodus_torch_plugin.backends.registry import get_backend
from tests.both.quick import EXECUTION, MODEL, TRAINING, Runs
from tests.parity.scenes import simulated_scan

quick = Runs(get_backend('tensorflow'), MODEL, TRAINING, EXECUTION)
scan = simulated_scan(n_positions=16)
{first}
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads())
for threads in (1, 3):
    quick.fit(scan, epochs=1, num_threads=threads)
"""
LOADED = """
model = load_bundle(sys.argv[1], backend='tensorflow').trained
model.reconstruct(scan, InferenceConfig(), ExecutionConfig(accelerator='cpu', num_threads=1))
"""


@pytest.mark.parametrize(
    'first',
    [
        pytest.param('quick.fit(scan, epochs=1, num_threads=1)', id='training'),
        pytest.param(LOADED, id='loaded', marks=pytest.mark.slow),
    ],
)
def test_threads_can_be_chosen_once(first, noisy, tmp_path):
    """Before TensorFlow starts, which a model that is only built or loaded does not make it do."""
    bundle = tmp_path / 'none'
    if first == LOADED:
        training = TRAINING.model_copy(update={'epochs': 1})
        bundle = train([noisy], MODEL, training, EXECUTION, backend='tensorflow').save(tmp_path)
    command = [sys.executable, '-c', THREADS.format(first=first), str(bundle)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, '1\n'), ran.stderr
    [warning] = ran.stderr.splitlines()
    assert 'num_threads = 3 has no effect' in warning


# Files


@pytest.mark.parametrize(
    ('keep', 'write'), [*(pytest.param(1, n, marks=pytest.mark.slow) for n in (1, 2)), (2, 3)]
)
def test_a_run_that_is_cut_off_between_its_files_goes_on(
    quick, noisy, tmp_path, monkeypatch, keep, write
):
    """Each epoch writes the last state and, if it is among the best, that too."""
    changes = {'epochs': 3, 'checkpoint_save_top_k': keep, 'learning_rate': 1e-3}
    whole = quick.fit(noisy, **changes)
    losses = [record.validation_loss for record in whole.history]
    assert sorted(losses, reverse=True) == losses  # every epoch is the best so far
    real, written = checkpoints._write, []

    def cut(path, *content):
        if len(written) == write:
            raise PowerCutError
        written.append(path)
        real(path, *content)

    with monkeypatch.context() as patched, pytest.raises(PowerCutError):
        patched.setattr(checkpoints, '_write', cut)
        quick.fit(noisy, options={'checkpoint_dir': tmp_path}, **changes)
    options = {'checkpoint_dir': tmp_path, 'resume': True}
    assert_same_run(quick.fit(noisy, options=options, **changes), whole)
    assert len(list(tmp_path.glob('best*'))) == keep


@pytest.mark.parametrize(
    ('first', 'then'),
    [*(pytest.param(*n, marks=pytest.mark.slow) for n in ((1, 2), (-1, 1))), (2, 0)],
)
def test_how_many_epochs_are_kept_may_change(quick, noisy, tmp_path, first, then):
    """It is no part of the course of training."""
    whole = quick.fit(noisy, checkpoint_save_top_k=then)

    def cut(event):
        if event.epoch == 3:
            raise PowerCutError

    options = {'checkpoint_dir': tmp_path}
    with pytest.raises(PowerCutError):
        quick.fit(noisy, checkpoint_save_top_k=first, options=options | {'on_event': cut})
    resumed = quick.fit(noisy, checkpoint_save_top_k=then, options=options | {'resume': True})
    assert_same_run(resumed, whole)


# Keras


@pytest.mark.parametrize('other', [pytest.param('torch', marks=pytest.mark.slow), 'nonsense'])
def test_keras_on_another_framework_is_refused(other):
    program = (
        "from ptychodus_torch_plugin.backends.registry import get_backend as g; g('tensorflow')"
    )
    ran = subprocess.run(
        [sys.executable, '-c', program],
        env=os.environ | {'KERAS_BACKEND': other},
        capture_output=True,
        text=True,
        check=False,
    )
    *_, error = ran.stderr.splitlines()
    assert 'BackendUnavailableError: TensorFlow backend selected, but Keras runs on ' in error
    assert other in error
    assert 'KERAS_BACKEND=tensorflow' in error


def test_weights_wait_until_the_network_is_needed(quick, noisy):
    """They are checked and copied at once, and used for whatever comes first."""
    trained = quick.fit(noisy, epochs=1).model
    weights = trained.export_weights()
    waiting = quick.build([noisy])
    waiting.import_weights(weights)
    expected = trained.reconstruct(noisy, InferenceConfig(), EXECUTION)
    for array in weights.values():
        array[...] = np.nan
    found = waiting.reconstruct(noisy, InferenceConfig(), EXECUTION)
    np.testing.assert_array_equal(found.object_, expected.object_)
