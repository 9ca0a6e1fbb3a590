"""A scan in Ptychodus' files, and a library whose settings make it quick."""

import pytest
from ptychodus.api.settings import SettingsRegistry

from ptychodus_torch_plugin.integration.library import create_library

from .scene import measured, read_files, write_files

QUICK = {
    'model.sweeps_before': 4,
    'model.sweeps_after': 1,
    'training.epochs': 2,
    'training.thinnings': 1,
    'execution.accelerator': 'cpu',
}


@pytest.fixture(scope='session')
def original():
    return measured()


@pytest.fixture(scope='session')
def folder(original, tmp_path_factory):
    found = tmp_path_factory.mktemp('scan')
    write_files(found, original)
    return found


@pytest.fixture(scope='session')
def handed(folder):
    return read_files(folder)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library in a home of its own."""
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    made = create_library(SettingsRegistry())
    choose(made, **QUICK)
    return made


def choose(library, **values):
    for path, value in values.items():
        library.settings.parameters[path].set_value(value)


@pytest.fixture
def reconstructors(library):
    return {each.name: each for each in library}
