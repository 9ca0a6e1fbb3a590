"""Settings of the optimiser, of checkpoints and of loggers do what they say."""

import csv
import math
import sys

import numpy as np
import pytest
import torch

from ptychodus_torch_plugin.backends.torch.backend import TorchBackend
from ptychodus_torch_plugin.backends.torch.cnn_training import CnnTraining
from ptychodus_torch_plugin.errors import ConfigError, TrainingError
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan

from .small import assert_equal_weights, fit

SMALL = {'gridsize': 1, 'batch_size': 5, 'held_out_fraction': 0.2}
EPOCHS, STEPS = 4, 4  # of 20 patterns 4 groups of 5 remain


@pytest.fixture(scope='module')
def scan() -> ScanData:
    return simulate_scan(
        SimulationConfig(N=64, n_positions=25, object_kind='dead-leaves', photons=1e4, seed=8)
    )


class Watch:
    """The learning rate at every optimiser step, and its epoch."""

    def __init__(self, monkeypatch):
        self.rates, self.epochs = [], []
        real = CnnTraining.on_before_optimizer_step

        def before(module, optimizer):
            self.rates.append(optimizer.param_groups[0]['lr'])
            self.epochs.append(module.current_epoch)
            return real(module, optimizer)

        monkeypatch.setattr(CnnTraining, 'on_before_optimizer_step', before)


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def test_constant(scan, watch):
    fit(scan, epochs=EPOCHS, scheduler='constant', learning_rate=1e-4, **SMALL)

    assert watch.rates == [1e-4] * EPOCHS * STEPS


def test_one_cycle_rises_and_falls(scan, watch):
    fit(scan, epochs=EPOCHS, scheduler='one-cycle', learning_rate=1e-4, **SMALL)

    top = int(np.argmax(watch.rates))
    assert len(watch.rates) == EPOCHS * STEPS
    assert watch.rates[top] == pytest.approx(1e-4, rel=0.01)
    assert 2 <= top <= 6
    assert np.all(np.diff(watch.rates[: top + 1]) > 0)
    assert np.all(np.diff(watch.rates[top:]) < 0)


def test_exponential(scan, watch):
    fit(scan, epochs=EPOCHS, scheduler='exponential', decay=0.5, learning_rate=1e-4, **SMALL)

    assert watch.rates == pytest.approx([1e-4 * 0.5**epoch for epoch in watch.epochs])
    assert max(watch.epochs) == EPOCHS - 1


def test_warm_up_and_cosine(scan, watch):
    fit(
        scan,
        epochs=EPOCHS,
        scheduler='warmup-cosine',
        warmup_epochs=1,
        min_lr_ratio=0.1,
        learning_rate=1e-4,
        **SMALL,
    )

    shares = np.array(watch.rates) / 1e-4
    np.testing.assert_allclose(shares[:4], [0.2, 0.4, 0.6, 0.8])
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 12)) / 2 for k in range(12)]
    np.testing.assert_allclose(shares[4:], falling)


def test_plateau_falls_where_the_monitored_loss_stalls(scan, watch, monkeypatch):
    real = CnnTraining.log_loss
    # A loss that never gets better after the first epoch.
    stalled = {'val_loss': 1.0}

    def log_loss(self, name, loss, n_patterns):
        real(
            self,
            name,
            torch.full_like(loss, stalled[name]) if name in stalled else loss,
            n_patterns,
        )

    monkeypatch.setattr(CnnTraining, 'log_loss', log_loss)
    fit(
        scan,
        epochs=5,
        scheduler='plateau',
        plateau_factor=0.1,
        plateau_patience=1,
        min_lr_ratio=0.05,
        learning_rate=1e-4,
        **SMALL,
    )

    per_epoch = [watch.rates[watch.epochs.index(epoch)] for epoch in range(5)]
    # Epochs 1, 2 and 3 stall; what follows would be 1e-6, but for the lowest rate.
    assert per_epoch == pytest.approx([1e-4, 1e-4, 1e-4, 1e-5, 1e-5])


