"""The one table of tolerances: what it may not exceed, and that the tests go by it."""

from pathlib import Path

import pytest

from tests.parity.tolerances import SPEC, TOLERANCES, read_tolerances

TESTS = Path(__file__).parents[1]
LIMITS = {
    'intensity': 1e-5,
    'loss': 1e-5,
    'gradient': 1e-3,
    'prediction': 1e-4,
    'training steps': 1e-3,
    'reconstruction': 1e-3,
    'continued': 2e-2,
}
"""What the two backends promise each other; a looser table breaks the promise."""


@pytest.mark.parametrize('name', LIMITS)
def test_no_tolerance_is_looser_than_promised(name):
    assert 0 < TOLERANCES[name] <= LIMITS[name]


def test_every_tolerance_is_used():
    sources = [path.read_text() for path in TESTS.rglob('*.py')]
    for name in TOLERANCES:
        assert any(f"TOLERANCES['{name}']" in source for source in sources), name


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda text: text.replace('| `loss` | 1e-5 |', '| `loss` | 1e-5 or so |'), 'understood'),
        (lambda text: text.replace('| `loss` |', '| `gradient` |'), 'two rows'),
    ],
)
def test_a_spoilt_table_is_noticed(spoil, message):
    with pytest.raises(AssertionError, match=message):
        read_tolerances(spoil(SPEC.read_text(encoding='utf-8')))
