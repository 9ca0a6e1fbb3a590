"""`when_imported`: do something to a module once it is there, without importing it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import util
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

logger = logging.getLogger(__name__)

Action = Callable[[ModuleType], None]


def when_imported(name: str, action: Action) -> None:
    """Call `action` with the module: now if it is imported already, else after its first import.

    Then, errors of `action` are logged as one warning each, for the import is somebody else's.
    """
    module = sys.modules.get(name)
    if module is not None:
        action(module)
    elif not any(isinstance(finder, _Watch) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch(name, action))


class _Watch(MetaPathFinder):
    """Waits for the import of one module, and is gone after it."""

    def __init__(self, name: str, action: Action) -> None:
        self.name = name
        self._action = action

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the protocol of finders
        target: ModuleType | None = None,  # noqa: ARG002 - the same
    ) -> ModuleSpec | None:
        """Return the spec that the others find, with a loader that reports."""
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            self._report_from(spec.loader)
        return spec

    def _report_from(self, loader: Loader) -> None:
        execute = loader.exec_module

        def execute_and_report(module: ModuleType) -> None:
            execute(module)
            try:
                self._action(module)
            except Exception as error:  # noqa: BLE001, RUF100 - see `when_imported`
                logger.warning('ptychodus-torch-plugin is left out: %s', error)

        # The loader of this one module: what else it can do, it still does.
        loader.exec_module = execute_and_report  # type: ignore[method-assign]