def test_clipping_shortens_what_adam_remembers(scan):
    free = fit(scan, epochs=1, gradient_clip_val=None, **SMALL).optimizer
    short = fit(scan, epochs=1, gradient_clip_val=1e-3, **SMALL).optimizer

    def size(moments):
        return math.sqrt(sum((m**2).sum() for n, m in moments.items() if n.startswith('exp_avg/')))

    assert size(short) < 1e-3 < size(free)


def test_accumulation_makes_one_step_of_several_batches(scan, watch):
    whole = fit(scan, epochs=1, **(SMALL | {'batch_size': 20}))
    assert len(watch.rates) == 1
    watch.rates.clear()
    parts = fit(scan, epochs=1, accum_steps=4, **SMALL)

    assert len(watch.rates) == 1
    assert parts.optimizer['step/phase.center.weight'] == 1
    for name, moment in whole.optimizer.items():
        scale = np.abs(moment).max()
        np.testing.assert_allclose(parts.optimizer[name], moment, atol=2e-3 * scale)


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize(
    'course',
    [
        {'gridsize': 2, 'scheduler': 'warmup-cosine', 'accum_steps': 2},
        {'scheduler': 'plateau', 'plateau_patience': 0, 'probe_trainable': True},
        {'scheduler': 'exponential', 'intensity_scale_trainable': True},
        {'scheduler': 'one-cycle', 'model_type': 'supervised'},
    ],
    ids=str,
)
def test_a_killed_run_goes_on_to_the_same_loss_curve(scan, tmp_path, course):
    settings = {'epochs': 3} | SMALL | course
    whole = fit(scan, options={'checkpoint_dir': tmp_path / 'whole'}, **settings)

    def power_cut(event):
        if event.epoch == 3 and event.done == event.total - 1:
            raise PowerCutError

    folder = tmp_path / 'cut'
    with pytest.raises(PowerCutError):
        fit(scan, options={'checkpoint_dir': folder, 'on_event': power_cut}, **settings)
    resumed = fit(scan, options={'checkpoint_dir': folder, 'resume': True}, **settings)

    assert resumed.history == whole.history
    assert_equal_weights(resumed, whole)
    np.testing.assert_array_equal(resumed.model.calibration.probe, whole.model.calibration.probe)
    assert resumed.optimizer.keys() == whole.optimizer.keys()
    for name, moment in whole.optimizer.items():
        np.testing.assert_array_equal(resumed.optimizer[name], moment)


def test_another_optimiser_is_another_run(scan, tmp_path):
    fit(scan, epochs=1, options={'checkpoint_dir': tmp_path}, **SMALL)

    with pytest.raises(TrainingError, match='another run'):
        options = {'checkpoint_dir': tmp_path, 'resume': True}
        fit(scan, epochs=1, learning_rate=1e-5, options=options, **SMALL)


@pytest.mark.parametrize(('keep', 'expected'), [(1, 1), (2, 2), (-1, 4), (0, 0)])
def test_so_many_of_the_best_epochs_are_kept(scan, tmp_path, keep, expected):
    options = {'checkpoint_dir': tmp_path}
    result = fit(scan, epochs=4, checkpoint_save_top_k=keep, options=options, **SMALL)

    assert len(list(tmp_path.glob('best*.ckpt'))) == expected
    assert (tmp_path / 'last.ckpt').is_file()
    losses = [record.validation_loss for record in result.history]
    assert result.best_epoch == (4 if keep == 0 else int(np.argmin(losses)) + 1)
    fit(scan, epochs=1, checkpoint_save_top_k=1, options=options, **SMALL)
    assert len(list(tmp_path.glob('best*.ckpt'))) == 1


def test_without_checkpoints_nothing_is_written_and_the_best_still_holds(scan, tmp_path):
    options = {'checkpoint_dir': tmp_path}
    one = fit(scan, epochs=2, enable_checkpointing=False, options=options, **SMALL)
    other = fit(scan, epochs=2, **SMALL)

    assert not any(tmp_path.iterdir())
    assert_equal_weights(one, other)


