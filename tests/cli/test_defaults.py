"""The defaults and choices that the options state are those of the settings."""

import dataclasses
import types
from typing import Union, get_args, get_origin, get_type_hints

import pytest

from ptychodus_torch_plugin.cli.cnn_options import CnnOptions
from ptychodus_torch_plugin.cli.demo import DemoReadingOptions
from ptychodus_torch_plugin.cli.execution_options import AllExecutionOptions
from ptychodus_torch_plugin.cli.inference_options import InferenceOptions, SweepOptions
from ptychodus_torch_plugin.cli.model_options import ModelOptions
from ptychodus_torch_plugin.cli.options import DEFAULT_MARK, given, one_spelling
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.simulation_options import SimulationOptions
from ptychodus_torch_plugin.cli.training_options import AllTrainingOptions
from ptychodus_torch_plugin.config import RunConfig
from ptychodus_torch_plugin.config.execution import SCHEDULER_ALIASES
from ptychodus_torch_plugin.config.model import CNN_FIELDS
from ptychodus_torch_plugin.config.training import CNN_TRAINING_FIELDS
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.simulate import SimulationConfig

GROUPS = {
    ReadingOptions: ReadOptions,
    ModelOptions: RunConfig,
    AllTrainingOptions: RunConfig,
    CnnOptions: RunConfig,
    AllExecutionOptions: RunConfig,
    InferenceOptions: RunConfig,
    SweepOptions: RunConfig,
    SimulationOptions: SimulationConfig,
}
CASES = [
    pytest.param(group, settings, name, path, id=f'{group.__name__}.{name}')
    for group, settings in GROUPS.items()
    for name, path in group.SETTINGS.items()
    if not (group is SweepOptions and name == 'architecture')  # one choice of many, on purpose
]
FREE_TEXT = {'scheduler'}


def option(group, name):
    """Return type and typer's description of an option."""
    annotated = get_type_hints(group, include_extras=True)[name]
    while get_origin(annotated) in (Union, types.UnionType):  # a default of None adds one
        annotated = get_args(annotated)[0]
    hint, description = get_args(annotated)
    return hint, description


def field_of(settings, path):
    """Return type and default of a setting by its path."""
    *sections, name = path.split('.')
    for section in sections:
        settings = get_type_hints(settings)[section]
    if dataclasses.is_dataclass(settings):
        [field] = [field for field in dataclasses.fields(settings) if field.name == name]
        return get_type_hints(settings)[name], field.default
    return settings.model_fields[name].annotation, settings.model_fields[name].default


@pytest.mark.parametrize(('group', 'settings', 'name', 'path'), CASES)
def test_the_stated_default_is_the_one_of_the_settings(group, settings, name, path):
    _, description = option(group, name)
    text, stated = description.help.rstrip(']').split(DEFAULT_MARK)
    assert text.endswith('.')
    _, default = field_of(settings, path)
    if default is None:
        assert not stated[0].isdigit(), 'the settings have no number there'
    elif isinstance(default, bool):
        flag = one_spelling(path.split('.')[-1])
        assert one_spelling(stated) == (flag if default else f'no-{flag}')
    elif isinstance(default, tuple):
        assert stated == ' '.join(map(str, default))
    elif isinstance(default, float):
        assert float(stated.split(',')[0]) == default
    else:
        assert stated.split(',')[0] == one_spelling(str(default))


@pytest.mark.parametrize(('group', 'settings', 'name', 'path'), CASES)
def test_the_choices_are_those_of_the_settings(choices, group, settings, name, path):
    hint, description = option(group, name)
    known = choices(field_of(settings, path)[0])
    if name in FREE_TEXT:
        assert all(choice in description.help for choice in known)
    else:
        assert choices(hint) == known


def test_the_help_names_what_other_programs_call_a_scheduler():
    told = option(AllTrainingOptions, 'scheduler')[1].help
    for name in ('Default', 'Exponential', 'WarmupCosine', 'ReduceLROnPlateau'):
        assert name in told
        assert name.lower() in SCHEDULER_ALIASES


def test_all_settings_of_the_reference_network_have_an_option():
    options = {**ModelOptions.SETTINGS, **CnnOptions.SETTINGS}.values()
    paths = {f'model.{name}' for name in CNN_FIELDS}
    assert set(options) >= paths | {f'training.{name}' for name in CNN_TRAINING_FIELDS}


@pytest.mark.parametrize('group', [*GROUPS, DemoReadingOptions])
def test_an_option_not_given_changes_nothing(group):
    assert given(group()) == {}


def test_every_option_of_a_group_has_its_setting():
    for group in GROUPS:
        names = {field.name for field in dataclasses.fields(group)}
        assert names - group.SETTINGS.keys() <= {'diffraction'}
