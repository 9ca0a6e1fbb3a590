"""The options of `train`, PtychoPINN's among them, and the settings that they change."""

import pytest

from ptychodus_torch_plugin.cli import train
from ptychodus_torch_plugin.cli.launching import environments
from ptychodus_torch_plugin.config import RunConfig


@pytest.fixture
def settings_of(monkeypatch, here, call, exported_file):
    """Return the settings of a training that does not take place, and what stands on stderr."""
    seen = []

    def take_note(folder, scans, run, display, **_):
        seen.append(run)
        return {'settings': {}}

    monkeypatch.setattr(train, 'train_into', take_note)

    def read(*arguments):
        ran = call('train', exported_file, *arguments, '--json')
        return seen[-1], ran.err

    return read


def value_at(run, path):
    for name in path.split('.'):
        run = getattr(run, name)
    return run


@pytest.mark.parametrize(
    ('arguments', 'path', 'value'),
    [
        ('--architecture none', 'model.architecture', 'none'),
        ('--n_images 33', 'training.n_groups', 33),
        ('--n_groups 34', 'training.n_groups', 34),
        ('--max_epochs 3', 'training.epochs', 3),
        ('--nepochs 4', 'training.epochs', 4),
        ('--epochs 5', 'training.epochs', 5),
        ('--gridsize 3', 'model.gridsize', 3),
        ('--batch_size 6', 'training.batch_size', 6),
        ('--n_subsample 44', 'training.n_subsample', 44),
        ('--neighbor_count 7', 'training.neighbor_count', 7),
        ('--enable_oversampling', 'training.enable_oversampling', True),
        ('--sequential_sampling', 'training.sequential_sampling', True),
        ('--n_filters_scale 1', 'model.n_filters_scale', 1),
        ('--amp_activation swish', 'model.amp_activation', 'swish'),
        ('--no-object_big', 'model.object_big', False),
        ('--no-probe_big', 'model.probe_big', False),
        ('--no-pad_object', 'model.pad_object', False),
        ('--probe_mask', 'model.probe_mask', True),
        ('--gaussian_smoothing_sigma 0.7', 'model.gaussian_smoothing_sigma', 0.7),
        ('--cbam_encoder', 'model.cbam_encoder', True),
        ('--outer_channels 5', 'model.outer_channels', 5),
        ('--border_filters 12', 'model.border_filters', 12),
        ('--input_scaling scan', 'model.input_scaling', 'scan'),
        ('--model_type supervised', 'model.model_type', 'supervised'),
        ('--nll_weight 0.5', 'training.nll_weight', 0.5),
        ('--mae_weight 0.25', 'training.mae_weight', 0.25),
        ('--tv_weight 1e-3', 'training.tv_weight', 1e-3),
        ('--realspace_mae_weight 0.1', 'training.realspace_mae_weight', 0.1),
        ('--probe_trainable', 'training.probe_trainable', True),
        ('--intensity_scale_trainable', 'training.intensity_scale_trainable', True),
        ('--learning-rate 1e-4', 'execution.learning_rate', 1e-4),
        ('--scheduler exponential', 'execution.scheduler', 'exponential'),
        ('--scheduler Default', 'execution.scheduler', 'constant'),
        ('--scheduler WarmupCosine', 'execution.scheduler', 'warmup-cosine'),
        ('--scheduler ReduceLROnPlateau', 'execution.scheduler', 'plateau'),
        ('--accumulate-grad-batches 2', 'execution.accum_steps', 2),
        ('--gradient-clip 0.3', 'execution.gradient_clip_val', 0.3),
        ('--early-stop-patience 8', 'execution.early_stop_patience', 8),
        ('--checkpoint-monitor train_loss', 'execution.checkpoint_monitor_metric', 'train_loss'),
        ('--checkpoint-mode max', 'execution.checkpoint_mode', 'max'),
        ('--checkpoint-save-top-k -1', 'execution.checkpoint_save_top_k', -1),
        ('--disable-checkpointing', 'execution.enable_checkpointing', False),
        ('--logger none', 'execution.logger_backend', 'none'),
        ('--accelerator tpu', 'execution.accelerator', 'tpu'),
        ('--no-deterministic', 'execution.deterministic', False),
        ('--devices 2', 'execution.devices', 2),
        ('--num-nodes 2', 'execution.num_nodes', 2),
        ('--strategy ddp', 'execution.strategy', 'ddp'),
        ('--num-workers 2 --persistent-workers', 'execution.persistent_workers', True),
        ('--num-workers 2 --prefetch-factor 3', 'execution.prefetch_factor', 3),
        ('--pin-memory', 'execution.pin_memory', True),
    ],
)
def test_an_option_changes_its_setting_and_no_other(
    settings_of, arguments, path, value, monkeypatch
):
    if path in ('execution.devices', 'execution.num_nodes'):  # as if others had been started
        for name, number in environments(2)[0].items():
            monkeypatch.setenv(name, number)
    base = [] if '--architecture' in arguments else ['--architecture', 'cnn']
    run, _ = settings_of(*base, *arguments.split())
    assert value_at(run, path) == value
    expected, _ = settings_of(*base)
    changed = [path, 'execution.num_workers'] if '--num-workers' in arguments else [path]
    assert differences(run.to_json(), expected.to_json()) == set(changed)


