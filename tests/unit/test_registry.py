"""The list of backends, with other packages' entry points held in memory."""

import logging
import re
from importlib import metadata, util

import pytest

from ptychodus_torch_plugin.backends import registry
from ptychodus_torch_plugin.errors import (
    BackendUnavailableError,
    PluginError,
    UnknownBackendError,
)


class Guest:
    """A backend of another package, as far as the registry looks at it."""

    name = 'guest'

    def versions(self):
        return {'abacus': '3.1', 'beads': '7'}


class EntryPoint:
    """Stands in for `importlib.metadata.EntryPoint`; `load` returns or raises `target`."""

    def __init__(self, name, target, value='guest_package:Backend'):
        self.name, self.target, self.value = name, target, value

    def load(self):
        if isinstance(self.target, Exception):
            raise self.target
        return self.target


@pytest.fixture
def install(monkeypatch):
    def with_entry_points(*entry_points):
        def found(group):
            assert group == 'ptychodus_torch_plugin.backends'
            return list(entry_points)

        monkeypatch.setattr(registry, 'entry_points', found)

    with_entry_points()
    return with_entry_points


@pytest.fixture
def hide(monkeypatch):
    """Hide packages from `importlib.util.find_spec`; show others that need not be there."""
    real = util.find_spec

    def with_packages(hidden=(), shown=()):
        def find_spec(name, package=None):
            if name in hidden:
                return None
            return object() if name in shown else real(name, package)

        monkeypatch.setattr(util, 'find_spec', find_spec)

    return with_packages


def with_versions(monkeypatch, **versions):
    def version(name):
        if name in versions:
            return versions[name]
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, 'version', version)


def test_the_built_in_backends_are_listed_first_and_in_order_of_preference(install):
    install(EntryPoint('guest', Guest))
    assert list(registry.available_backends()) == ['tensorflow', 'pytorch', 'guest']


def test_a_backend_of_another_package_is_listed_and_found(install):
    install(EntryPoint('guest', Guest))
    listed = registry.available_backends()['guest']
    assert (listed.ok, listed.version) == (True, 'abacus 3.1, beads 7')
    assert isinstance(registry.get_backend('guest'), Guest)


class Unready:
    def __init__(self):
        raise OSError('libabacus.so is missing')


@pytest.mark.parametrize(
    ('target', 'reason'),
    [
        (ModuleNotFoundError("No module named 'abacus'"), 'ModuleNotFoundError: No module named'),
        (RuntimeError('abacus is upside down'), 'RuntimeError: abacus is upside down'),
        (Unready, 'OSError: libabacus.so is missing'),
        (dict, 'AttributeError'),  # not a backend at all
    ],
)
def test_a_broken_backend_is_listed_with_its_reason_and_harms_nobody(install, target, reason):
    install(EntryPoint('broken', target, 'broken_package:Backend'), EntryPoint('guest', Guest))
    listed = registry.available_backends()
    assert not listed['broken'].ok
    assert listed['broken'].reason.startswith('broken_package:Backend failed to load: ')
    assert reason in listed['broken'].reason
    assert listed['guest'].ok


def test_choosing_a_broken_backend_says_why(install):
    install(EntryPoint('broken', RuntimeError('abacus is upside down'), 'broken_package:Backend'))
    with pytest.raises(BackendUnavailableError) as caught:
        registry.get_backend('broken')
    assert str(caught.value) == (
        'broken backend selected, but broken_package:Backend failed to load: abacus is upside down'
    )


@pytest.mark.parametrize('taken', ['pytorch', 'tensorflow', 'guest'])
def test_a_name_that_is_taken_is_warned_of_and_ignored(install, caplog, taken):
    late = EntryPoint(taken, RuntimeError('must never be loaded'), 'late_package:Backend')
    install(EntryPoint('guest', Guest), late)
    before = {'pytorch', 'tensorflow', 'guest'}
    with caplog.at_level(logging.WARNING):
        listed = registry.available_backends()
    assert set(listed) == before
    assert 'must never be loaded' not in str(listed)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"backend '{taken}' of late_package:Backend is ignored: the name is taken"]
    assert isinstance(registry.get_backend('guest'), Guest)


