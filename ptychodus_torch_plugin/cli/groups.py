"""Options that several commands share, written once as the fields of a dataclass.

    @dataclass(frozen=True)
    class ReadingOptions:
        crop: Annotated[int | None, typer.Option(help='...')] = None

    @with_groups
    def convert(source: Path, reading: ReadingOptions) -> None: ...

is to typer a command with the arguments `source` and `--crop`.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

T = TypeVar('T')


def with_groups(command: Callable[..., T]) -> Callable[..., T]:
    """Return `command` with every parameter that is a dataclass replaced by its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @functools.wraps(command)
    def run(**values: Any) -> T:
        for name, group in groups.items():
            chosen = {field.name: values.pop(field.name) for field in fields(group)}
            values[name] = group(**chosen)
        return command(**values)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _options(groups[name])
        else:
            parameters.append(_keyword(name, parameter.default, hints[name]))
    # Typer reads it, but no type knows of it.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [_keyword(field.name, field.default, hints[field.name]) for field in fields(group)]


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
