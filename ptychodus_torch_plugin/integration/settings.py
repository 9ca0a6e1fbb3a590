"""Settings that live in Ptychodus' registry, and the settings of this package made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ptychodus.api.parameters import Parameter, ParameterGroup
from ptychodus.api.settings import SettingsRegistry

from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.integration.entries import (
    ARCHITECTURE,
    ENTRIES,
    EXECUTION,
    INFERENCE,
    LOGGER,
    MODEL_TYPE,
    TRAINING,
    Entry,
)

if TYPE_CHECKING:
    from ptychodus_torch_plugin.config import RunConfig

PRETRAINED_FAMILY = 'unrolled'
"""Of networks: the one that was trained beforehand is of it."""

PHYSICAL_WEIGHTS = ('training.nll_weight', 'training.mae_weight')
"""Mean nothing where a network is trained against a known object."""


def applies_to_pretrained(entry: Entry) -> bool:
    """Return whether a setting means something for the network that was trained beforehand."""
    if entry.group == TRAINING or entry.path in (ARCHITECTURE, LOGGER):
        return False
    return entry.families is None or PRETRAINED_FAMILY in entry.families


class PluginSettings:
    """The settings of all reconstructors, as the user chose them.

    Attributes
    ----------
    parameters
        Ptychodus' parameters by `Entry.path`; they follow the settings file and the panel.
    """

    def __init__(self, registry: SettingsRegistry) -> None:
        sections = {name: registry.create_group(name) for name in _sections()}
        self.parameters: Mapping[str, Parameter[Any]] = {
            entry.path: _create_parameter(sections[entry.section], entry) for entry in ENTRIES
        }

    def applies(self, entry: Entry) -> bool:
        """Return whether a setting means something for the network that is chosen."""
        family = self.parameters[ARCHITECTURE].get_value()
        if family == 'none' and entry.group == TRAINING:
            return False
        if family == 'cnn' and entry.path in PHYSICAL_WEIGHTS:
            return bool(self.parameters[MODEL_TYPE].get_value() != 'supervised')
        return entry.families is None or family in entry.families

    def run_config(self, backend: str, n_px: int | None) -> RunConfig:
        """Return all settings that mean something for the network that is chosen.

        Parameters
        ----------
        backend
            Name of the backend.
        n_px
            Side N of the patterns; `None` if it is not known yet.

        Raises
        ------
        ConfigError
            If a value is not allowed, or two contradict each other.
        """
        values = self._values(entry for entry in ENTRIES if self.applies(entry))
        if n_px is not None:
            values['model']['N'] = n_px
        run = _parse(values, backend)
        run.training.for_model(run.model)
        return run

    def inference_config(self, backend: str) -> RunConfig:
        """Return the settings for a model that was trained before, of whichever family it is.

        Raises
        ------
        ConfigError
            If one of the values for inference or execution is not allowed.
        """
        groups = (INFERENCE, EXECUTION)
        return _parse(self._values(entry for entry in ENTRIES if entry.group in groups), backend)

    def pretrained_config(self, backend: str) -> RunConfig:
        """Return the settings for the network that was trained beforehand, between sweeps.

        Whichever network is chosen for training does not matter.

        Raises
        ------
        ConfigError
            If one of the values for sweeps, inference or execution is not allowed.
        """
        return _parse(self._values(filter(applies_to_pretrained, ENTRIES)), backend)

    def _values(self, entries: Iterable[Entry]) -> dict[str, Any]:
        """Return the values of `RunConfig` that are not automatic, nested as there."""
        values: dict[str, Any] = {}
        for entry in entries:
            value = self._value(entry)
            if value != entry.automatic:
                *sections, field = entry.path.split('.')
                place = values
                for section in sections:
                    place = place.setdefault(section, {})
                place[field] = value
        return values

    def _value(self, entry: Entry) -> Any:
        value = self.parameters[entry.path].get_value()
        if entry.kind == 'string' and value not in entry.choices:
            allowed = ', '.join(repr(choice) for choice in entry.choices)
            raise ConfigError(
                f'{entry.key} = {value!r} in section [{entry.section}] of the settings is not '
                f'known; expected one of {allowed}. Choose {entry.label!r} in the panel anew.'
            )
        return value


def _parse(values: dict[str, Any], backend: str) -> RunConfig:
    # Late: Ptychodus shall start quickly.
    from ptychodus_torch_plugin.config import RunConfig

    return RunConfig.parse({'backend': backend, **values}, source='settings')


def _sections() -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.section for entry in ENTRIES))


def _create_parameter(section: ParameterGroup, entry: Entry) -> Parameter[Any]:
    limits = {'minimum': entry.minimum, 'maximum': entry.maximum}
    match entry.kind:
        case 'boolean':
            return section.create_boolean_parameter(entry.key, entry.default)
        case 'integer':
            return section.create_integer_parameter(entry.key, entry.default, **limits)
        case 'number':
            return section.create_real_parameter(entry.key, entry.default, **limits)
        case _:
            return section.create_string_parameter(entry.key, entry.default)
