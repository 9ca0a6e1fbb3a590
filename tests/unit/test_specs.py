"""What the specifications say proves a rule does exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('spec', 'fewest'), [('backend-api.md', 30), ('ptychodus-integration.md', 25)]
)
def test_every_test_that_a_specification_names_exists(spec, fewest):
    text = (ROOT / 'specs' / spec).read_text()
    home = ''
    named = re.findall(r'`(?:(\w+/test_\w+\.py):\s+)?(test_\w+)`', text)
    assert len(named) > fewest
    for file, test in named:
        # A list after a file name goes on in that file; the table is about one file.
        home = file or home
        places = [home, 'both/test_execution.py']
        found = [f'def {test}(' in (ROOT / 'tests' / place).read_text() for place in places]
        assert any(found), f'{home}: {test}'


@pytest.mark.parametrize('spec', sorted((ROOT / 'specs').glob('*.md')), ids=lambda path: path.name)
def test_every_file_that_a_specification_names_exists(spec):
    named = re.findall(r'`(tests/[\w/]+\.py)`', spec.read_text())
    for file in named:
        assert (ROOT / file).is_file(), file
