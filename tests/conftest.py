"""For all tests: what is random is the same every time, and a busy machine fails nobody."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile('steady', deadline=None, derandomize=True, print_blob=True)
settings.load_profile('steady')

FOLDER_VARIABLE = 'PTYCHODUS_TORCH_PLUGIN_DATA'
FALLBACK_FOLDER = Path(__file__).parents[2] / 'shared' / 'data'
STAR_NAME = 'siemens-star-small.npz.bz2'


@pytest.fixture(scope='session')
def star_path():
    """The measured Siemens star of the public tike test data; it is not part of the repository."""
    named = os.environ.get(FOLDER_VARIABLE)
    path = (FALLBACK_FOLDER if named is None else Path(named)) / STAR_NAME
    if named is None and not path.is_file():
        pytest.skip(f'no measured scan: {FOLDER_VARIABLE} names no folder with {STAR_NAME}')
    assert path.is_file(), f'{FOLDER_VARIABLE} is {named}, which holds no {STAR_NAME}'
    return path
