"""The flat dictionary of settings in an archive; every value that is asked for is checked."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from ptychodus_torch_plugin.bundle.errors import BundleContentError, ForeignBundleError
from ptychodus_torch_plugin.foreign.inert_pickle import read_pickle
from ptychodus_torch_plugin.foreign.pickled_values import as_array, as_plain, described


class Parameters:
    """Settings by name, with what to call them in a message.

    Parameters
    ----------
    values
        Values as `inert_pickle.read_pickle` returns them.
    source
        Where they come from.
    """

    def __init__(self, values: Any, source: str) -> None:
        if not isinstance(values, dict):
            raise BundleContentError(
                f'{source} is {described(values)}; expected a dictionary of settings.'
            )
        self._values = values
        self.source = source

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def section(self, key: str) -> Parameters:
        """Return the dictionary of settings under a key."""
        return Parameters(self._values.get(key), f'{key} of {self.source}')

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number; `BundleContentError` if it is none, or absent without default."""
        value = self._value(key, default)
        if type(value) is not int:
            raise self._wrong(key, 'a whole number')
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number; errors as of `integer`."""
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self._wrong(key, 'a finite number')
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false; errors as of `integer`."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, 'true or false')
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return text; errors as of `integer`."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, 'text')
        return value

    def plain(self, key: str) -> Any:
        """Return whatever stands there, `None` if nothing does."""
        return as_plain(self._values.get(key), what=f'{key} of {self.source}')

    def array(self, key: str) -> NDArray[Any]:
        """Return an array of numbers, also out of a tensor of TensorFlow; errors as `as_array`."""
        return as_array(self._values.get(key), what=f'{key} of {self.source}')

    def require(self, key: str, *allowed: Any) -> None:
        """Raise `ForeignBundleError` unless a setting is absent or has one of the values."""
        value = self.plain(key)
        # By type as well: 1 is not True here.
        if value is not None and not any(
            type(value) is type(each) and value == each for each in allowed
        ):
            raise ForeignBundleError(
                f'{self.source} has {key} = {described(value)}, which no model of this package '
                f'has; expected {" or ".join(map(repr, allowed))}. Train the model here instead.'
            )

    def _value(self, key: str, default: Any) -> Any:
        value = self.plain(key)
        if value is None:
            value = default
        if value is None:
            raise BundleContentError(
                f'{self.source} has no {key}; expected the settings of a trained model. '
                'Without it nobody can tell what the model is.'
            )
        return value

    def _wrong(self, key: str, expected: str) -> BundleContentError:
        value = described(self.plain(key))
        return BundleContentError(f'{self.source} has {key} = {value}; expected {expected}.')


def read_parameters(data: bytes, *, source: str) -> Parameters:
    """Return the settings in the bytes of a params.dill."""
    return Parameters(read_pickle(data, source=source), source)
