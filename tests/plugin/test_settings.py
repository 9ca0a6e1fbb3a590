"""Settings in Ptychodus' registry and settings file, and the run that is made from them."""

import logging
import re

import pytest
from ptychodus.api.settings import SettingsRegistry

from ptychodus_torch_plugin.config import InferenceConfig, ModelConfig, RunConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.integration.entries import AUTOMATIC, ENTRIES
from ptychodus_torch_plugin.integration.settings import PluginSettings

BY_PATH = {entry.path: entry for entry in ENTRIES}
OF_UNROLLED = {'training.thinnings'}
OF_CNN = {
    'model.gridsize',
    'model.model_type',
    'model.n_filters_scale',
    'model.amp_activation',
    'model.object_big',
    'model.probe_big',
    'model.pad_object',
    'model.probe_mask',
    'model.gaussian_smoothing_sigma',
    'training.batch_size',
    'training.n_groups',
    'training.neighbor_count',
    'training.nll_weight',
    'training.mae_weight',
    'training.tv_weight',
    'training.probe_trainable',
    'training.intensity_scale_trainable',
    'inference.patch_weighting',
    'inference.neighbor_count',
}
OF_ANY_TRAINING = {
    'training.objective',
    'training.epochs',
    'training.held_out_fraction',
    'training.seed',
    'execution.learning_rate',
    'execution.scheduler',
    'execution.early_stop_patience',
}
OF_ANY_NETWORK = {'model.sweeps_after', 'execution.precision', 'execution.logger_backend'}
LEFT_OUT = {
    'unrolled': OF_CNN,
    'cnn': OF_UNROLLED | {'model.sweeps_before'},
    'none': OF_UNROLLED | OF_CNN | OF_ANY_TRAINING | OF_ANY_NETWORK,
}
each_family = pytest.mark.parametrize('family', LEFT_OUT)


def opened(*lines, tmp_path):
    """Return the settings that Ptychodus reads from a file of these lines."""
    file = tmp_path / 'settings.ini'
    file.write_text('\n'.join(lines))
    registry = SettingsRegistry()
    settings = PluginSettings(registry)
    registry.open_settings(file)
    return settings


def with_values(**values):
    """Return settings with these values; '__' stands for '.'."""
    settings = PluginSettings(SettingsRegistry())
    for name, value in values.items():
        settings.parameters[name.replace('__', '.')].set_value(value)
    return settings


def another(entry):
    """Return an allowed value that is not the first one."""
    if entry.kind == 'boolean':
        return not entry.default
    if entry.kind == 'string':
        return next(choice for choice in reversed(entry.choices) if choice != entry.default)
    return entry.default + 2 if entry.kind == 'integer' else entry.default / 2 + 0.125


def changed_everywhere(family):
    registry = SettingsRegistry()
    settings = PluginSettings(registry)
    for entry in ENTRIES:
        settings.parameters[entry.path].set_value(another(entry))
    settings.parameters['model.architecture'].set_value(family)
    settings.parameters['model.model_type'].set_value('pinn')
    return registry, settings


def value_at(run, path):
    for name in path.split('.'):
        run = getattr(run, name)
    return run


@each_family
def test_without_a_choice_it_is_the_package_that_chooses(family):
    run = with_values(model__architecture=family).run_config('pytorch', 128)
    # But for a log of losses, which nobody who looks at them needs.
    logger = {} if family == 'none' else {'logger_backend': 'none'}
    values = {'model': {'architecture': family, 'N': 128}, 'execution': logger}
    expected = RunConfig.parse({'backend': 'pytorch', **values}, source='test')
    filled_in = run.training.for_model(run.model)
    assert run.model == expected.model
    assert filled_in == expected.training.for_model(expected.model)
    assert (run.backend, run.inference, run.execution) == (
        'pytorch',
        expected.inference,
        expected.execution,
    )


