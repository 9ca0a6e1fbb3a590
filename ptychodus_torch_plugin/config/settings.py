"""Base of all settings, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychodus_torch_plugin.errors import ConfigError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Damping = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown fields, one clear error."""

    model_config = ConfigDict(frozen=True, extra='forbid', use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Any, *, source: str = 'settings') -> Self:
        """Make settings from plain values; raise `ConfigError` that lists every fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = '; '.join(_describe(fault) for fault in error.errors())
            raise ConfigError(f'{source}: {faults}.') from error

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return self.model_dump(mode='json')


def _describe(fault: Any) -> str:
    where = '.'.join(str(part) for part in fault['loc'])
    if fault['type'] == 'extra_forbidden':
        return f'{where} is not a known setting'
    message = str(fault['msg']).removeprefix('Value error, ')
    if not isinstance(fault['input'], dict):
        return f'{where or "settings"} = {fault["input"]!r}: {message}'
    # A contradiction between fields: the message names them.
    return f'{where}: {message}' if where else message
