"""The library of reconstructors as Ptychodus sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ptychodus.api.reconstruct import Reconstructor, ReconstructorLibrary
from ptychodus.api.settings import SettingsRegistry, get_ptychodus_dir

from ptychodus_torch_plugin.backends.registry import Availability, available_backends
from ptychodus_torch_plugin.integration.reconstructor import (
    FitReconstructor,
    NetworkReconstructor,
    PretrainedReconstructor,
)
from ptychodus_torch_plugin.integration.settings import PluginSettings
from ptychodus_torch_plugin.integration.support import LIBRARY_NAME
from ptychodus_torch_plugin.integration.unavailable import (
    UnavailableNetworkReconstructor,
    UnavailableReconstructor,
)
from ptychodus_torch_plugin.integration.workshop import Workshop, logger

FOLDER = 'pinn'
"""Below Ptychodus' own folder: models and checkpoints of fits, converted models."""

KINDS = (
    (NetworkReconstructor, UnavailableNetworkReconstructor),
    (FitReconstructor, UnavailableReconstructor),
    (PretrainedReconstructor, UnavailableReconstructor),
)
"""Of each backend, and what stands for them if it cannot be used."""


def create_library(settings_registry: SettingsRegistry) -> PluginLibrary:
    """Return the library; an entry point of `support.LIBRARY_GROUP`."""
    return PluginLibrary(settings_registry)


class PluginLibrary(ReconstructorLibrary):
    """For each backend: one with a model, one that fits the scan at hand, one trained beforehand.

    Attributes
    ----------
    settings
        What the panel shows.
    availability
        Whether each reconstructor can be used, and if not why, by its name.
    """

    def __init__(self, settings_registry: SettingsRegistry) -> None:
        super().__init__(logger.name)
        self.settings = PluginSettings(settings_registry)
        self._workshop = Workshop(self.settings, get_ptychodus_dir() / FOLDER)
        self._reconstructors: list[Reconstructor] = []
        self.availability: Mapping[str, Availability] = {}
        for backend, availability in available_backends().items():
            for kind, substitute in KINDS:
                name = backend + kind.SUFFIX
                self.availability |= {name.casefold(): availability}
                self._reconstructors.append(
                    kind(backend, self._workshop)
                    if availability.ok
                    else substitute(name, availability)
                )

    @property
    def name(self) -> str:
        return LIBRARY_NAME

    def __iter__(self) -> Iterator[Reconstructor]:
        return iter(self._reconstructors)

    def attach(
        self, should_stop: Callable[[], bool], on_progress: Callable[[int, int], None]
    ) -> None:
        """Learn from Ptychodus when to stop, and how to move its bar."""
        self._workshop.should_stop = should_stop
        self._workshop.on_progress = on_progress
