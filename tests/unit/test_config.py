import json
import re

import pytest
import yaml
from pydantic import ValidationError

from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    RunConfig,
    SweepConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

SETTINGS = (
    SweepConfig,
    ModelConfig,
    TrainingConfig,
    InferenceConfig,
    ExecutionConfig,
    RunConfig,
)

SCHEDULERS = ('one-cycle', 'constant', 'exponential', 'warmup-cosine', 'plateau')

# No value is the default, whatever the defaults become; some mean nothing for 'cnn'.
FOR_UNROLLED = ModelConfig(channels=(5, 7, 11, 13), sweeps_before=17)
UNUSUAL = RunConfig(
    backend='pytorch',
    resume_from='trained/wts.h5.zip',
    model=ModelConfig(
        architecture='cnn',
        N=128,
        gridsize=3,
        model_type='supervised',
        n_filters_scale=5,
        amp_activation='swish',
        object_big=False,
        probe_big=False,
        pad_object=False,
        probe_mask=True,
        gaussian_smoothing_sigma=0.61,
        cbam_encoder=True,
        outer_channels=7,
        border_filters=163,
        input_scaling='scan',
        sweeps_after=19,
        sweeps=SweepConfig(
            damping_start=0.23,
            damping_end=0.29,
            momentum=0.31,
            deflection_gain=0.43,
            settling_sweeps=37,
            batch_size=41,
            refine_probe=False,
            probe_modes=5,
            probe_damping=0.43,
            probe_step=0.47,
            probe_momentum=0.53,
            refine_intensity=True,
            refine_positions=True,
        ),
    ),
    training=TrainingConfig(
        objective='poisson',
        epochs=59,
        patterns_per_step=61,
        window_px=67,
        thinnings=71,
        thinning_fraction=0.73,
        least_fraction=0.179,
        held_out_fraction=0.079,
        seed=89,
        batch_size=109,
        n_groups=113,
        n_subsample=127,
        neighbor_count=131,
        enable_oversampling=True,
        sequential_sampling=True,
        nll_weight=0.137,
        mae_weight=0.139,
        tv_weight=0.149,
        realspace_mae_weight=0.151,
        probe_trainable=True,
        intensity_scale_trainable=True,
    ),
    inference=InferenceConfig(
        refine=97,
        held_out_fraction=0.101,
        seed=103,
        neighbor_count=157,
        patch_weighting='uniform',
    ),
    execution=ExecutionConfig(
        accelerator='cpu',
        devices=2,
        num_nodes=3,
        strategy='ddp',
        precision='bf16-mixed',
        deterministic=False,
        num_threads=107,
        num_workers=3,
        pin_memory=True,
        persistent_workers=True,
        prefetch_factor=5,
        learning_rate=1e-5,
        scheduler='plateau',
        warmup_epochs=7,
        decay=0.83,
        min_lr_ratio=0.011,
        plateau_factor=0.13,
        plateau_patience=17,
        accum_steps=19,
        gradient_clip_val=None,
        enable_checkpointing=False,
        checkpoint_save_top_k=-1,
        checkpoint_monitor_metric='train_loss',
        checkpoint_mode='max',
        early_stop_patience=23,
        logger_backend='none',
        enable_progress_bar=True,
        inference_batch_size=29,
    ),
)


@pytest.mark.parametrize('settings', SETTINGS)
def test_settings_are_frozen_and_equal_by_value(settings):
    one, other = settings(), settings()
    assert one == other
    for field in settings.model_fields:
        with pytest.raises(ValidationError, match='frozen'):
            setattr(one, field, getattr(one, field))
    with pytest.raises(ValidationError):
        one.brand_new = 1


@pytest.mark.parametrize('settings', SETTINGS)
def test_every_setting_says_what_it_is(settings):
    for name, field in settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize('settings', SETTINGS)
def test_unknown_settings_are_refused(settings):
    with pytest.raises(ConfigError, match='here: gridsise is not a known setting'):
        settings.parse({'gridsise': 2}, source='here')


def test_one_message_lists_every_fault_with_its_place_and_value():
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(
            {
                'modell': {},
                'model': {'sweeps': {'momentum': 1.0, 'batchsize': 3}, 'channels': []},
                'training': {'epochs': 0, 'objective': 'magic'},
                'inference': {'refine': -1},
            },
            source='run.yaml',
        )
    message = str(caught.value)
    assert message.startswith('run.yaml: ')
    for fault in (
        'modell is not a known setting',
        'model.sweeps.batchsize is not a known setting',
        'model.sweeps.momentum = 1.0: ',
        'model.channels = []: ',
        'training.epochs = 0: ',
        "training.objective = 'magic': Input should be 'thinned-objects', 'thinned' or 'poisson'",
        'inference.refine = -1: ',
    ):
        assert fault in message
    assert message.count(';') == 6


