"""What Ptychodus' start waits for: nothing that a reconstruction alone needs."""

import json

from ptychodus_torch_plugin.integration.described import FILE, describe, described
from ptychodus_torch_plugin.integration.entries import ENTRIES

from .installed import answer

PTYCHODUS = 'import ptychodus.api.reconstruct, ptychodus.api.settings, ptychodus.api.product'
CREATE = """
from ptychodus_torch_plugin.integration.library import create_library
library = create_library(ptychodus.api.settings.SettingsRegistry())
assert len(list(library)) >= 6
"""
LATE = {
    f'ptychodus_torch_plugin.{name}'
    for name in ('config', 'scan', 'arrays', 'integration.scans', 'backends.protocol', 'api')
}
LIBRARIES = {'pydantic', 'scipy', 'skimage', 'matplotlib', 'h5py', 'yaml', 'safetensors', 'typer'}
FRAMEWORKS = {'torch', 'lightning', 'tensorflow', 'keras'}


def test_the_library_builds_no_settings_and_loads_nothing_for_reconstructions(tmp_path):
    code = f'import sys\n{PTYCHODUS}\nbefore = set(sys.modules)\n{CREATE}'
    loaded, _ = answer(tmp_path / 'home', f'{code}\nprint(sorted(set(sys.modules) - before))')
    assert 'ptychodus_torch_plugin.integration.library' in loaded
    assert not LATE & set(loaded)
    assert not (LIBRARIES | FRAMEWORKS) & {name.partition('.')[0] for name in loaded}


def test_what_settings_take_is_what_the_configuration_says():
    """If this fails, run `python tests/plugin/make_settings.py`."""
    expected = json.loads(json.dumps(describe(entry.path for entry in ENTRIES)))
    assert described() == expected, f'{FILE} is out of date'


def test_packages_are_looked_through_once(tmp_path):
    count = """
from importlib import metadata
calls, found = [], metadata.entry_points
metadata.entry_points = lambda **groups: calls.append(groups) or found(**groups)
from ptychodus_torch_plugin.integration.extensions import create_libraries, create_views
libraries = create_libraries(ptychodus.api.settings.SettingsRegistry())
create_views(dict.fromkeys(()), None)
print((sorted(libraries), len(calls)))
"""
    (libraries, calls), _ = answer(tmp_path / 'home', f'{PTYCHODUS}\n{count}')
    assert libraries == ['PINN']
    assert calls == 1