@pytest.mark.parametrize('name', ['jax', 'torch', 'PyTorch', ''])
def test_an_unknown_name_is_a_value_error_that_lists_what_exists(install, name):
    install(EntryPoint('guest', Guest))
    with pytest.raises(ValueError, match=re.escape(repr(name))) as caught:
        registry.get_backend(name)
    assert isinstance(caught.value, UnknownBackendError)
    assert str(caught.value).endswith("expected one of 'tensorflow', 'pytorch', 'guest'.")


@pytest.mark.parametrize('package', ['torch', 'lightning'])
def test_a_missing_framework_is_a_runtime_error_that_says_how_to_install_it(
    install, hide, monkeypatch, package
):
    with_versions(monkeypatch, torch='2.5.1', lightning='2.6.0')
    hide(hidden={package}, shown={'torch', 'lightning'} - {package})
    listed = registry.available_backends()['pytorch']
    assert (listed.ok, listed.reason) == (False, f'{package} is not installed')
    with pytest.raises(RuntimeError, match='PyTorch backend selected') as caught:
        registry.get_backend('pytorch')
    assert isinstance(caught.value, BackendUnavailableError)
    assert isinstance(caught.value, PluginError)
    assert str(caught.value) == (
        f'PyTorch backend selected, but {package} is not installed. '
        "Install it with: pip install 'ptychodus-torch-plugin[torch]'"
    )


@pytest.mark.parametrize(
    ('torch', 'ok'),
    [('1.13.1', False), ('2.1.2+cpu', False), ('2.2.0+cu121', True), ('10.0', True)],
)
def test_a_framework_that_is_too_old_is_named_with_both_versions(
    install, hide, monkeypatch, torch, ok
):
    hide(shown={'torch', 'lightning'})
    with_versions(monkeypatch, torch=torch, lightning='2.10.1')
    listed = registry.available_backends()['pytorch']
    assert listed.ok == ok
    if ok:
        assert listed.version == f'torch {torch}, lightning 2.10.1'
        return
    assert listed.reason == f'torch {torch} is too old (needs 2.2 or newer)'
    with pytest.raises(BackendUnavailableError, match='too old'):
        registry.get_backend('pytorch')


def test_a_framework_that_fails_to_import_is_never_replaced_by_another(install, hide, monkeypatch):
    install(EntryPoint('guest', Guest))
    hide(shown={'torch', 'lightning'})
    with_versions(monkeypatch, torch='2.5.1', lightning='2.6.0')

    def import_module(name):
        raise OSError('libtorch_cpu.so: cannot open shared object file')

    monkeypatch.setattr(registry.importlib, 'import_module', import_module)
    with pytest.raises(BackendUnavailableError, match=r'libtorch_cpu\.so.*pip install'):
        registry.get_backend('pytorch')


def test_no_name_takes_the_first_built_in_backend_that_is_there(install, hide, monkeypatch):
    chosen = []
    monkeypatch.setattr(registry, '_load_built_in', lambda entry: chosen.append(entry.title))
    with_versions(monkeypatch, torch='2.5.1', lightning='2.6.0', tensorflow='2.16.1')
    hide(
        shown={'torch', 'lightning'},
        hidden={'tensorflow', 'ptychodus_torch_plugin.backends.tensorflow'},
    )
    registry.get_backend()
    hide(
        shown={'torch', 'lightning', 'tensorflow', 'ptychodus_torch_plugin.backends.tensorflow'},
    )
    registry.get_backend()
    assert chosen == ['PyTorch', 'TensorFlow']


def test_no_name_and_nothing_installed_lists_the_commands(install, hide):
    install(EntryPoint('guest', Guest))  # another package's backend is used by its name only
    module = 'ptychodus_torch_plugin.backends.tensorflow'
    hide(shown={module}, hidden={'torch', 'tensorflow'})
    with pytest.raises(RuntimeError, match='no backend is installed') as caught:
        registry.get_backend()
    assert "pip install 'ptychodus-torch-plugin[torch]'" in str(caught.value)
    assert "pip install 'ptychodus-torch-plugin[tensorflow]'" in str(caught.value)


def test_a_backend_that_no_release_has_yet_names_no_command(hide):
    hide(shown={'torch', 'lightning'}, hidden={'ptychodus_torch_plugin.backends.tensorflow'})
    with pytest.raises(RuntimeError, match='TensorFlow backend selected') as caught:
        registry.get_backend('tensorflow')
    assert 'pip install' not in str(caught.value)
    assert 'pytorch' in str(caught.value)
