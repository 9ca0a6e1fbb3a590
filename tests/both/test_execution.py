"""Settings of the optimiser, of checkpoints and of loggers do what they say."""

import csv
import math
import sys
from importlib import import_module

import numpy as np
import pytest

from ptychodus_torch_plugin.errors import ConfigError, TrainingError
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

from .quick import STEPS, PowerCutError, assert_same_arrays, assert_same_run

EPOCHS = 4
SMALL = {'gridsize': 1, 'batch_size': 5, 'held_out_fraction': 0.2}
"""Of 25 patterns 4 groups of 5 remain."""


@pytest.fixture(scope='module')
def scan() -> ScanData:
    return simulate_scan(
        SimulationConfig(N=64, n_positions=25, object_kind='dead-leaves', photons=1e4, seed=8)
    )


@pytest.fixture
def watched(inside, monkeypatch):
    """The epoch, from 0, and the learning rate of every optimiser step."""
    return inside.watch_rates(monkeypatch)


def rates(watched):
    return [rate for _, rate in watched]


@pytest.mark.slow_in('tensorflow')
def test_constant(quick, noisy, watched):
    quick.fit(noisy, epochs=EPOCHS, scheduler='constant', learning_rate=1e-4)

    assert rates(watched) == pytest.approx([1e-4] * EPOCHS * STEPS)


def test_one_cycle_rises_and_falls(quick, noisy, watched):
    quick.fit(noisy, epochs=EPOCHS, scheduler='one-cycle', learning_rate=1e-4)

    found = rates(watched)
    top = int(np.argmax(found))
    assert len(found) == EPOCHS * STEPS
    assert found[top] == pytest.approx(1e-4, rel=0.01)
    assert 4 <= top <= 8
    assert np.all(np.diff(found[: top + 1]) > 0)
    assert np.all(np.diff(found[top:]) < 0)


@pytest.mark.slow_in('tensorflow')
def test_exponential(quick, noisy, watched):
    settings = {'scheduler': 'exponential', 'decay': 0.5, 'learning_rate': 1e-4}
    quick.fit(noisy, epochs=EPOCHS, **settings)

    assert [epoch for epoch, _ in watched] == list(np.repeat(range(EPOCHS), STEPS))
    assert rates(watched) == pytest.approx([1e-4 * 0.5**epoch for epoch, _ in watched])


@pytest.mark.slow_in('tensorflow')
def test_warm_up_and_cosine(quick, noisy, watched):
    quick.fit(
        noisy,
        epochs=EPOCHS,
        scheduler='warmup-cosine',
        warmup_epochs=1,
        min_lr_ratio=0.1,
        learning_rate=1e-4,
    )

    shares = np.array(rates(watched)) / 1e-4
    np.testing.assert_allclose(shares[:STEPS], np.arange(1, 7) / 7, rtol=1e-6)
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 18)) / 2 for k in range(18)]
    np.testing.assert_allclose(shares[STEPS:], falling, rtol=1e-6)


def test_plateau_falls_where_the_monitored_loss_stalls(inside, quick, noisy, watched, monkeypatch):
    # A loss that never gets better after the first epoch.
    inside.change_losses(monkeypatch, lambda loss, *, training: loss if training else 1.0)
    quick.fit(
        noisy,
        epochs=5,
        scheduler='plateau',
        plateau_factor=0.1,
        plateau_patience=1,
        min_lr_ratio=0.05,
        learning_rate=1e-4,
    )

    # Epochs 1, 2 and 3 stall; what follows would be 1e-6, but for the lowest rate.
    per_epoch = [1e-4, 1e-4, 1e-4, 1e-5, 1e-5]
    assert rates(watched) == pytest.approx(np.repeat(per_epoch, STEPS))


def test_clipping_shortens_what_adam_remembers(quick, noisy):
    free = quick.fit(noisy, epochs=1, gradient_clip_val=None).optimizer
    short = quick.fit(noisy, epochs=1, gradient_clip_val=1e-3).optimizer

    def size(moments):
        return math.sqrt(sum((m**2).sum() for n, m in moments.items() if n.startswith('exp_avg/')))

    assert size(short) < 1e-3 < size(free)


