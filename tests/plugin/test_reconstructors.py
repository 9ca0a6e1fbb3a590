"""What Ptychodus calls, without its window: fit, export, train, infer, load, save."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from ptychodus.api.reconstruct import TrainableReconstructor
from ptychodus.api.settings import SettingsRegistry

from ptychodus_torch_plugin import load_bundle, reconstruct, with_sweeps
from ptychodus_torch_plugin.backends.registry import Availability
from ptychodus_torch_plugin.bundle.archive import read_bundle
from ptychodus_torch_plugin.errors import BackendUnavailableError, BundleError, ConfigError
from ptychodus_torch_plugin.integration import workshop
from ptychodus_torch_plugin.integration.library import create_library
from ptychodus_torch_plugin.integration.scans import scan_of

from .conftest import choose
from .installed import write_metadata

BACKENDS = ('pytorch', 'tensorflow')


def other(backend):
    return BACKENDS[1 - BACKENDS.index(backend)]


def last(outputs):
    *_, found = outputs
    return found


def object_of(output):
    return output.product.object_.get_array()[0]


def test_each_backend_has_three(library, reconstructors):
    assert library.name == 'PINN'
    trainable = {n: isinstance(r, TrainableReconstructor) for n, r in reconstructors.items()}
    assert trainable == {
        'tensorflow': True,
        'tensorflow-fit': False,
        'tensorflow-pretrained': False,
        'pytorch': True,
        'pytorch-fit': False,
        'pytorch-pretrained': False,
    }
    assert library.availability.keys() == trainable.keys()


# In the window both are tried with both backends.
@pytest.mark.parametrize('backend', ['pytorch'])
def test_a_fit_trains_on_the_scan_and_keeps_its_model(reconstructors, handed, tmp_path, backend):
    outputs = list(reconstructors[f'{backend}-fit'].reconstruct(handed))
    assert [output.progress for output in outputs] == sorted(o.progress for o in outputs)
    product = outputs[-1].product
    assert outputs[-1].progress == reconstructors[f'{backend}-fit'].get_progress_goal()
    assert [loss.epoch for loss in product.losses] == [1, 2]
    assert product.object_.get_geometry() == handed.product.object_.get_geometry()
    assert product.metadata.name == handed.product.metadata.name
    counts = scan_of(handed).mean_counts()
    assert product.metadata.probe_photon_count == pytest.approx(counts, rel=0.2)

    bundle = tmp_path / 'home' / '.ptychodus' / 'pinn' / f'{backend}-fit-model.zip'
    assert read_bundle(bundle).backend == backend
    reconstructors[other(backend)].load_model_from_file(bundle)
    found = object_of(last(reconstructors[other(backend)].reconstruct(handed)))
    error = np.linalg.norm(found - object_of(outputs[-1])) / np.linalg.norm(found)
    assert error < 1e-3


@pytest.mark.parametrize('backend', ['pytorch'])
def test_the_pretrained_network_stands_between_the_sweeps_asked_for(
    library, reconstructors, handed, tmp_path, caplog, backend
):
    caplog.set_level(logging.INFO)
    choose(library, **{'model.sweeps.refine_probe': False, 'model.architecture': 'cnn'})
    outputs = list(reconstructors[f'{backend}-pretrained'].reconstruct(handed))
    assert outputs[-1].progress == reconstructors[f'{backend}-pretrained'].get_progress_goal()
    assert 'measured: 4 sweeps + network + 1 sweep: R 0.' in caplog.text
    product, scan = outputs[-1].product, scan_of(handed)
    assert product.object_.get_geometry() == handed.product.object_.get_geometry()

    shipped = load_bundle('pretrained', backend=backend)
    model = with_sweeps(shipped, sweeps_before=4, sweeps_after=1, refine_probe=False)
    expected = reconstruct(model, scan)
    losses = [(loss.epoch, loss.value) for loss in product.losses]
    assert losses == [
        (stage, pytest.approx(r, rel=1e-3))
        for stage, r in enumerate(expected.r_fitted.values(), start=1)
    ]
    error = np.linalg.norm(object_of(outputs[-1]) - expected.object_)
    assert error < 1e-3 * np.linalg.norm(expected.object_)
    assert not list((tmp_path / 'home').rglob('*.zip'))


@pytest.mark.parametrize('backend', ['tensorflow'])
def test_export_train_infer(reconstructors, handed, tmp_path, caplog, backend):
    caplog.set_level(logging.INFO)
    mine = reconstructors[backend]
    assert not mine.is_model_loaded()
    (tmp_path / 'data').mkdir()
    for name in ('first.npz', 'test_data'):
        mine.export_training_data(tmp_path / 'data' / name, handed)
    outputs = list(mine.train(tmp_path / 'data', tmp_path / 'out'))
    assert mine.is_model_loaded()
    assert [loss.epoch for loss in outputs[-1].training_loss] == [1, 2]
    assert outputs[-1].progress == mine.get_progress_goal()
    said = caplog.messages
    assert any(line.startswith('epoch 1/2, loss') for line in said)
    assert any(line.startswith('test_data: 4 sweeps + network + 1 sweep: R 0.') for line in said)
    assert {file.name for file in (tmp_path / 'out').iterdir()} == {'model.zip'}

    model = load_bundle(tmp_path / 'out' / 'model.zip', backend=backend)
    (tmp_path / 'out' / 'model.zip').unlink()  # or another training writes its own there
    first = last(mine.reconstruct(handed))
    assert [(x.epoch, x.value) for x in first.product.losses] == [
        (record.epoch, record.loss) for record in model.history
    ]
    mine.save_model(tmp_path / 'copy.zip')
    theirs = reconstructors[other(backend)]
    theirs.load_model_from_file(tmp_path / 'copy.zip')
    second = last(theirs.reconstruct(handed))
    assert np.linalg.norm(object_of(first) - object_of(second)) < 1e-3 * np.linalg.norm(
        object_of(first)
    )


def test_many_scans_of_one_folder(library, reconstructors, handed, tmp_path):
    choose(library, **{'execution.logger_backend': 'csv'})
    mine = reconstructors['pytorch']
    mine.export_training_data(tmp_path / 'a.npz', handed)
    shutil.copy(tmp_path / 'a.npz', tmp_path / 'b.npz')
    last(mine.train(tmp_path, tmp_path))
    scans = read_bundle(tmp_path / 'model.zip').provenance['scans']
    assert [scan['name'] for scan in scans] == ['a', 'b']
    assert list((tmp_path / 'model-logs').rglob('metrics.csv'))


@pytest.mark.slow
def test_sweeps_alone_need_no_training(library, reconstructors, handed):
    choose(library, **{'model.architecture': 'none'})
    product = last(reconstructors['pytorch-fit'].reconstruct(handed)).product
    [loss] = product.losses
    assert 0.1 < loss.value < 0.5


def test_settings_that_contradict_are_refused_before_any_work(
    library, reconstructors, handed, folder, tmp_path, caplog, monkeypatch
):
    choose(library, **{'model.architecture': 'cnn', 'training.objective': 'thinned'})
    monkeypatch.setattr(workshop, 'Child', pytest.fail)
    for run in (
        reconstructors['pytorch-fit'].reconstruct(handed),
        reconstructors['pytorch'].train(folder, tmp_path / 'out'),
    ):
        caplog.clear()
        with pytest.raises(ConfigError):
            last(run)
        [line] = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
        assert "'cnn'" in line
        assert '\n' not in line
    assert not (tmp_path / 'out').exists()


def test_without_a_model_there_is_one_sentence(reconstructors, handed, caplog):
    with pytest.raises(ConfigError, match=r'no model; expected one\. Choose Train'):
        last(reconstructors['pytorch'].reconstruct(handed))
    assert 'pytorch-fit' in caplog.text
    assert 'pytorch-pretrained, which needs no training' in caplog.text
    with pytest.raises(ConfigError, match='no model to save'):
        reconstructors['pytorch'].save_model(Path('model.zip'))


def test_what_is_no_model_is_refused_and_the_old_one_stays(reconstructors, tmp_path):
    file = tmp_path / 'model.zip'
    file.write_bytes(b'PK no archive')
    with pytest.raises(BundleError):
        reconstructors['pytorch'].load_model_from_file(file)
    assert not reconstructors['pytorch'].is_model_loaded()


def test_a_backend_that_cannot_be_used_says_why(handed, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv('HOME', str(tmp_path))
    reason = Availability(False, reason='no such framework', hint='pip install it')
    monkeypatch.setattr(
        'ptychodus_torch_plugin.integration.library.available_backends',
        lambda: {'pytorch': Availability(True), 'tensorflow': reason},
    )
    library = create_library(SettingsRegistry())
    assert library.availability['tensorflow-fit'] == reason
    for name in ('tensorflow', 'tensorflow-fit', 'tensorflow-pretrained'):
        [lame] = [each for each in library if each.name == name]
        assert isinstance(lame, TrainableReconstructor) == (name == 'tensorflow')
        uses = [lambda lame=lame: list(lame.reconstruct(handed))]
        if name == 'tensorflow':
            assert not lame.is_model_loaded()
            uses += [
                lambda lame=lame: list(lame.train(tmp_path, tmp_path)),
                lambda lame=lame: lame.load_model_from_file(tmp_path / 'model.zip'),
                lambda lame=lame: lame.save_model(tmp_path / 'model.zip'),
                lambda lame=lame: lame.export_training_data(tmp_path / 'scan.npz', handed),
            ]
        for use in uses:
            caplog.clear()
            with pytest.raises(BackendUnavailableError, match=r'no such framework\. .*pip install'):
                use()
            assert 'no such framework' in caplog.text


def test_dropping_the_iterator_keeps_the_best(library, reconstructors, handed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    choose(library, **{'training.epochs': 500})
    outputs = reconstructors['pytorch-fit'].reconstruct(handed)
    for output in outputs:
        if output.product.losses:
            break
    outputs.close()
    bundle = tmp_path / 'home' / '.ptychodus' / 'pinn' / 'pytorch-fit-model.zip'
    assert read_bundle(bundle).history
    assert 'training stopped; the model of epoch' in caplog.text


@pytest.mark.slow
def test_the_bar_moves_and_a_stop_is_heard(library, reconstructors, handed):
    choose(library, **{'training.epochs': 500})
    moves = []
    library.attach(lambda: len(moves) > 8, lambda done, goal: moves.append((done, goal)))
    product = last(reconstructors['pytorch-fit'].reconstruct(handed)).product
    assert moves == sorted(moves)
    assert {goal for _, goal in moves} == {100}
    assert not np.array_equal(product.object_.get_array(), handed.product.object_.get_array())


def test_a_backend_of_another_package_appears_and_computes(handed, tmp_path, monkeypatch):
    source = Path(__file__).parents[1] / 'unit' / 'third_party' / 'numpy_demo.py'
    shutil.copy(source, tmp_path)
    entry = '[ptychodus_torch_plugin.backends]\nnumpy-demo = numpy_demo:NumpyBackend\n'
    write_metadata(tmp_path, 'numpy_demo', '1.0', entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    library = create_library(SettingsRegistry())
    choose(library, **{'model.architecture': 'none', 'model.sweeps_before': 3})
    found = {each.name: each for each in library}
    assert {'numpy-demo', 'numpy-demo-fit', 'pytorch'} <= found.keys()
    product = last(found['numpy-demo-fit'].reconstruct(handed)).product
    assert 0.1 < product.losses[-1].value < 0.6
    with pytest.raises(ConfigError, match='numpy-demo has no network'):
        last(found['numpy-demo-pretrained'].reconstruct(handed))
