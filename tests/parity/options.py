"""Options of 'cnn' that decide what is computed, and cases in which each meets each other one."""

from itertools import combinations
from typing import Any

OPTIONS: dict[str, tuple[Any, ...]] = {
    'gridsize': (1, 2, 3),
    'N': (64, 128),
    'modes': (1, 3),
    'amp_activation': ('sigmoid', 'swish', 'softplus', 'relu'),
    'object_big': (True, False),
    'probe_big': (True, False),
    'pad_object': (True, False),
    'loss': ('nll', 'mae', 'tv', 'realspace'),
    'probe_trainable': (True, False),
}

ROWS = (
    (1, 64, 1, 'sigmoid', True, True, True, 'nll', False),
    (1, 64, 1, 'sigmoid', False, False, False, 'mae', True),
    (1, 64, 1, 'relu', True, True, False, 'mae', False),
    (1, 64, 3, 'softplus', True, True, True, 'nll', True),
    (2, 64, 3, 'relu', False, False, False, 'tv', True),
    (2, 64, 3, 'swish', True, False, False, 'realspace', False),
    (2, 64, 1, 'softplus', True, True, False, 'tv', False),
    (2, 64, 3, 'sigmoid', False, False, True, 'realspace', False),
    (3, 64, 3, 'swish', False, False, False, 'nll', False),
    (3, 64, 3, 'relu', True, True, True, 'realspace', False),
    (3, 64, 3, 'sigmoid', True, False, False, 'tv', False),
    (3, 64, 1, 'swish', True, True, False, 'mae', True),
    (1, 128, 1, 'swish', True, True, True, 'tv', True),
    (1, 128, 3, 'sigmoid', False, True, False, 'realspace', True),
    (2, 128, 3, 'softplus', False, True, True, 'mae', False),
    (2, 128, 1, 'relu', True, False, True, 'nll', True),
    (3, 128, 1, 'softplus', True, False, False, 'realspace', True),
)
"""All 768 combinations would take a quarter of an hour; in these every pair of values occurs."""

CASES = {
    ' '.join(str(value) for value in row): dict(zip(OPTIONS, row, strict=True)) for row in ROWS
}


def missing_pairs(cases: list[dict[str, Any]]) -> list[str]:
    """Return the pairs of values that no case has."""
    return [
        f'{one} = {first}, {other} = {second}'
        for one, other in combinations(OPTIONS, 2)
        for first in OPTIONS[one]
        for second in OPTIONS[other]
        if not any((case[one], case[other]) == (first, second) for case in cases)
    ]