@pytest.mark.parametrize('values', [None, 3, 'text', [1, 2]])
def test_settings_that_are_no_mapping_are_refused(values):
    with pytest.raises(ConfigError, match='settings = '):
        ModelConfig.parse(values)


@pytest.mark.parametrize(
    ('settings', 'field', 'good', 'bad'),
    [
        (SweepConfig, 'damping_start', (1e-3, 1.0), (0.0, 1.01, -0.1, float('nan'))),
        (SweepConfig, 'damping_end', (1e-3, 1.0), (0.0, 1.01)),
        (SweepConfig, 'momentum', (0.0, 0.99), (1.0, -0.1)),
        (SweepConfig, 'deflection_gain', (0.0, 1.0), (-0.1, 1.01)),
        (SweepConfig, 'settling_sweeps', (0, 5), (-1, 1.5)),
        (SweepConfig, 'batch_size', (1, 512), (0, -4, 2.5)),
        (SweepConfig, 'probe_modes', (None, 1, 7), (0, -1)),
        (SweepConfig, 'probe_damping', (0.1, 1.0), (0.0, 1.1)),
        (SweepConfig, 'probe_step', (0.1, 1.0), (0.0, 1.1)),
        (SweepConfig, 'probe_momentum', (0.0, 0.9), (1.0,)),
        (ModelConfig, 'architecture', ('unrolled', 'cnn', 'none'), ('unet', '', None)),
        (ModelConfig, 'channels', ((1,), (3, 2, 1, 4, 5, 6)), ((), (0,), (1,) * 7, (2, -1))),
        (ModelConfig, 'sweeps_before', (1, 40), (0,)),
        (ModelConfig, 'sweeps_after', (0, 40), (-1,)),
        (
            TrainingConfig,
            'objective',
            (None, 'thinned-objects', 'thinned', 'poisson'),
            ('mae', 'objects'),
        ),
        (TrainingConfig, 'epochs', (1,), (0,)),
        (TrainingConfig, 'patterns_per_step', (1,), (0,)),
        (TrainingConfig, 'window_px', (None, 64), (0,)),
        (TrainingConfig, 'thinnings', (None, 2), (0,)),
        (TrainingConfig, 'thinning_fraction', (0.01, 0.99), (0.0, 1.0)),
        (TrainingConfig, 'least_fraction', (None, 1e-4, 0.5), (0.0, -0.1, 0.51, 1.0)),
        (TrainingConfig, 'held_out_fraction', (0.0, 0.5), (0.51, -0.1)),
        (TrainingConfig, 'seed', (0, 2**40), (-1,)),
        (TrainingConfig, 'batch_size', (1, 512), (0, 1.5)),
        (TrainingConfig, 'n_groups', (None, 1), (0,)),
        (TrainingConfig, 'n_subsample', (None, 1), (0,)),
        (TrainingConfig, 'neighbor_count', (None, 1), (0,)),
        (TrainingConfig, 'nll_weight', (None, 0.0, 3.5), (-0.1, float('nan'))),
        (TrainingConfig, 'mae_weight', (0.0, 3.5), (-0.1, None)),
        (TrainingConfig, 'tv_weight', (0.0, 3.5), (-0.1,)),
        (TrainingConfig, 'realspace_mae_weight', (None, 0.0, 3.5), (-0.1,)),
        (InferenceConfig, 'refine', (None, 0, 30), (-1,)),
        (InferenceConfig, 'held_out_fraction', (0.0, 0.5), (0.51, 1.0, -0.1)),
        (InferenceConfig, 'seed', (0,), (-1,)),
        (InferenceConfig, 'neighbor_count', (None, 1), (0,)),
        (InferenceConfig, 'patch_weighting', ('probe', 'uniform'), ('hann',)),
        (ExecutionConfig, 'accelerator', ('auto', 'cpu', 'gpu', 'cuda', 'tpu', 'mps'), ('xpu',)),
        (ExecutionConfig, 'devices', (1, 4), (0, 'auto')),
        (ExecutionConfig, 'num_nodes', (1, 4), (0,)),
        (ExecutionConfig, 'precision', ('32-true', 'bf16-mixed'), ('64-true', 32)),
        (ExecutionConfig, 'num_threads', (None, 1), (0,)),
        (ExecutionConfig, 'num_workers', (0, 8), (-1,)),
        (ExecutionConfig, 'prefetch_factor', (None,), (0,)),
        (ExecutionConfig, 'learning_rate', (1e-9, 1.0), (0.0, 1.5, -1.0, float('inf'))),
        (ExecutionConfig, 'scheduler', SCHEDULERS, ('cosine', '', None, 3)),
        (ExecutionConfig, 'warmup_epochs', (0, 5), (-1,)),
        (ExecutionConfig, 'decay', (0.1, 1.0), (0.0, 1.01)),
        (ExecutionConfig, 'min_lr_ratio', (0.0, 0.99), (1.0, -0.1)),
        (ExecutionConfig, 'plateau_factor', (0.1, 0.99), (0.0, 1.0)),
        (ExecutionConfig, 'plateau_patience', (0, 9), (-1,)),
        (ExecutionConfig, 'accum_steps', (1, 9), (0,)),
        (ExecutionConfig, 'gradient_clip_val', (None, 0.5), (0.0, -1.0)),
        (ExecutionConfig, 'checkpoint_save_top_k', (-1, 0, 5), (-2,)),
        (ExecutionConfig, 'checkpoint_monitor_metric', (None, 'val_loss', 'train_loss'), ('loss',)),
        (ExecutionConfig, 'checkpoint_mode', ('min', 'max'), ('best',)),
        (ExecutionConfig, 'early_stop_patience', (1,), (0,)),
        (ExecutionConfig, 'logger_backend', ('csv', 'tensorboard', 'mlflow', 'none'), ('wandb',)),
        (ExecutionConfig, 'inference_batch_size', (None, 1), (0,)),
    ],
)
def test_ranges(settings, field, good, bad):
    for value in good:
        assert getattr(settings.parse({field: value}), field) == value
    for value in bad:
        with pytest.raises(ConfigError, match=field):
            settings.parse({field: value})


