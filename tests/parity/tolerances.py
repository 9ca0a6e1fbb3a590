"""The table of `specs/parity-tolerances.md`, which is where tolerances are changed."""

import re
from pathlib import Path

SPEC = Path(__file__).parents[2] / 'specs' / 'parity-tolerances.md'
ROW = re.compile(r'^\| `(?P<name>[^`]+)` \| (?P<allowed>\S+) \| [^|]+ \| [^|]+ \|$', re.MULTILINE)


def read_tolerances(text: str) -> dict[str, float]:
    """Return the largest relative error by quantity."""
    rows = [(row['name'], float(row['allowed'])) for row in ROW.finditer(text)]
    assert len(rows) == text.count('\n| `'), 'a row of the table is not understood'
    assert len(dict(rows)) == len(rows), 'a quantity has two rows'
    return dict(rows)


TOLERANCES = read_tolerances(SPEC.read_text(encoding='utf-8'))
