"""Ptychodus with the plugin in a home of its own, without a screen."""

import os

os.environ['QT_QPA_PLATFORM'] = 'offscreen'  # before anything loads Qt

import subprocess
import sys
from pathlib import Path

import pytest

from ptychodus_torch_plugin.integration.bridge import install
from tests.plugin.scene import measured, write_files

from .window import main_window

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = 'PTYCHODUS_TORCH_PLUGIN_PHOTOGRAPHS'
"""Names the folder where pictures of the window go that somebody wants to look at."""
QUICK = {
    'Model_NumSweepsBefore': 4,
    'Model_NumSweepsAfter': 1,
    'Training_NumEpochs': 3,
    'Training_NumThinnings': 1,
    'Execution_Accelerator': 'cpu',
}


@pytest.fixture(scope='session')
def original():
    return measured()


@pytest.fixture(scope='session')
def folder(original, tmp_path_factory):
    found = tmp_path_factory.mktemp('scan')
    write_files(found, original)
    return found


@pytest.fixture(scope='session')
def home(tmp_path_factory):
    found = tmp_path_factory.mktemp('home')
    before = os.environ.get('HOME')
    os.environ['HOME'] = str(found)
    yield found
    if before is not None:
        os.environ['HOME'] = before


@pytest.fixture(scope='session', autouse=True)
def plugin(home):
    install()


def load(window, folder):
    """Load diffraction data and product; select it, and return its index."""
    api = window.model.workflow_api
    diffraction = api.load_assembled_diffraction_data(folder / 'diffraction.h5')
    product = api.load_product(folder / 'product.h5', diffraction=diffraction)
    window.choose_product(product.get_product_index())
    return product.get_product_index()


@pytest.fixture(scope='session')
def open_window(folder):
    with main_window() as window:
        window.index = load(window, folder)
        yield window


@pytest.fixture
def window(open_window):
    """The window with quick settings, the measured product selected."""
    open_window.set(**QUICK)
    open_window.set(Model_Architecture='unrolled', Training_Objective='automatic')
    open_window.choose_product(open_window.index)
    return open_window


ALONE = """
import sys
import time
from pathlib import Path
from PyQt5.QtWidgets import QComboBox, QLineEdit, QSpinBox
from ptychodus_torch_plugin.integration.bridge import install
from tests.gui.conftest import QUICK, load
from tests.gui.window import PATIENCE_S, main_window

install()
folder, file = Path({folder!r}), Path({file!r})
"""


@pytest.fixture
def alone(folder, tmp_path):
    """Run a script in a process of its own: Qt is not made for windows that come and go."""

    def run(script):
        before = ALONE.format(folder=str(folder), file=str(tmp_path / 'settings.ini'))
        command = [sys.executable, '-c', before + script]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    return run


@pytest.fixture
def photograph():
    """Keep a picture of a window if somebody asked for pictures."""
    wanted = os.environ.get(PHOTOGRAPHS)

    def take(window, name):
        if wanted:
            Path(wanted).mkdir(parents=True, exist_ok=True)
            window.photograph(Path(wanted) / f'{name}.png')

    return take
