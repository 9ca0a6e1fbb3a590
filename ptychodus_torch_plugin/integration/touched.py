"""`Touched`: one thing of another program that is used without its promise to stay as it is."""

from __future__ import annotations

import inspect
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Touched:
    """A class, function or attribute by its dotted name, and what is expected of it.

    Attributes
    ----------
    name
        For example 'package.module.Class.method'.
    parameters
        Names of parameters that it takes, whatever others there are.
    sets
        Names of attributes that `__init__` gives to every instance.
    """

    name: str
    parameters: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()

    def fault(self) -> str:
        """Return what is not as expected, with file and line, or nothing."""
        try:
            thing = pkgutil.resolve_name(self.name)
        except (ImportError, AttributeError) as error:
            return f'{self.name} is gone ({error}){_near(self.name)}'
        if self.parameters:
            found = tuple(inspect.signature(thing).parameters)
            missing = [name for name in self.parameters if name not in found]
            if missing:
                return f'{self.name} has no parameter {missing}, but {list(found)}{_place(thing)}'
        missing = [name for name in self.sets if name not in _attributes_set(thing)]
        if missing:
            return f'{self.name} sets no attribute {missing} any more{_place(thing)}'
        return ''


def _attributes_set(thing: Any) -> tuple[str, ...]:
    """Return the names that a constructor stores or uses, without calling it."""
    names: tuple[str, ...] = thing.__init__.__code__.co_names
    return names


def _near(name: str) -> str:
    """Return the place of the innermost surrounding thing that is still there."""
    while '.' in name:
        name = name.rpartition('.')[0]
        try:
            return _place(pkgutil.resolve_name(name))
        except (ImportError, AttributeError):
            continue
    return ''


def _place(thing: Any) -> str:
    """Return ', see FILE:LINE' of a definition if it is known."""
    try:
        path = Path(inspect.getsourcefile(thing) or '')
        line = 1 if inspect.ismodule(thing) else inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return ''
    return f', see {path}:{line}'
