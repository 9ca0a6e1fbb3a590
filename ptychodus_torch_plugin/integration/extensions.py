"""Libraries and their panels, found by entry points; one that fails is left out with a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ptychodus.api.reconstruct import ReconstructorLibrary
from ptychodus.api.settings import SettingsRegistry

from ptychodus_torch_plugin.backends.registry import entry_points
from ptychodus_torch_plugin.errors import PluginError
from ptychodus_torch_plugin.integration.host import PtychodusError
from ptychodus_torch_plugin.integration.support import LIBRARY_GROUP, VIEW_GROUP

logger = logging.getLogger(__name__)

FAULTS = (Exception, SystemExit)
"""What somebody else's code may raise without keeping Ptychodus from starting."""


@dataclass(frozen=True)
class PreparedView:
    """Panels that are there already: what Ptychodus takes for a factory of them."""

    name: str
    widgets: Mapping[str, Any]

    def create_view_controller(self, reconstructor_name: str) -> Any:
        """Return the panel of a reconstructor."""
        return self.widgets[reconstructor_name]


def create_libraries(
    settings_registry: SettingsRegistry, taken: Iterable[str] = ()
) -> dict[str, ReconstructorLibrary]:
    """Return the libraries of all packages by the names of their entry points.

    Parameters
    ----------
    settings_registry
        Where the libraries put their settings.
    taken
        Names of the libraries that there are without them.
    """
    names = {name.casefold() for name in taken}
    libraries: dict[str, ReconstructorLibrary] = {}
    for entry_point in entry_points(LIBRARY_GROUP):
        try:
            library = create_library(entry_point, settings_registry, names)
        except FAULTS as error:
            _leave_out('library', entry_point, error)
        else:
            names.add(library.name.casefold())
            libraries.setdefault(entry_point.name, library)
    return libraries


def create_library(
    entry_point: metadata.EntryPoint, settings_registry: SettingsRegistry, taken: set[str]
) -> ReconstructorLibrary:
    """Return the library of an entry point; raise whatever it raises, or `PtychodusError`."""
    library = entry_point.load()(settings_registry)
    if not isinstance(library, ReconstructorLibrary):
        raise PtychodusError(f'expected a ReconstructorLibrary, received {library!r}')
    # Ptychodus makes keys LIBRARY_RECONSTRUCTOR in lower case, and splits them at the first '_'.
    if '_' in library.name:
        raise PtychodusError(f'the name {library.name!r} has a _, which no name of a library may')
    if library.name.casefold() in taken:
        raise PtychodusError(f'the name {library.name!r} is taken')
    reconstructors = [reconstructor.name.casefold() for reconstructor in library]
    if len(set(reconstructors)) < len(reconstructors):
        raise PtychodusError(f'two of its reconstructors have one name: {reconstructors}')
    library.get_logger()  # Ptychodus calls it, and would not start if it failed
    return library


def describe_library(name: str) -> dict[str, Any]:
    """Return the reconstructors of a library, and why those cannot be used that cannot.

    Raises whatever `create_library` raises.
    """
    (entry_point,) = [each for each in entry_points(LIBRARY_GROUP) if each.name == name]
    library = create_library(entry_point, SettingsRegistry(), set())
    availability = getattr(library, 'availability', {})
    reasons = {key: each.reason for key, each in availability.items() if not each.ok}
    names = [reconstructor.name for reconstructor in library]
    return {
        'name': library.name,
        'reconstructors': {each: reasons.get(each.casefold(), '') for each in names},
    }


def create_views(
    libraries: Mapping[str, ReconstructorLibrary], file_dialog_factory: Any
) -> list[PreparedView]:
    """Return the panels of libraries; for one without, Ptychodus shows a label in their place."""
    views: list[PreparedView] = []
    for entry_point in entry_points(VIEW_GROUP):
        if entry_point.name not in libraries:
            continue
        try:
            views.append(
                _create_view(entry_point, libraries[entry_point.name], file_dialog_factory)
            )
        except FAULTS as error:
            _leave_out('panel', entry_point, error)
    return views


def _create_view(
    entry_point: metadata.EntryPoint, library: ReconstructorLibrary, file_dialog_factory: Any
) -> PreparedView:
    factory = entry_point.load()(library, file_dialog_factory)
    widgets = {
        name: factory.create_view_controller(name)
        for name in (reconstructor.name.casefold() for reconstructor in library)
    }
    for widget in widgets.values():
        if not widget.isWidgetType():
            raise PtychodusError(f'expected a QWidget, received {widget!r}')
    return PreparedView(library.name, widgets)


def _leave_out(what: str, entry_point: metadata.EntryPoint, error: BaseException) -> None:
    reason = str(error) if isinstance(error, PluginError) else f'{type(error).__name__}: {error}'
    logger.warning('%s %r of %s is left out: %s', what, entry_point.name, entry_point.value, reason)
