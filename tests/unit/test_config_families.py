"""Which settings go with which architecture, and what is filled in for it."""

import json
import re

import pytest

from ptychodus_torch_plugin.config import ModelConfig, RunConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError

# Settings of 'cnn' alone, each with a value that is not the default.
OF_CNN = {
    'gridsize': 2,
    'model_type': 'supervised',
    'n_filters_scale': 3,
    'amp_activation': 'relu',
    'object_big': False,
    'probe_big': False,
    'pad_object': False,
    'probe_mask': True,
    'gaussian_smoothing_sigma': 0.5,
    'cbam_encoder': True,
    'outer_channels': 3,
    'border_filters': 24,
    'input_scaling': 'scan',
}
OF_CNN_TRAINING = {
    'batch_size': 5,
    'n_groups': 512,
    'n_subsample': 300,
    'neighbor_count': 7,
    'enable_oversampling': True,
    'sequential_sampling': True,
    'nll_weight': 1.0,
    'mae_weight': 0.5,
    'tv_weight': 0.25,
    'realspace_mae_weight': 0.0,
    'probe_trainable': True,
    'intensity_scale_trainable': True,
}
OF_ANY = {'architecture', 'N', 'sweeps', 'sweeps_after', 'sweeps_before', 'channels'}
OF_ANY_TRAINING = {'objective', 'epochs', 'held_out_fraction', 'seed'}
OF_UNROLLED_TRAINING = {
    'patterns_per_step': 48,
    'window_px': 96,
    'thinnings': 3,
    'thinning_fraction': 0.25,
    'least_fraction': 0.125,
}

PINN = ModelConfig(architecture='cnn')
SUPERVISED = ModelConfig(architecture='cnn', model_type='supervised')
OBJECTIVES = ('thinned-objects', 'thinned', 'poisson')
WEIGHTS = ('nll_weight', 'mae_weight', 'tv_weight', 'realspace_mae_weight')


# Models


