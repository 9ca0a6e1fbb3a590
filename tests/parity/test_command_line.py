"""Two machines, each with one backend: trained on one, used and trained on by the other."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptychodus_torch_plugin.files.writing import write_scan
from tests.parity.comparison import TOLERANCES
from tests.parity.scenes import simulated_scan
from tests.parity.trainings import BOTH_WAYS

PACKAGES = {'pytorch': ('torch', 'lightning'), 'tensorflow': ('tensorflow', 'keras')}
OTHER = {'pytorch': 'tensorflow', 'tensorflow': 'pytorch'}
RUN = """
import sys
from ptychodus_torch_plugin.cli.app import run
code = run(sys.argv[2:])
loaded = [name for name in sys.argv[1].split() if name in sys.modules]
sys.exit(f'this loaded {loaded}' if loaded else code)
"""


def run(folder: Path, backend: str, *arguments: object) -> dict:
    """Run a command in a process of its own that must not load the other backend's packages."""
    forbidden = ' '.join(PACKAGES[OTHER[backend]])
    words = [*map(str, arguments), '--backend', backend, '--accelerator', 'cpu', '--json']
    ran = subprocess.run(
        [sys.executable, '-c', RUN, forbidden, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope='module')
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('scan') / 'scan.h5'
    write_scan(path, simulated_scan(N=64, n_positions=36, step_px=7.0, probe_modes=2))
    return path


# The other way without a command line: `test_cross_loading`.
@pytest.mark.parametrize(
    ('first', 'second'), [BOTH_WAYS[0], pytest.param(*BOTH_WAYS[1], marks=pytest.mark.slow)]
)
def test_trained_here_and_used_there(tmp_path, scan_file, first, second):
    cnn = ('--gridsize', 2, '--n_filters_scale', 1, '--architecture', 'cnn')
    trained = run(
        *(tmp_path, first, 'train', scan_file, *cnn, '--output_dir', 'one'),
        *('--batch_size', 4, '--epochs', 2, '--scheduler', 'constant', '--probe_trainable'),
        *('--test_data_file', scan_file),
    )
    assert trained['backend'] == first

    used = ('infer', '--model_path', 'one', '--test_data', scan_file, '--output_dir', 'used')
    run(tmp_path, second, *used)
    objects = [np.load(tmp_path / name / 'object.npz')['object'] for name in ('one/test', 'used')]
    error = np.linalg.norm(objects[0] - objects[1]) / np.linalg.norm(objects[0])
    assert error < TOLERANCES['reconstruction']

    further = run(
        *(tmp_path, second, 'train', scan_file, '--resume-from', 'one', '--output_dir', 'two'),
        *('--epochs', 1, '--learning-rate', '3e-4'),
    )
    assert further['backend'] == second
    assert further['resume_from'] == str(tmp_path / 'one')
    model = further['settings']['model']
    assert model == trained['settings']['model']
    losses = [
        [r['loss'] for r in json.loads((tmp_path / name / 'history.json').read_text())['epochs']]
        for name in ('one', 'two')
    ]
    assert losses[1][0] < losses[0][-1] < losses[0][0]