def differences(one, other, prefix=''):
    """Return the paths of the settings that differ."""
    found = set()
    for name in one:
        if isinstance(one[name], dict):
            found |= differences(one[name], other[name], f'{prefix}{name}.')
        elif one[name] != other[name]:
            found.add(f'{prefix}{name}')
    return found


REMARK = "means PtychoPINN's network: architecture cnn."


class TestGridsizeMeansCnn:
    def test_without_an_architecture(self, settings_of):
        run, err = settings_of('--gridsize', 2)
        assert (run.model.architecture, run.model.gridsize) == ('cnn', 2)
        assert f'--gridsize 2 {REMARK}' in err

    def test_with_a_run_file_that_names_none(self, settings_of, here):
        (here / 'run.yaml').write_text('model: {N: 64}')
        run, err = settings_of('--gridsize', 2, '--config', 'run.yaml')
        assert run.model.architecture == 'cnn'
        assert REMARK in err

    def test_with_an_architecture_there_is_nothing_to_say(self, settings_of, here):
        assert REMARK not in settings_of('--gridsize', 2, '--architecture', 'cnn')[1]
        (here / 'run.yaml').write_text('model: {architecture: cnn}')
        assert REMARK not in settings_of('--gridsize', 2, '--config', 'run.yaml')[1]

    def test_the_architecture_of_a_run_file_holds(self, here, fail, exported_file):
        RunConfig().save(here / 'run.json')
        ran = fail('train', exported_file, '--gridsize', 2, '--config', 'run.json')
        assert "gridsize = 2 is a setting of architecture 'cnn'" in ran.last
        assert "the architecture is 'unrolled'" in ran.last

    def test_a_quiet_command_does_not_say_it(self, settings_of):
        run, err = settings_of('--gridsize', 2, '--quiet')
        assert (run.model.architecture, err) == ('cnn', '')


class TestDeprecated:
    @pytest.mark.parametrize(
        ('arguments', 'path', 'value', 'warning'),
        [
            (
                '--device cuda',
                'execution.accelerator',
                'cuda',
                '--device is deprecated. Use --accelerator cuda.',
            ),
            (
                '--device cuda --accelerator cpu',
                'execution.accelerator',
                'cpu',
                '--device is deprecated, and --accelerator cpu wins over --device cuda.',
            ),
            (
                '--disable_mlflow',
                'execution.logger_backend',
                'none',
                '--disable_mlflow is deprecated. Use --logger none and --quiet.',
            ),
            (
                '--disable-mlflow --logger tensorboard',
                'execution.logger_backend',
                'tensorboard',
                '--disable_mlflow is deprecated, and --logger tensorboard wins over it.',
            ),
        ],
    )
    def test_one_warning_names_the_successor(self, settings_of, arguments, path, value, warning):
        run, err = settings_of(*arguments.split(), '--quiet')
        assert value_at(run, path) == value
        assert err.startswith(f'Warning: {warning}')
        assert err.count('\n') == 1

    def test_disable_mlflow_is_quiet(self, settings_of):
        assert settings_of('--disable_mlflow')[1].count('\n') == 1

    @pytest.mark.parametrize('command', ['train', 'infer'])
    def test_the_help_does_not_show_them(self, call, command):
        out = call(command, '--help').out
        assert '--accelerator' in out
        assert '--device ' not in out
        assert 'mlflow' not in out.replace('csv|tensorboard|mlflow|none', '')