@pytest.mark.parametrize(
    ('field', 'good', 'bad'),
    [
        ('gridsize', (1, 2, 8), (0, 9, 1.5)),
        ('model_type', ('pinn', 'supervised'), ('autoencoder',)),
        ('n_filters_scale', (1, 16), (0, 17)),
        ('amp_activation', ('sigmoid', 'swish', 'softplus', 'relu'), ('tanh', None)),
        ('gaussian_smoothing_sigma', (0.0, 0.4, 10.0), (-0.1, 10.1, float('nan'))),
        ('outer_channels', (1, 63), (0, 64)),
        ('border_filters', (None, 1, 500), (0, -1)),
        ('input_scaling', ('training', 'scan'), ('draw', None)),
        ('N', (64, 128, 256), (8, 63)),
    ],
)
def test_ranges_of_cnn(field, good, bad):
    for value in good:
        assert getattr(ModelConfig(architecture='cnn', **{field: value}), field) == value
    for value in bad:
        with pytest.raises(ConfigError, match=field):
            ModelConfig.parse({'architecture': 'cnn', field: value})


def test_the_least_share_of_the_counts_is_no_more_than_the_largest():
    message = (
        'run.yaml: training: least_fraction = 0.3 is more than thinning_fraction = 0.2; expected '
        'at most as much'
    )
    values = {'thinning_fraction': 0.2, 'least_fraction': 0.3}
    with pytest.raises(ConfigError, match=re.escape(message)):
        RunConfig.parse({'training': values}, source='run.yaml')
    for least in (0.2, 1e-3):
        found = TrainingConfig.parse(values | {'least_fraction': least})
        assert (found.least_fraction, found.thinning_fraction) == (least, 0.2)


@pytest.mark.parametrize('n_px', [16, 64, 72, 200, 256, 1024])
def test_supported_sizes(n_px):
    assert ModelConfig.parse({'N': n_px}).to_json()['N'] == n_px


@pytest.mark.parametrize('n_px', [0, -64, 8, 12, 63, 65, 100, 1032])
def test_other_sizes_name_what_would_do(n_px):
    message = f'N = {n_px} is not supported; expected a multiple of 8 from 16 to 1024'
    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelConfig.parse({'N': n_px})


@pytest.mark.parametrize('suffix', ['.json', '.yaml', '.yml'])
@pytest.mark.parametrize(
    'config',
    [RunConfig(), UNUSUAL, RunConfig(model=FOR_UNROLLED)],
    ids=['default', 'unusual', 'unrolled'],
)
def test_a_run_survives_its_file(tmp_path, suffix, config):
    path = tmp_path / f'run{suffix}'
    config.save(path)
    assert RunConfig.load(path) == config
    text = path.read_text()
    assert (json.loads(text) if suffix == '.json' else yaml.safe_load(text)) == config.to_json()


