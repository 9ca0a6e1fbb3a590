"""The one place that touches Ptychodus' internals.

Ptychodus has no way to add reconstructors: the list of its libraries stands in `ModelCore`, that of
their panels in `ControllerCore`.  Both hand their list to a class that they find by its name in
their own module.  `install` puts subclasses in the place of these two names, which add to the list
and else do what the originals do.  Nothing is written anywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from ptychodus.api.observer import Observable, Observer
from ptychodus.api.reconstruct import ReconstructorLibrary

from ptychodus_torch_plugin.integration.extensions import create_libraries, create_views, logger
from ptychodus_torch_plugin.integration.host import (
    CONTROLLER,
    MODEL,
    WIDGETS,
    PtychodusError,
    check_ptychodus,
)
from ptychodus_torch_plugin.integration.import_hook import when_imported
from ptychodus_torch_plugin.integration.touched import Touched

TOUCHED = {
    MODEL: (
        Touched(
            'ptychodus.model.core.ProcessingCore',
            parameters=('task_manager', 'settings_registry', 'algorithm_libraries'),
            sets=('processing_api',),
        ),
        Touched('ptychodus.model.processing.ProcessingAPI.task_monitor'),
        Touched('ptychodus.model.task_monitor.TaskProgressMonitor.is_stopping'),
        Touched('ptychodus.model.task_monitor.TaskProgressMonitor.get_progress'),
        Touched('ptychodus.model.task_monitor.TaskProgressMonitor.get_progress_goal'),
        Touched(
            'ptychodus.model.task_monitor.TaskProgressMonitor.update_progress',
            parameters=('progress', 'progress_goal'),
        ),
        Touched('ptychodus.model.task_manager.TaskManager.is_stopping'),
        Touched(
            'ptychodus.model.task_manager.TaskManager.put_foreground_task', parameters=('task',)
        ),
    ),
    CONTROLLER: (
        Touched(
            'ptychodus.controller.core.ProcessingController',
            parameters=(
                'algorithm_parameter',
                'processing_api',
                'view',
                'file_dialog_factory',
                'view_controller_factories',
            ),
        ),
        Touched(
            'ptychodus.controller.processing.ReconstructorViewControllerFactory'
            '.create_view_controller',
            parameters=('reconstructor_name',),
        ),
        Touched('ptychodus.model.task_monitor.TaskProgressMonitor.get_completed_runs'),
        Touched(
            'ptychodus.model.processing.ProcessingAlgorithmParameter.get_current_reconstructor'
        ),
        Touched(
            'ptychodus.view.processing.ProcessingActionsView',
            sets=('reconstruct_button', 'train_button'),
        ),
    ),
    # What `panel` is made of.
    WIDGETS: (
        Touched('ptychodus.controller.processing.ReconstructorViewControllerFactory.name'),
        Touched(f'{WIDGETS}.ParameterViewController.get_widget'),
        Touched(f'{WIDGETS}.ParameterViewBuilder', parameters=('file_dialog_factory',)),
        Touched(
            f'{WIDGETS}.ParameterViewBuilder.add_view_controller',
            parameters=('view_controller', 'label'),
        ),
        Touched(f'{WIDGETS}.ParameterViewBuilder.build_widget'),
        Touched(f'{WIDGETS}.CheckBoxParameterViewController', parameters=('parameter', 'tool_tip')),
        Touched(f'{WIDGETS}.ComboBoxParameterViewController', parameters=('parameter', 'tool_tip')),
        Touched(
            f'{WIDGETS}.DecimalLineEditParameterViewController',
            parameters=('parameter', 'tool_tip'),
        ),
        Touched(f'{WIDGETS}.SpinBoxParameterViewController', parameters=('parameter', 'tool_tip')),
    ),
}
"""All that is used of Ptychodus besides `ptychodus.api`, by the module that needs or brings it."""

_substitutes: set[type] = set()
_created: WeakKeyDictionary[Any, dict[str, ReconstructorLibrary]] = WeakKeyDictionary()
"""The libraries of each `ProcessingAPI`: a process may hold several Ptychodus."""


def install() -> None:
    """Add the libraries of all packages to every Ptychodus that starts in this process from now on.

    Calling it again does nothing.

    Raises
    ------
    PtychodusError
        If Ptychodus is missing, or not as it is known; it then stays as it is.
    """
    check_ptychodus()
    when_imported(MODEL, lambda module: _substitute(module, 'ProcessingCore', _with_libraries))
    when_imported(
        CONTROLLER, lambda module: _substitute(module, 'ProcessingController', _with_views)
    )


def faults(module: str) -> list[str]:
    """Return what of `TOUCHED` is not as expected; imports the modules that it names."""
    return [fault for touched in TOUCHED[module] if (fault := touched.fault())]


def _substitute(module: ModuleType, name: str, extended: Callable[[Any], type]) -> None:
    if getattr(module, name, None) in _substitutes:
        return
    moved = faults(module.__name__)
    if moved:
        raise PtychodusError(f'Ptychodus is not as expected: {"; ".join(moved)}')
    substitute = extended(getattr(module, name))
    _substitutes.add(substitute)
    setattr(module, name, substitute)


def _with_libraries(stock: Any) -> type:
    """Return a `ProcessingCore` that has the libraries of other packages, too."""
    signature = inspect.signature(stock)

    class ProcessingCoreWithPlugins(stock):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments
            known = given['algorithm_libraries']
            libraries = create_libraries(
                given['settings_registry'], [library.name for library in known]
            )
            given['algorithm_libraries'] = [*known, *libraries.values()]
            super().__init__(*bound.args, **bound.kwargs)
            _created[self.processing_api] = libraries
            for library in libraries.values():
                _attach(library, given['task_manager'], self.processing_api.task_monitor)

    return ProcessingCoreWithPlugins


def _attach(library: Any, task_manager: Any, monitor: Any) -> None:
    """Tell a library that wants to know when to stop, and how to report."""

    def should_stop() -> bool:
        """Return whether the user pressed Stop, or closes Ptychodus."""
        return bool(monitor.is_stopping or task_manager.is_stopping)

    def on_progress(progress: int, goal: int) -> None:
        """Move the bar; show what the log has gained even if the bar stays."""
        if (progress, goal) == (monitor.get_progress(), monitor.get_progress_goal()):
            task_manager.put_foreground_task(monitor.notify_observers)
        else:
            monitor.update_progress(progress, goal)

    attach = getattr(library, 'attach', None)
    if attach is None:
        return
    try:
        attach(should_stop, on_progress)
    except Exception:
        logger.warning('%s cannot be told when to stop', library.name, exc_info=True)


def _with_views(stock: Any) -> type:
    """Return a `ProcessingController` that has the panels of these libraries, too."""
    signature = inspect.signature(stock)

    class ProcessingControllerWithPlugins(stock):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments
            libraries = _created.get(given['processing_api'], {})
            views = create_views(libraries, given['file_dialog_factory'])
            given['view_controller_factories'] = [*given['view_controller_factories'], *views]
            super().__init__(*bound.args, **bound.kwargs)
            monitor = given['processing_api'].task_monitor
            observer = _AfterRuns(
                monitor, given['algorithm_parameter'], list(libraries.values()), given['view']
            )
            monitor.add_observer(observer)

    return ProcessingControllerWithPlugins


class _AfterRuns(Observer):
    """Enables 'Infer' when a training has ended, which Ptychodus does when it begins.

    Ptychodus notifies observers of its monitor in the thread of the window.
    """

    def __init__(
        self, monitor: Any, algorithm: Any, libraries: list[ReconstructorLibrary], view: Any
    ) -> None:
        super().__init__()
        from ptychodus.view.processing import ProcessingActionsView

        self._monitor = monitor
        self._algorithm = algorithm
        self._libraries = libraries
        self._actions = view.findChild(ProcessingActionsView)
        self._completed = monitor.get_completed_runs()

    def _update(self, observable: Observable) -> None:  # noqa: ARG002 - there is only one
        completed = self._monitor.get_completed_runs()
        if completed == self._completed:
            return
        self._completed = completed
        current = self._algorithm.get_current_reconstructor()
        if not any(current is each for library in self._libraries for each in library):
            return
        self._algorithm.notify_observers()
        # The notification looks at the model alone; whether the selected product can be worked on
        # at all is what the other button says.
        button = self._actions.reconstruct_button
        button.setEnabled(button.isEnabled() and self._actions.train_button.isEnabled())