def test_accumulation_makes_one_step_of_several_batches(quick_cnn, scan, watched):
    whole = quick_cnn.fit(scan, epochs=1, **(SMALL | {'batch_size': 20}))
    assert len(watched) == 1
    watched.clear()
    parts = quick_cnn.fit(scan, epochs=1, accum_steps=4, **SMALL)

    assert len(watched) == 1
    assert parts.optimizer['step/phase.center.weight'] == 1
    for name, moment in whole.optimizer.items():
        scale = np.abs(moment).max()
        np.testing.assert_allclose(parts.optimizer[name], moment, atol=2e-3 * scale)


def test_what_is_left_at_the_end_of_an_epoch_makes_a_step_too(quick, noisy, watched):
    quick.fit(noisy, epochs=2, accum_steps=4)

    assert [epoch for epoch, _ in watched] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    'course',
    [
        {'scheduler': 'plateau', 'plateau_patience': 0, 'probe_trainable': True},
        pytest.param(
            {'scheduler': 'exponential', 'intensity_scale_trainable': True, 'accum_steps': 3},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {'scheduler': 'one-cycle', 'model_type': 'supervised'}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda course: course['scheduler'],
)
def test_a_killed_run_goes_on_to_the_same_loss_curve(quick_cnn, scan, tmp_path, course):
    settings = {'epochs': 3} | SMALL | course
    whole = quick_cnn.fit(scan, options={'checkpoint_dir': tmp_path / 'whole'}, **settings)

    def power_cut(event):
        if event.epoch == 3 and event.done == event.total - 1:
            raise PowerCutError

    folder = tmp_path / 'cut'
    with pytest.raises(PowerCutError):
        options = {'checkpoint_dir': folder, 'on_event': power_cut}
        quick_cnn.fit(scan, options=options, **settings)
    options = {'checkpoint_dir': folder, 'resume': True}
    assert_same_run(quick_cnn.fit(scan, options=options, **settings), whole)


def test_another_optimiser_is_another_run(quick, noisy, tmp_path):
    quick.fit(noisy, epochs=1, options={'checkpoint_dir': tmp_path})

    with pytest.raises(TrainingError, match='another run'):
        options = {'checkpoint_dir': tmp_path, 'resume': True}
        quick.fit(noisy, epochs=1, learning_rate=1e-5, options=options)


@pytest.mark.slow_in('tensorflow')
@pytest.mark.parametrize(('keep', 'expected'), [(1, 1), (2, 2), (-1, 4), (0, 0)])
def test_so_many_of_the_best_epochs_are_kept(inside, quick, noisy, tmp_path, keep, expected):
    options = {'checkpoint_dir': tmp_path}
    result = quick.fit(noisy, epochs=4, checkpoint_save_top_k=keep, options=options)

    assert len(list(tmp_path.glob('best*'))) == expected
    assert (tmp_path / inside.LAST).is_file()
    losses = [record.validation_loss for record in result.history]
    assert result.best_epoch == (4 if keep == 0 else int(np.argmin(losses)) + 1)
    quick.fit(noisy, epochs=1, checkpoint_save_top_k=1, options=options)
    assert len(list(tmp_path.glob('best*'))) == 1


def test_without_checkpoints_nothing_is_written_and_the_best_still_holds(quick, noisy, tmp_path):
    options = {'checkpoint_dir': tmp_path}
    one = quick.fit(noisy, epochs=2, enable_checkpointing=False, options=options)
    other = quick.fit(noisy, epochs=2)

    assert not any(tmp_path.iterdir())
    assert_same_arrays(one.model.export_weights(), other.model.export_weights())


@pytest.fixture(scope='module')
def until(quick, noisy):
    """A training of which the epoch with the lowest training loss is kept."""
    return quick.fit(noisy, epochs=3, checkpoint_monitor_metric='train_loss', checkpoint_mode='min')


@pytest.mark.parametrize(
    ('monitor', 'mode', 'best'),
    [('train_loss', 'min', min), ('train_loss', 'max', max), ('val_loss', 'max', max)],
)
def test_the_monitored_loss_says_which_epoch_is_best(quick, noisy, until, monitor, mode, best):
    result = quick.fit(noisy, epochs=3, checkpoint_monitor_metric=monitor, checkpoint_mode=mode)
    alone = [r.loss if monitor == 'train_loss' else r.validation_loss for r in result.history]

    assert alone[result.best_epoch - 1] == best(alone)
    same = result.best_epoch == until.best_epoch
    name = 'unet.head.weight'
    weights = [each.model.export_weights()[name] for each in (result, until)]
    assert np.array_equal(*weights) == same


def test_without_held_out_patterns_the_training_loss_is_monitored(quick, noisy):
    result = quick.fit(noisy, epochs=2, held_out_fraction=0.0)

    assert [record.validation_loss for record in result.history] == [None, None]
    assert result.best_epoch == 2


def test_training_stops_early(inside, quick, noisy, monkeypatch):
    # Not better is as bad as worse.
    inside.change_losses(monkeypatch, lambda loss, *, training: loss if training else 1.0)
    result = quick.fit(noisy, epochs=8, early_stop_patience=2)

    assert (result.stopped, result.best_epoch, len(result.history)) == ('patience', 1, 3)


def test_csv_logs_hold_the_losses(quick, noisy, tmp_path):
    options = {'log_dir': tmp_path / 'logs'}
    result = quick.fit(noisy, epochs=2, logger_backend='csv', options=options)

    [file] = (tmp_path / 'logs').rglob('metrics.csv')
    rows = list(csv.DictReader(file.read_text().splitlines()))
    for name in ('loss', 'val_loss'):
        found = [float(row[name]) for row in rows if row[name]]
        wanted = [r.loss if name == 'loss' else r.validation_loss for r in result.history]
        assert found == pytest.approx(wanted, rel=1e-6)


def test_every_run_logs_into_a_folder_of_its_own(quick, noisy, tmp_path):
    for epochs in (1, 2):
        options = {'log_dir': tmp_path / 'logs'}
        quick.fit(noisy, epochs=epochs, logger_backend='csv', options=options)

    files = sorted((tmp_path / 'logs').rglob('metrics.csv'))
    assert [file.parent.name for file in files] == ['version_0', 'version_1']
    assert len(files[0].read_text()) < len(files[1].read_text())


def test_tensorboard_gets_an_event_file(quick, noisy, tmp_path):
    options = {'log_dir': tmp_path / 'logs'}
    quick.fit(noisy, epochs=1, logger_backend='tensorboard', options=options)

    [file] = (tmp_path / 'logs').rglob('events.out.tfevents.*')
    assert b'val_loss' in file.read_bytes()


def test_no_logger_leaves_no_folder(quick, noisy, tmp_path):
    quick.fit(noisy, epochs=1, logger_backend='none', options={'log_dir': tmp_path / 'logs'})
    quick.fit(noisy, epochs=1, logger_backend='csv')

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('logger', ['tensorboard', 'mlflow'])
def test_a_logger_that_is_not_installed_is_refused_before_any_work(
    quick, noisy, tmp_path, monkeypatch, logger
):
    for package in ('tensorboard', 'tensorboardX', 'mlflow'):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f'pip install {logger}'):
        options = {'checkpoint_dir': tmp_path / 'new', 'log_dir': tmp_path / 'logs'}
        quick.fit(noisy, logger_backend=logger, options=options)

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    'setting',
    [
        {'devices': 2},
        {'strategy': 'teamwork'},
        *({'accelerator': kind} for kind in ('gpu', 'cuda', 'mps', 'tpu')),
    ],
    ids=str,
)
def test_a_machine_that_is_not_there_is_refused(inside, quick, noisy, monkeypatch, setting):
    inside.hide_gpu(monkeypatch)
    [(name, value)] = setting.items()
    with pytest.raises(ConfigError, match=f'{name} = {value!r}'):
        quick.fit(noisy, epochs=1, **setting)


def test_auto_says_nothing_without_a_gpu(
    inside, quick, noisy, tmp_path, monkeypatch, capfd, caplog
):
    inside.hide_gpu(monkeypatch)
    for resume in (False, True):
        options = {'checkpoint_dir': tmp_path, 'resume': resume}
        quick.fit(noisy, epochs=1, accelerator='auto', options=options)

    assert capfd.readouterr() == ('', '')
    assert not [r for r in caplog.records if r.levelname in ('WARNING', 'ERROR')]


def test_the_bar_of_the_framework_is_shown_on_request(quick, noisy, capfd):
    quick.fit(noisy, epochs=2, enable_progress_bar=True)

    assert 'Epoch' in capfd.readouterr().out


def test_the_backend_says_which_packages_compute(inside, quick):
    versions = {package: import_module(package).__version__ for package in inside.PACKAGES}
    assert quick.backend.versions() == versions