def test_the_unusual_run_differs_from_the_default_everywhere():
    def leaves(values, prefix=''):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f'{prefix}{name}.')
            else:
                yield f'{prefix}{name}', value

    default, unusual = dict(leaves(RunConfig().to_json())), dict(leaves(UNUSUAL.to_json()))
    assert default.keys() == unusual.keys()
    same = {name for name in default if default[name] == unusual[name]}
    assert same == {'model.channels', 'model.sweeps_before'}
    other = FOR_UNROLLED.to_json()
    assert not [name for name in same if other[name.removeprefix('model.')] == default[name]]


def test_a_file_may_name_only_what_it_changes(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text('model:\n  N: 128\n  channels: [2, 3]\nexecution:\n  learning_rate: 2e-4\n')
    expected = RunConfig(
        model=ModelConfig(N=128, channels=(2, 3)), execution=ExecutionConfig(learning_rate=2e-4)
    )
    assert RunConfig.load(path) == expected


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('run.json', b'{"model": ', 'run.json is not valid JSON or YAML'),
        ('run.yaml', b'model: [1, 2', 'run.yaml is not valid JSON or YAML'),
        ('run.yaml', b'\xff\xfe\x00\x81', 'run.yaml is not valid JSON or YAML'),
        ('run.json', b'[1, 2]', 'run.json holds a list; expected named settings'),
        ('run.yaml', b'', 'run.yaml holds a NoneType; expected named settings'),
        ('run.yaml', b'model: {N: 60}', 'run.yaml: model: N = 60 is not supported'),
        ('run.yaml', b'model: {n: 64}', 'run.yaml: model.n is not a known setting'),
        ('run.yaml', b'!!python/object/apply:os.getcwd []', 'is not valid JSON or YAML'),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        RunConfig.load(path)


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / 'absent.yaml'
    with pytest.raises(InputNotFoundError, match=re.escape(f'{path} does not exist')):
        RunConfig.load(path)
    with pytest.raises(FileNotFoundError):
        RunConfig.load(tmp_path)


def test_settings_go_through_json_text_unchanged():
    text = json.dumps(UNUSUAL.to_json(), allow_nan=False)
    assert RunConfig.parse(json.loads(text)) == UNUSUAL


# Execution


@pytest.mark.parametrize(
    ('alias', 'scheduler'),
    [
        ('Default', 'constant'),
        ('OneCycle', 'one-cycle'),
        ('Exponential', 'exponential'),
        ('WarmupCosine', 'warmup-cosine'),
        ('ReduceLROnPlateau', 'plateau'),
    ],
)
def test_schedulers_have_other_names(alias, scheduler):
    for name in (alias, alias.upper(), alias.lower(), scheduler, scheduler.title()):
        assert ExecutionConfig(scheduler=name) == ExecutionConfig(scheduler=scheduler)


def test_an_unknown_scheduler_is_named_as_it_was_written():
    with pytest.raises(ConfigError, match="scheduler = 'Cosine': Input should be 'one-cycle'"):
        ExecutionConfig.parse({'scheduler': 'Cosine'})


@pytest.mark.parametrize('given', [{'persistent_workers': True}, {'prefetch_factor': 2}])
def test_settings_of_workers_need_workers(given):
    with pytest.raises(ConfigError) as caught:
        ExecutionConfig.parse(given)
    for words in (*(f'{name} = {value}' for name, value in given.items()), 'num_workers = 0'):
        assert words in str(caught.value)
    assert ExecutionConfig(num_workers=1, **given).num_workers == 1


OF_THE_MACHINE = {
    'accelerator',
    'devices',
    'num_nodes',
    'strategy',
    'deterministic',
    'num_threads',
    'num_workers',
    'pin_memory',
    'persistent_workers',
    'prefetch_factor',
    'enable_checkpointing',
    'checkpoint_save_top_k',
    'logger_backend',
    'enable_progress_bar',
    'inference_batch_size',
}


def test_the_course_of_training_is_all_that_is_not_of_the_machine():
    course = UNUSUAL.execution.course()
    assert course.keys() | OF_THE_MACHINE == ExecutionConfig.model_fields.keys()
    assert not course.keys() & OF_THE_MACHINE
    assert course.items() <= json.loads(json.dumps(UNUSUAL.execution.to_json())).items()


@pytest.mark.parametrize('settings', [ModelConfig, SweepConfig, TrainingConfig, InferenceConfig])
def test_what_belongs_to_the_execution_is_nowhere_else(settings):
    assert not settings.model_fields.keys() & ExecutionConfig.model_fields.keys()
