"""What an import loads, seen from a fresh interpreter."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ptychodus_torch_plugin

FRAMEWORKS = {'torch', 'lightning', 'pytorch_lightning', 'tensorflow', 'keras', 'PyQt5'}
LIBRARIES = {'numpy', 'scipy', 'skimage', 'pydantic', 'h5py', 'matplotlib', 'typer', 'rich'}
PACKAGE = 'ptychodus_torch_plugin'


def loaded_by(code, tmp_path):
    """Run `code` in a fresh interpreter; return the top-level modules that it loads."""
    script = (
        f'import json, sys\nbefore = set(sys.modules)\n{code}\n'
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    run = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_the_probe_sees_a_load(tmp_path):
    assert 'numpy' in loaded_by('import numpy', tmp_path)


def test_the_bare_import_loads_nothing_heavy(tmp_path):
    loaded = loaded_by(f'import {PACKAGE}', tmp_path)
    assert PACKAGE in loaded
    assert not loaded & (FRAMEWORKS | LIBRARIES)
    # With these comes half of the standard library: they wait for the version, or for a backend.
    assert not loaded & {'email', 'zipfile', 'inspect', 'logging', 'dataclasses'}


def test_listing_backends_loads_no_framework_and_not_even_numpy(tmp_path):
    code = f'from {PACKAGE} import available_backends\navailable_backends()'
    assert not loaded_by(code, tmp_path) & (FRAMEWORKS | LIBRARIES)


def test_the_api_loads_no_framework(tmp_path):
    loaded = loaded_by(f'import {PACKAGE}.api', tmp_path)
    assert 'numpy' in loaded
    assert not loaded & (FRAMEWORKS | {'scipy', 'h5py', 'matplotlib', 'typer', 'rich'})


def test_every_public_name_resolves_without_a_framework(tmp_path):
    code = f'import {PACKAGE} as p\n[getattr(p, name) for name in (*p.__all__, "__version__")]'
    assert not loaded_by(code, tmp_path) & FRAMEWORKS


def names_for_type_checkers():
    """Return {name: home} of the imports under TYPE_CHECKING in the package's `__init__.py`."""
    tree = ast.parse(Path(ptychodus_torch_plugin.__file__).read_text())
    blocks = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING'
    ]
    return {
        alias.name: statement.module.removeprefix(f'{PACKAGE}.')
        for block in blocks
        for statement in block.body
        for alias in statement.names
    }


def test_type_checkers_and_interpreters_see_the_same_names():
    assert names_for_type_checkers() == ptychodus_torch_plugin._HOMES
    assert sorted(ptychodus_torch_plugin.__all__) == sorted(ptychodus_torch_plugin._HOMES)


def test_a_star_import_and_dir_give_the_public_names():
    scope = {}
    exec(f'from {PACKAGE} import *', scope)
    assert set(ptychodus_torch_plugin.__all__) <= set(scope)
    assert set(dir(ptychodus_torch_plugin)) == {*ptychodus_torch_plugin.__all__, '__version__'}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match='no attribute'):
        _ = ptychodus_torch_plugin.recontsruct
