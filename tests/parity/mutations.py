"""Would the parity tests notice?  `python tests/parity/mutations.py [WORD ...]`.

Breaks one backend at a time in small ways, in a copy of the package, runs the parity tests that are
about that backend, and prints which test caught what.  The exit code is 1 if a mutation survives.
With words, only those mutations whose name, file or backend contains one of them.  It takes about
half an hour, and no test runs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.parity.mutants import Mutant  # noqa: E402 - the script may stand anywhere
from tests.parity.mutants_processor import PROCESSOR  # noqa: E402
from tests.parity.mutants_tensorflow import TENSORFLOW  # noqa: E402
from tests.parity.mutants_torch import TORCH  # noqa: E402

COPIED = ('ptychodus_torch_plugin', 'tests', 'specs', 'pyproject.toml')
TESTS = (
    'tests/{0}/test_stored.py',
    'tests/{0}/test_parity.py',
    'tests/{0}/test_parity_sweeps.py',
    'tests/{0}/test_merging.py',
    'tests/{0}/test_unrolled.py',
    'tests/parity/test_networks.py',
    'tests/parity/test_training_steps.py',
    'tests/parity/test_cross_loading.py',
)
"""Fast and strict ones first: the first failure ends the run."""


def copy_to(folder: Path) -> None:
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(source, target)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy, which comes before any installed package."""
    environment = os.environ | {
        'OMP_WAIT_POLICY': 'PASSIVE',
        'CUDA_VISIBLE_DEVICES': '',
        # A change within a second of the last one must not be taken for the old file.
        'PYTHONDONTWRITEBYTECODE': '1',
        'PYTHONPATH': str(folder),
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def caught_by(folder: Path, backend: str) -> str:
    """Return the first test that fails; an empty text if all pass."""
    tests = [test.format(backend) for test in TESTS]
    ran = run(folder, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', *tests)
    if ran.returncode == 0:
        return ''
    found = re.search(r'^(?:FAILED|ERROR) (.*?)(?: - .*)?$', ran.stdout, re.MULTILINE)
    return found[1] if found else f'pytest ended with {ran.returncode}: {ran.stderr[-300:]}'


def check_copy(folder: Path, backends: set[str]) -> None:
    """Raise an error unless the tests pass in the copy, and it is the copy that they test."""
    where = run(folder, '-c', 'import ptychodus_torch_plugin as p; print(p.__file__)').stdout
    assert Path(where).is_relative_to(folder), f'the tests would run against {where}'
    for backend in backends:
        failed = caught_by(folder, backend)
        assert not failed, f'{failed} fails without any mutation'


def try_out(folder: Path, mutant: Mutant) -> str:
    """Return which test catches a mutant, and leave the copy as it was."""
    path = folder / 'ptychodus_torch_plugin' / 'backends' / mutant.backend / mutant.file
    before = path.read_text()
    path.write_text(mutant.applied_to(before))
    try:
        return caught_by(folder, mutant.backend)
    finally:
        path.write_text(before)


def main(words: list[str]) -> int:
    chosen = [
        mutant
        for mutant in [*TORCH, *TENSORFLOW, *PROCESSOR]
        if not words
        or any(word in f'{mutant.backend} {mutant.file} {mutant.name}' for word in words)
    ]
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_to(folder)
        check_copy(folder, {mutant.backend for mutant in chosen})
        print('| backend | mutation | caught by |\n|---|---|---|', flush=True)  # noqa: T201
        for mutant in chosen:
            test = try_out(folder, mutant)
            survivors += not test
            shown = f'`{test.removeprefix("tests/")}`' if test else '**nothing**'
            print(f'| {mutant.backend} | {mutant.name} | {shown} |', flush=True)  # noqa: T201
    print(f'\n{len(chosen) - survivors} of {len(chosen)} caught')  # noqa: T201
    return 1 if survivors else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
