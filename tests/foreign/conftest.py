"""Archives of both variants, written and converted."""

import pytest

from ptychodus_torch_plugin.foreign.conversion import convert_archive

from .lookalikes import zipped


@pytest.fixture
def tmp_path(tmp_path_factory):
    """A folder that is not named after the test, or messages with a path would match anything."""
    return tmp_path_factory.mktemp('work')


@pytest.fixture
def written(tmp_path):
    """Write the members of an archive; return its path."""

    def write(members):
        path = tmp_path / 'wts.h5.zip'
        path.write_bytes(zipped(members))
        return path

    return write


@pytest.fixture
def converted(written):
    """Write the members of an archive; return the bundle that becomes of it."""

    def convert(members, scan=None):
        return convert_archive(written(members), scan)

    return convert


@pytest.fixture
def refused(converted):
    """Assert that an archive is refused, by which class of error and with which words."""

    def refuse(members, error, words):
        with pytest.raises(error, match=words):
            converted(members)

    return refuse