@pytest.mark.parametrize('n_px', [16, 72, 96, 192, 512])
def test_cnn_takes_few_sizes(n_px):
    message = (
        f"N = {n_px} is not supported by architecture 'cnn'; expected one of (64, 128, 256), or "
        "architecture 'unrolled'"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelConfig.parse({'architecture': 'cnn', 'N': n_px})


def test_a_file_with_the_number_of_sweeps_that_once_was_the_default_is_read():
    assert ModelConfig.parse({'architecture': 'cnn', 'sweeps_before': 20}).gridsize == 1
    with pytest.raises(ConfigError, match='sweeps_before = 21 is a setting of'):
        ModelConfig.parse({'architecture': 'cnn', 'sweeps_before': 21})


def test_a_channel_gate_needs_channels_to_squeeze():
    message = (
        'cbam_encoder squeezes 16 channels into one, but the first level of the encoder has 8; '
        'expected n_filters_scale = 2 or more for N = 256'
    )
    values = {'architecture': 'cnn', 'N': 256, 'cbam_encoder': True}
    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelConfig.parse({**values, 'n_filters_scale': 1})
    for others in ({'n_filters_scale': 2}, {'n_filters_scale': 1, 'N': 128}):
        assert ModelConfig.parse({**values, **others}).cbam_encoder


def test_the_outer_channels_leave_some_for_the_centre():
    values = {'architecture': 'cnn', 'n_filters_scale': 3}
    assert ModelConfig.parse({**values, 'outer_channels': 95}).outer_channels == 95
    message = (
        'outer_channels = 96 leaves none for the centre of the patch; expected fewer than '
        'n_filters_scale * 32 = 96'
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelConfig.parse({**values, 'outer_channels': 96})


def test_every_setting_has_its_family():
    """A new setting has to be told whether it means something for one family alone."""
    assert OF_CNN.keys() | OF_ANY == ModelConfig.model_fields.keys()
    of_training = OF_CNN_TRAINING.keys() | OF_UNROLLED_TRAINING.keys() | OF_ANY_TRAINING
    assert of_training == TrainingConfig.model_fields.keys()


@pytest.mark.parametrize('architecture', ['unrolled', 'none'])
@pytest.mark.parametrize('name', OF_CNN)
def test_settings_of_cnn_are_refused_elsewhere_by_both_names(architecture, name):
    value, default = OF_CNN[name], ModelConfig.model_fields[name].default
    message = (
        f"{name} = {value!r} is a setting of architecture 'cnn', but the architecture is "
        f"{architecture!r}; expected {name} = {default!r}, or architecture 'cnn'"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelConfig.parse({'architecture': architecture, name: value})
    assert getattr(ModelConfig(architecture=architecture, **{name: default}), name) == default


@pytest.mark.parametrize('architecture', ['unrolled', 'cnn', 'none'])
def test_nothing_follows_a_network_unless_it_is_asked_for(architecture):
    """A network takes noise out of an object; sweeps after it put it back."""
    for values, expected in (({}, 0), ({'sweeps_after': 3}, 3)):
        config = RunConfig.parse({'model': {'architecture': architecture, **values}}).model
        assert config.sweeps_after == expected
        assert ModelConfig.parse(json.loads(json.dumps(config.to_json()))) == config


def test_the_gridsize_decides_the_patterns_of_a_group():
    sizes = [ModelConfig(architecture='cnn', gridsize=g).patterns_per_group for g in (1, 2, 3)]
    assert sizes == [1, 4, 9]
    assert ModelConfig().patterns_per_group == 1


# Training settings for a model


@pytest.mark.parametrize('architecture', ['unrolled', 'none'])
@pytest.mark.parametrize(
    ('given', 'objective'),
    [(None, 'thinned-objects'), *((name, name) for name in OBJECTIVES)],
)
def test_the_objective_of_a_network_on_the_canvas(architecture, given, objective):
    training = TrainingConfig(objective=given, epochs=5)
    filled = training.for_model(ModelConfig(architecture=architecture))
    assert filled == TrainingConfig(objective=objective, epochs=5)
    assert training.objective == given


@pytest.mark.parametrize(
    ('objective', 'thins', 'compares'),
    [('thinned-objects', True, True), ('thinned', True, False), ('poisson', False, False)],
)
def test_what_an_objective_does_with_the_counts(objective, thins, compares):
    training = TrainingConfig(objective=objective)
    assert (training.thins_counts, training.compares_objects) == (thins, compares)


@pytest.mark.parametrize(
    ('model', 'given', 'expected'),
    [
        (PINN, {}, (1, 0, 0, 0)),
        (PINN, {'nll_weight': 0.0, 'mae_weight': 0.5}, (0, 0.5, 0, 0)),
        (PINN, {'tv_weight': 2.0, 'realspace_mae_weight': 0.25}, (1, 0, 2, 0.25)),
        (SUPERVISED, {}, (0, 0, 0, 1)),
        (SUPERVISED, {'tv_weight': 2.0, 'realspace_mae_weight': 0.25}, (0, 0, 2, 0.25)),
        (SUPERVISED, {'nll_weight': 0.0}, (0, 0, 0, 1)),
    ],
)
@pytest.mark.parametrize('objective', [None, 'poisson'])
def test_the_losses_of_cnn(model, given, expected, objective):
    filled = TrainingConfig(objective=objective, batch_size=7, **given).for_model(model)
    weights = dict(zip(WEIGHTS, expected, strict=True))
    assert filled == TrainingConfig(objective='poisson', batch_size=7, **weights)
    assert filled.for_model(model) == filled


@pytest.mark.parametrize(
    ('model', 'given', 'words'),
    [
        (PINN, {'objective': 'thinned'}, "objective = 'thinned' is for architecture 'unrolled'"),
        (PINN, {'objective': 'thinned-objects'}, "objective = 'thinned-objects' is for arch"),
        (PINN, {'nll_weight': 0.0}, 'nll_weight = 0, mae_weight = 0, .* nll_weight or mae_weight'),
        (PINN, {'nll_weight': 0.0, 'realspace_mae_weight': 1.0}, "a 'pinn' model .* 'supervised'"),
        (SUPERVISED, {'objective': 'thinned'}, "but the model is 'cnn'; expected 'poisson'"),
        (SUPERVISED, {'nll_weight': 1.0}, "nll_weight = 1, .* expected .* model_type = 'pinn'"),
        (SUPERVISED, {'mae_weight': 0.5}, "mae_weight = 0.5, .* a 'supervised' model"),
        (SUPERVISED, {'realspace_mae_weight': 0.0}, 'expected realspace_mae_weight above 0'),
    ],
)
def test_contradictions_with_cnn_are_refused(model, given, words):
    with pytest.raises(ConfigError, match=words):
        TrainingConfig(**given).for_model(model)


@pytest.mark.parametrize('architecture', ['unrolled', 'none'])
@pytest.mark.parametrize('name', OF_CNN_TRAINING)
def test_training_settings_of_cnn_are_refused_elsewhere(architecture, name):
    value = OF_CNN_TRAINING[name]
    message = (
        f"{name} = {value!r} is a setting of architecture 'cnn', but the model is {architecture!r}."
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainingConfig(**{name: value}).for_model(ModelConfig(architecture=architecture))


@pytest.mark.parametrize('name', OF_UNROLLED_TRAINING)
def test_training_settings_of_unrolled_are_refused_by_cnn(name):
    value = OF_UNROLLED_TRAINING[name]
    message = f"{name} = {value!r} is a setting of architecture 'unrolled', but the model is 'cnn'."
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainingConfig(**{name: value}).for_model(PINN)
    filled = TrainingConfig(**{name: value}).for_model(ModelConfig())
    assert getattr(filled, name) == value
