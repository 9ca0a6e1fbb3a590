"""JSON for files from strangers: bounded depth, no duplicate keys, no NaN, the same bytes again."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    CorruptBundleError,
    quoted,
)
from ptychodus_torch_plugin.bundle.limits import JSON_DEPTH

# One mark at a time: a pattern for a whole string needs memory for each of its escapes.
_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
_INTEGER_DIGITS = 40


def encode_json(value: Any, *, source: str) -> bytes:
    """Return `value` as ASCII JSON with sorted keys, so that equal content has equal bytes.

    Raises
    ------
    BundleContentError
        If `value` holds NaN, infinities or anything that JSON does not know.
    BundleLimitError
        If it is nested deeper than `decode_json` accepts.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleContentError(
            f'{source} cannot be written as JSON: {error}; expected finite numbers, strings, '
            'booleans, None, lists and dictionaries with string keys.'
        ) from error
    _check_depth(text, source)
    return text.encode('ascii') + b'\n'


def decode_json(data: bytes, *, source: str) -> Any:
    """Return the value of UTF-8 JSON text.

    Raises
    ------
    CorruptBundleError
        If it is not JSON, repeats a key of an object, or holds a number that is not finite
        or absurdly long.
    BundleLimitError
        If it is nested too deeply.
    """
    try:
        text = data.decode('utf-8')
    except UnicodeDecodeError as error:
        raise _invalid(source, error) from error
    _check_depth(text, source)
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded_integer,
        )
    except (ValueError, RecursionError) as error:
        raise _invalid(source, error) from error


def _invalid(source: str, error: Exception) -> CorruptBundleError:
    return CorruptBundleError(
        f'{source} is not valid JSON: {error}; expected strict JSON in UTF-8. '
        'Copy the bundle again from where it was written.'
    )


def _check_depth(text: str, source: str) -> None:
    depth, in_string = 0, False
    for match in _MARKS.finditer(text):
        mark = match[0]
        if mark == '"':
            in_string = not in_string
        elif not in_string:
            depth += (mark in '[{') - (mark in ']}')
        if depth > JSON_DEPTH:
            raise BundleLimitError(
                f'{source} is nested deeper than {JSON_DEPTH} levels; '
                'expected flatter settings and provenance.'
            )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        (repeated, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f'the key {quoted(repeated)} occurs twice in one object')
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f'{text} is not a JSON number')


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'the number {quoted(text)} is not finite')
    return value


def _bounded_integer(text: str) -> int:
    if len(text) > _INTEGER_DIGITS:
        raise ValueError(f'an integer has {len(text)} digits, at most {_INTEGER_DIGITS} are read')
    return int(text)