@pytest.mark.parametrize(
    ('monitor', 'mode', 'best'),
    [('train_loss', 'min', min), ('train_loss', 'max', max), ('val_loss', 'max', max)],
)
def test_the_monitored_loss_says_which_epoch_is_best(scan, monitor, mode, best):
    result = fit(scan, epochs=3, checkpoint_monitor_metric=monitor, checkpoint_mode=mode, **SMALL)
    alone = [r.loss if monitor == 'train_loss' else r.validation_loss for r in result.history]

    assert alone[result.best_epoch - 1] == best(alone)
    until = fit(
        scan, epochs=3, checkpoint_monitor_metric='train_loss', checkpoint_mode='min', **SMALL
    )
    same = result.best_epoch == until.best_epoch
    name = 'phase.center.weight'
    weights = [each.model.export_weights()[name] for each in (result, until)]
    assert np.array_equal(*weights) == same


def test_without_held_out_patterns_the_training_loss_is_monitored(scan):
    result = fit(scan, epochs=2, **(SMALL | {'held_out_fraction': 0.0}))

    assert [record.validation_loss for record in result.history] == [None, None]
    assert result.best_epoch == 2


def test_training_stops_early(scan):
    settings = {'epochs': 8, 'checkpoint_mode': 'max', 'early_stop_patience': 2}
    result = fit(scan, **settings, **SMALL)  # the highest loss is that of the first epoch

    assert result.stopped == 'patience'
    assert len(result.history) == result.best_epoch + 2 < 8


def test_csv_logs_hold_the_losses(scan, tmp_path):
    options = {'log_dir': tmp_path / 'logs'}
    result = fit(scan, epochs=2, logger_backend='csv', options=options, **SMALL)

    [file] = (tmp_path / 'logs').rglob('metrics.csv')
    rows = list(csv.DictReader(file.read_text().splitlines()))
    for name in ('loss', 'val_loss'):
        found = [float(row[name]) for row in rows if row[name]]
        wanted = [r.loss if name == 'loss' else r.validation_loss for r in result.history]
        assert found == pytest.approx(wanted, rel=1e-6)


def test_tensorboard_gets_an_event_file(scan, tmp_path):
    options = {'log_dir': tmp_path / 'logs'}
    fit(scan, epochs=1, logger_backend='tensorboard', options=options, **SMALL)

    [file] = (tmp_path / 'logs').rglob('events.out.tfevents.*')
    assert b'val_loss' in file.read_bytes()


def test_no_logger_leaves_no_folder(scan, tmp_path):
    fit(scan, epochs=1, logger_backend='none', options={'log_dir': tmp_path / 'logs'}, **SMALL)
    fit(scan, epochs=1, logger_backend='csv', **SMALL)

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('logger', ['tensorboard', 'mlflow'])
def test_a_logger_that_is_not_installed_is_refused_before_any_work(
    scan, tmp_path, monkeypatch, logger
):
    for package in ('tensorboard', 'tensorboardX', 'mlflow'):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f'pip install {logger}'):
        options = {'checkpoint_dir': tmp_path / 'new', 'log_dir': tmp_path / 'logs'}
        fit(scan, logger_backend=logger, options=options, **SMALL)

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ({'devices': 2}, 'devices = 2'),
        ({'strategy': 'teamwork'}, 'teamwork'),
        ({'accelerator': 'tpu'}, "accelerator = 'tpu'"),
    ],
    ids=str,
)
def test_a_machine_that_is_not_there_is_refused(scan, setting, message):
    with pytest.raises(ConfigError, match=message):
        fit(scan, epochs=1, **setting, **SMALL)


def test_auto_says_nothing_without_a_gpu(scan, capfd, caplog):
    fit(scan, epochs=1, accelerator='auto', **SMALL)

    out, err = capfd.readouterr()
    assert out == err == ''
    assert not [r for r in caplog.records if r.levelname in ('WARNING', 'ERROR')]


def test_the_backend_says_which_packages_compute():
    assert set(TorchBackend().versions()) == {'torch', 'lightning'}
