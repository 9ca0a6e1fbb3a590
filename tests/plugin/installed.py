"""Other packages as pip would leave them, and programs started beside them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ptychodus

from ptychodus_torch_plugin.integration.shim import NAME
from ptychodus_torch_plugin.integration.support import LIBRARY_GROUP, VIEW_GROUP

LATHE = (Path(__file__).parent / 'third_party' / 'lathe.py').read_text()
KEY = 'lathe_turn'


def install(folder: Path, name: str, source: str, *, version: str = '1.5', **entries: str) -> None:
    """Install a module `name`; `library` and `view` name the functions of its entry points."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{name}.py').write_text(source)
    groups = {'library': LIBRARY_GROUP, 'view': VIEW_GROUP}
    lines = [f'[{groups[kind]}]\n{name} = {name}:{entry}\n' for kind, entry in entries.items()]
    write_metadata(folder, name, version, '\n'.join(lines))


def write_metadata(folder: Path, name: str, version: str, entry_points: str = '') -> None:
    info = folder / f'{name}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    (info / 'entry_points.txt').write_text(entry_points)


def copy_ptychodus(folder: Path) -> Path:
    """Copy Ptychodus to a folder of its own, as `--target` leaves it: the shim is elsewhere."""
    ignored = shutil.ignore_patterns(f'{NAME}.*')  # what is compiled need not be compiled again
    shutil.copytree(Path(ptychodus.__file__).parent, folder / 'ptychodus', ignore=ignored)
    return folder


def run(home: Path, *arguments: object, paths: tuple[Path, ...] = ()):
    """Run Python with these arguments, in a home of its own and with `paths` before all others."""
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get('PYTHONPATH')])])
    changes = {'HOME': str(home), 'PYTHONPATH': path, 'QT_QPA_PLATFORM': 'offscreen'}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=home,
        env=os.environ | changes,
        timeout=300,
        check=False,
    )


def answer(home: Path, code: str, *, paths: tuple[Path, ...] = ()):
    """Run code; return the value of the expression that it prints last, and our warnings."""
    ran = run(home, '-c', code, paths=paths)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *log, last = ran.stdout.splitlines()
    return eval(last), [line for line in log if '[WARNING] ptychodus_torch_plugin' in line]
