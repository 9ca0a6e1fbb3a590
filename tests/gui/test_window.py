"""The main window of Ptychodus with the plugin: every reconstructor, and all that goes wrong."""

import time
import zipfile
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from PyQt5.QtWidgets import QLabel

from ptychodus_torch_plugin.bundle.archive import read_bundle
from tests.foreign.lookalikes import small_keras_members, zipped

from .window import PATIENCE_S

# What Ptychodus and its libraries warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings('ignore')

BACKENDS = ('pytorch', 'tensorflow')
ENDLESS = 500
SECONDS_TO_STOP = 5.0
SECONDS_TO_NOTICE = 10.0
"""On a busy machine; what is ended here would last much longer."""
each_backend = pytest.mark.parametrize('backend', BACKENDS)


def other(backend):
    return BACKENDS[1 - BACKENDS.index(backend)]


def object_of(product):
    return product.object_.get_array()[0]


@contextmanager
def shown_errors(monkeypatch):
    """Collect what dialogs would say."""
    errors = []
    monkeypatch.setattr(
        'ptychodus.controller.processing.core.ExceptionDialog.show_exception',
        lambda what, error: errors.append(f'{what}: {error}'),
    )
    yield errors


def workers():
    """Return the processes that compute."""
    children = psutil.Process().children(recursive=True)
    module = 'ptychodus_torch_plugin.integration.worker'
    return [child for child in children if module in child.cmdline()]


def test_every_reconstructor_is_there(window, photograph):
    ours = [key for key in window.algorithms() if key.startswith('pinn_')]
    kinds = ('', '-fit', '-pretrained')
    assert ours == [f'pinn_{name}{kind}' for name in ('tensorflow', 'pytorch') for kind in kinds]
    for key in ours:
        window.choose_algorithm(key)
        trainable = not key.endswith(kinds[1:])
        assert window.actions.train_button.isVisible() == trainable
        assert window.actions.reconstruct_button.text() == ('Infer' if trainable else 'Reconstruct')
        words = [label.text() for label in window.panel.findChildren(QLabel)]
        assert 'Sweeps Before:' in words
        assert not any('not found' in text for text in words)
    photograph(window, 'panel')


@each_backend
def test_a_fit_shows_the_object_and_the_losses(window, photograph, backend):
    window.choose_algorithm(f'pinn_{backend}-fit')
    before = window.product(window.index)
    assert window.run(window.actions.reconstruct_button) is None
    photograph(window, f'{backend}-fit')
    after = window.product()
    assert after.metadata.name == f'measured_pinn_{backend}-fit'
    assert after.object_.get_geometry() == before.object_.get_geometry()
    assert np.std(np.angle(object_of(after))) > 10 * np.std(np.angle(object_of(before)))
    assert window.plotted_losses() == pytest.approx([loss.value for loss in after.losses])
    assert [loss.epoch for loss in after.losses] == [1, 2, 3]
    assert 'epoch 3/3, loss' in window.log
    assert '4 sweeps + network + 1 sweep: R 0.' in window.log
    assert not workers()


@pytest.mark.parametrize('backend', ['tensorflow', pytest.param('pytorch', marks=pytest.mark.slow)])
def test_the_pretrained_network_needs_no_training(window, photograph, backend):
    window.choose_algorithm(f'pinn_{backend}-pretrained')
    window.set(Model_Architecture='cnn')  # of which no network takes 32 x 32 px
    before, said = window.product(window.index), len(window.log)
    assert window.run(window.actions.reconstruct_button) is None
    photograph(window, f'{backend}-pretrained')
    after, said = window.product(), window.log[said:]
    assert after.metadata.name == f'measured_pinn_{backend}-pretrained'
    assert after.object_.get_geometry() == before.object_.get_geometry()
    assert not np.array_equal(object_of(after), object_of(before))
    assert window.plotted_losses() == pytest.approx([loss.value for loss in after.losses])
    assert [loss.epoch for loss in after.losses] == [1, 2, 3]
    assert '4 sweeps + network + 1 sweep: R 0.' in said
    assert 'training' not in said
    assert not workers()


@pytest.mark.parametrize('backend', ['pytorch', pytest.param('tensorflow', marks=pytest.mark.slow)])
def test_export_train_infer_and_the_other_backend(window, photograph, tmp_path, backend):
    window.choose_algorithm(f'pinn_{backend}')
    window.export(tmp_path / 'scan.npz')
    window.choose_file(tmp_path)
    assert window.run(window.actions.train_button) is None
    assert read_bundle(tmp_path / 'model.zip').backend == backend
    assert window.actions.reconstruct_button.isEnabled()
    photograph(window, f'{backend}-trained')
    assert window.run(window.actions.reconstruct_button) is None
    first = window.product()
    assert [loss.epoch for loss in first.losses] == [1, 2, 3]
    assert window.plotted_losses() == pytest.approx([loss.value for loss in first.losses])

    window.choose_algorithm(f'pinn_{other(backend)}')
    window.choose_product(window.index)
    window.load_model(tmp_path / 'model.zip')
    assert window.run(window.actions.reconstruct_button) is None
    second = window.product()
    error = np.linalg.norm(object_of(first) - object_of(second))
    assert error < 1e-3 * np.linalg.norm(object_of(first))