@each_family
def test_what_is_chosen_for_another_family_is_left_out(family):
    _, settings = changed_everywhere(family)
    run, defaults = settings.run_config('tensorflow', 64), RunConfig()
    decided = {'model.architecture', 'model.model_type'}
    for entry in (entry for entry in ENTRIES if entry.path not in decided):
        applies = entry.path not in LEFT_OUT[family]
        assert settings.applies(entry) == applies, entry.path
        if applies:
            assert value_at(run, entry.path) == another(entry), entry.path
        else:
            assert value_at(run, entry.path) == value_at(defaults, entry.path), entry.path
    assert run.model.N == 64


def test_a_settings_file_keeps_every_choice(tmp_path):
    registry, settings = changed_everywhere('cnn')
    file = tmp_path / 'settings.ini'
    registry.save_settings(file)
    text = file.read_text()
    assert '[PINNModel]\nArchitecture = cnn\nGridSize = 3\nNumSweepsBefore = 2\n' in text
    again = opened(text, tmp_path=tmp_path)
    for entry in ENTRIES:
        assert again.parameters[entry.path].get_value() == (
            settings.parameters[entry.path].get_value()
        )
    assert again.run_config('pytorch', 64) == settings.run_config('pytorch', 64)


def test_a_settings_file_may_name_a_few(tmp_path):
    lines = '[PINNModel]', 'numsweepsbefore = 7', '[PINNTraining]', 'Objective = poisson'
    run = opened(*lines, tmp_path=tmp_path).run_config('pytorch', 72)
    assert run.model == ModelConfig(N=72, sweeps_before=7)
    assert run.training == TrainingConfig(objective='poisson')


@pytest.mark.parametrize(
    ('path', 'number', 'family', 'expected'),
    [
        ('model.sweeps.probe_modes', 0, 'unrolled', None),
        ('model.sweeps.probe_modes', 2, 'unrolled', 2),
        ('inference.refine', -1, 'unrolled', None),
        ('inference.refine', 0, 'unrolled', 0),
        ('training.n_groups', 0, 'cnn', None),
    ],
)
def test_one_below_the_least_number_is_automatic(path, number, family, expected):
    settings = with_values(model__architecture=family, **{path.replace('.', '__'): number})
    assert value_at(settings.run_config('pytorch', 64), path) == expected


@pytest.mark.parametrize(
    ('values', 'n_px', 'message'),
    [
        (
            {'model__architecture': 'cnn'},
            72,
            "N = 72 is not supported by architecture 'cnn'; expected one of (64, 128, 256)",
        ),
        (
            {'model__architecture': 'cnn', 'training__objective': 'thinned'},
            64,
            "objective = 'thinned' is for architecture 'unrolled'",
        ),
        (
            {'model__architecture': 'cnn', 'training__nll_weight': 0.0},
            64,
            'expected nll_weight or mae_weight above 0',
        ),
        ({'execution__learning_rate': 0.0}, None, 'execution.learning_rate = 0.0: '),
    ],
)
def test_contradictions_are_refused_in_a_sentence(values, n_px, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        with_values(**values).run_config('pytorch', n_px)
    assert '\n' not in str(caught.value)


def test_a_network_trained_against_the_truth_has_no_weights_of_patterns():
    supervised = {'model__architecture': 'cnn', 'model__model_type': 'supervised'}
    settings = with_values(**supervised, training__mae_weight=0.5, training__tv_weight=0.25)
    assert not settings.applies(BY_PATH['training.nll_weight'])
    run = settings.run_config('pytorch', 64)
    weights = run.training.for_model(run.model)
    assert (weights.nll_weight, weights.mae_weight, weights.tv_weight) == (0.0, 0.0, 0.25)
    assert weights.realspace_mae_weight == 1.0


@pytest.mark.parametrize(
    ('section', 'key', 'allowed'),
    [
        ('PINNModel', 'Architecture', "'unrolled', 'cnn', 'none'"),
        (
            'PINNTraining',
            'Objective',
            "'automatic', 'thinned-objects', 'thinned', 'poisson'",
        ),
    ],
)
def test_an_unknown_choice_in_the_file_is_told_when_it_runs(tmp_path, section, key, allowed):
    settings = opened(f'[{section}]', f'{key} = Poison', tmp_path=tmp_path)
    message = f"{key} = 'Poison' in section [{section}] of the settings is not known; expected one"
    with pytest.raises(ConfigError, match=re.escape(f'{message} of {allowed}.')):
        settings.run_config('pytorch', 64)


def test_an_unknown_choice_that_means_nothing_disturbs_nobody(tmp_path):
    settings = opened('[PINNModel]', 'AmpActivation = tanh', tmp_path=tmp_path)
    assert settings.run_config('pytorch', 64).model == ModelConfig()
    settings.parameters['model.architecture'].set_value('cnn')
    with pytest.raises(ConfigError, match="AmpActivation = 'tanh'"):
        settings.run_config('pytorch', 64)


def test_numbers_of_the_file_are_kept_in_their_range(tmp_path):
    lines = '[PINNModel]', 'GridSize = 99', '[PINNTraining]', 'HeldOutFraction = 0.9'
    settings = opened(*lines, f'NumEpochs = {10**12}', tmp_path=tmp_path)
    values = {path: parameter.get_value() for path, parameter in settings.parameters.items()}
    assert values['model.gridsize'] == 8
    assert values['training.held_out_fraction'] == 0.5
    assert values['training.epochs'] == 2**31 - 1


def test_a_key_that_is_not_known_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        opened('[PINNTraining]', 'Epochs = 4', tmp_path=tmp_path)
    assert 'unrecognized setting "PINNTraining.epochs" = "4"' in caplog.text


def test_a_model_that_exists_needs_no_settings_for_training():
    settings = with_values(
        model__architecture='cnn',
        training__objective='thinned',  # a contradiction
        inference__neighbor_count=6,
        execution__num_threads=2,
    )
    of_cnn = settings.inference_config('pytorch')
    settings.parameters['model.architecture'].set_value('unrolled')
    assert settings.inference_config('pytorch') == of_cnn
    assert of_cnn.backend == 'pytorch'
    assert of_cnn.inference == InferenceConfig(neighbor_count=6)
    assert of_cnn.execution.num_threads == 2


@each_family
def test_the_pretrained_network_takes_sweeps_and_no_training(family):
    _, settings = changed_everywhere(family)
    run, defaults = settings.pretrained_config('tensorflow'), RunConfig(backend='tensorflow')
    left_out = OF_CNN | OF_ANY_TRAINING | OF_UNROLLED
    left_out |= {'model.architecture', 'execution.logger_backend'}
    for entry in ENTRIES:
        expected = value_at(defaults, entry.path) if entry.path in left_out else another(entry)
        assert value_at(run, entry.path) == expected, entry.path
    assert run.backend == 'tensorflow'


def test_names_are_unique_and_explained():
    places = [(entry.section, entry.key.lower()) for entry in ENTRIES]
    labels = [(entry.group, entry.label) for entry in ENTRIES]
    assert len(set(places)) == len(set(labels)) == len(BY_PATH) == len(ENTRIES)
    for entry in ENTRIES:
        assert entry.explanation.endswith('.')
        assert 'None' not in entry.explanation
        assert (AUTOMATIC in entry.range) == (entry.automatic is not None)


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('model.sweeps.refine_probe', 'Default: on.'),
        ('model.sweeps_after', 'Default: 0. Range: 0 or more.'),
        ('inference.refine', 'Default: automatic. Range: 0 or more, or -1 for automatic.'),
        ('training.objective', 'Default: automatic.'),
        ('execution.learning_rate', 'Default: 0.001. Range: above 0 to 1.'),
        ('training.held_out_fraction', 'Default: 0.1. Range: 0 to 0.5.'),
        ('execution.num_threads', 'Default: automatic. Range: 1 or more, or 0 for automatic.'),
    ],
)
def test_defaults_and_ranges_are_told(path, expected):
    assert BY_PATH[path].range == expected


def test_an_explanation_is_that_of_the_package():
    assert BY_PATH['model.sweeps.probe_modes'].explanation == (
        "Number of incoherent probe modes; 'automatic' takes as many as the scan has."
    )
    assert BY_PATH['training.nll_weight'].explanation == 'Weight of the Poisson likelihood.'