def test_what_is_no_model_is_refused_in_plain_words(window, tmp_path, monkeypatch):
    file = tmp_path / 'photo.zip'
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('photo.jpg', b'no model')
    window.choose_algorithm('pinn_pytorch')
    with shown_errors(monkeypatch) as errors:
        window.load_model(file)
    [said] = errors
    assert said.startswith('Load Model: ')
    assert 'expected' in said
    assert 'Traceback' not in said


def test_a_model_of_ptychopinn_is_taken(window, tmp_path, monkeypatch):
    file = tmp_path / 'wts.h5.zip'
    window.choose_algorithm('pinn_tensorflow')
    file.write_bytes(zipped(small_keras_members()))
    with shown_errors(monkeypatch) as errors:
        window.load_model(file)
    assert errors == []
    assert window.actions.reconstruct_button.isEnabled()
    # The model is for 64 x 64 px, the scan has 32.
    error = window.run(window.actions.reconstruct_button)
    assert 'the model is for N = 64' in str(error)
    assert 'the model is for N = 64' in window.log


def test_settings_that_contradict_end_in_a_sentence(window):
    window.choose_algorithm('pinn_pytorch-fit')
    window.set(Model_Architecture='cnn')
    error = window.run(window.actions.reconstruct_button)
    sentence = "N = 32 is not supported by architecture 'cnn'; expected one of (64, 128, 256)"
    assert sentence in str(error)
    lines = [line for line in window.log.splitlines() if sentence in line]
    assert len(lines) == 1
    assert '[ERROR]' in lines[0]
    assert 'Traceback' not in window.log


@pytest.mark.parametrize(
    'key', ['pinn_pytorch-fit', pytest.param('pinn_tensorflow', marks=pytest.mark.slow)]
)
def test_stop_keeps_the_best(window, photograph, tmp_path, home, key):
    window.choose_algorithm(key)
    window.set(Training_NumEpochs=ENDLESS)
    if key.endswith('-fit'):
        button = window.actions.reconstruct_button
        file = home / '.ptychodus' / 'pinn' / 'pytorch-fit-model.zip'
    else:
        window.export(tmp_path / 'scan.npz')
        window.choose_file(tmp_path)
        button, file = window.actions.train_button, tmp_path / 'model.zip'
    said = window.log.count(f'epoch 3/{ENDLESS}')
    before = window.begin(button)
    assert window.wait(lambda: window.log.count(f'epoch 3/{ENDLESS}') > said, PATIENCE_S)
    assert window.status.progress_bar.isVisible()
    photograph(window, f'{key}-running')
    asked = time.monotonic()
    window.status.stop_button.click()
    monitor = window.api.task_monitor
    assert window.wait(lambda: monitor.get_completed_runs() > before, PATIENCE_S)
    assert time.monotonic() - asked < SECONDS_TO_STOP
    assert window.finish(before) is None
    assert 3 <= len(read_bundle(file).history) < ENDLESS
    assert 'training stopped; the model of epoch' in window.log


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_a_sentence(window):
    window.choose_algorithm('pinn_pytorch-fit')
    window.set(Training_NumEpochs=ENDLESS - 1)
    before = window.begin(window.actions.reconstruct_button)
    assert window.wait(lambda: f'epoch 2/{ENDLESS - 1}' in window.log, PATIENCE_S)
    [worker] = workers()
    worker.kill()
    killed = time.monotonic()
    error = window.finish(before, SECONDS_TO_NOTICE)
    assert time.monotonic() - killed < SECONDS_TO_NOTICE + 2
    assert 'killed by signal 9' in str(error)
    assert 'killed by signal 9' in window.log
    # With the same input the next one goes on.
    window.choose_product(window.index)
    before = window.begin(window.actions.reconstruct_button)
    assert window.wait(lambda: 'going on from the checkpoint' in window.log, PATIENCE_S)
    window.status.stop_button.click()
    assert window.finish(before) is None


SAVED = """
with main_window() as window:
    load(window, folder)
    window.choose_algorithm('pinn_tensorflow-fit')
    window.set(Training_NumEpochs=7, Model_Architecture='cnn', Training_LearningRate=0.004)
    window.model.settings_registry.save_settings(file)
"""
OPENED = """
with main_window(file) as window:
    assert window.model.processing_core.algorithm_parameter.get_value() == 'pinn_tensorflow-fit'
    spin_boxes = [box.value() for box in window.panel.findChildren(QSpinBox)]
    assert 7 in spin_boxes
    combo_boxes = [box.currentText() for box in window.panel.findChildren(QComboBox)]
    assert combo_boxes[0] == 'cnn'
    assert '0.004' in [line.text() for line in window.panel.findChildren(QLineEdit)]
"""


def test_settings_are_saved_and_opened(alone):
    alone(SAVED)
    alone(OPENED)


CLOSED = """
with main_window() as window:
    load(window, folder)
    window.choose_algorithm('pinn_pytorch-fit')
    window.set(**QUICK | {'Training_NumEpochs': 500})
    window.begin(window.actions.reconstruct_button)
    assert window.wait(lambda: 'epoch 1/500' in window.log, PATIENCE_S)
    closing = time.monotonic()
assert time.monotonic() - closing < 10
# In all that time no framework was loaded here.
assert not {'torch', 'tensorflow', 'lightning', 'keras'} & sys.modules.keys()
"""


def test_closing_does_not_wait_for_the_end(alone):
    alone(CLOSED)
    assert not workers()
