"""The libraries in a real Ptychodus, and what is used of its inside."""

from pathlib import Path

import pytest
from ptychodus.model.task_manager import TaskManager
from ptychodus.model.task_monitor import TaskProgressMonitor

from ptychodus_torch_plugin.integration.bridge import TOUCHED
from ptychodus_torch_plugin.integration.touched import Touched

from .installed import KEY, LATHE, answer, install, write_metadata

START = """
from ptychodus.model import ModelCore
model = ModelCore({settings})
keys = list(model.processing_core.algorithm_parameter.available_reconstructors())
"""
OURS = [
    f'pinn_{backend}{kind}'
    for backend in ('tensorflow', 'pytorch')
    for kind in ('', '-fit', '-pretrained')
]


@pytest.mark.parametrize('touched', [each for group in TOUCHED.values() for each in group], ids=str)
def test_what_is_used_of_ptychodus_is_as_it_was(touched):
    assert touched.fault() == ''


@pytest.mark.parametrize(
    ('touched', 'texts'),
    [
        (
            Touched('ptychodus.model.core.ProcessingCore', parameters=('libraries',)),
            ["no parameter ['libraries']", 'algorithm_libraries', 'processing/core.py:'],
        ),
        (
            Touched('ptychodus.model.core.ProcessingCore', sets=('gui_api', 'processing_api')),
            ["sets no attribute ['gui_api'] any more", 'processing/core.py:'],
        ),
        (
            Touched('ptychodus.model.task_manager.TaskManager.is_ending'),
            ['TaskManager.is_ending is gone', 'task_manager.py:'],
        ),
        (Touched('ptychodus.model.gone.Class'), ['gone.Class is gone', 'model/__init__.py:1']),
    ],
)
def test_what_moved_is_told_with_its_line(touched, texts):
    fault = touched.fault()
    for text in texts:
        assert text in fault


def test_the_line_is_the_definition():
    fault = Touched('ptychodus.model.core.ProcessingCore', parameters=('libraries',)).fault()
    path, _, line = fault.rpartition(', see ')[2].rpartition(':')
    lines = Path(path).read_text().splitlines()
    assert lines[int(line) - 1] == 'class ProcessingCore:'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Packages of others: one that works, and each way to be wrong."""
    folder = tmp_path_factory.mktemp('site')
    install(folder, 'lathe', LATHE, library='Lathe', view='create_views')
    install(folder, 'absent', 'import no_such_package', library='Lathe')
    install(folder, 'broken', LATHE, library='refuse')
    for module, name in {'ours': 'PINN', 'stock': 'Pty-Chi', 'score': 'la_the'}.items():
        source = LATHE.replace("name = 'Lathe'", f"name = '{name}'")
        install(folder, f'the_{module}', source, library='Lathe')
    twice = LATHE.replace('iter([self.only])', 'iter([self.only, self.only])')
    install(folder, 'twice', twice.replace("name = 'Lathe'", "name = 'Twice'"), library='Lathe')
    silent = LATHE.replace("super().__init__('lathe')", 'pass')
    silent = silent.replace("name = 'Lathe'", "name = 'Silent'")
    install(folder, 'silent', silent, library='Lathe')
    install(folder, 'leaving', 'raise SystemExit("no licence")', library='Lathe')
    install(folder, 'nothing', 'def make(_): return None', library='make')
    return folder


def test_each_library_works_or_is_left_out_with_one_warning(tmp_path, site):
    settings = tmp_path / 'settings.ini'
    settings.write_text('[Lathe]\nSpeed = 700\n[Processing]\nAlgorithm = lathe_turn\n')
    code = f'import pathlib{START.format(settings=f"pathlib.Path({str(settings)!r})")}'
    code += 'only = model.processing_core.algorithm_parameter.get_current_reconstructor()\n'
    code += 'print((keys, only.name, only.library.speed.get_value()))'
    (keys, name, speed), warnings = answer(tmp_path / 'home', code, paths=(site,))
    assert [key for key in keys if key in (*OURS, KEY)] == [*OURS, KEY]
    assert len(keys) == len(set(keys))
    assert not [key for key in keys if key.startswith(('la_', 'twice'))]
    assert (name, speed) == ('Turn', 700)
    reasons = {
        'absent:Lathe': "ModuleNotFoundError: No module named 'no_such_package'",
        'broken:refuse': 'OSError: the chuck is open',
        'the_ours:Lathe': "the name 'PINN' is taken",
        'the_stock:Lathe': "the name 'Pty-Chi' is taken",
        'the_score:Lathe': "the name 'la_the' has a _",
        'twice:Lathe': "two of its reconstructors have one name: ['turn', 'turn']",
        'silent:Lathe': "AttributeError: 'Lathe' object has no attribute '_logger'",
        'leaving:Lathe': 'SystemExit: no licence',
        'nothing:make': 'expected a ReconstructorLibrary, received None',
    }
    assert len(warnings) == len(reasons)
    for value, reason in reasons.items():
        (line,) = [line for line in warnings if value in line]
        assert f'is left out: {reason}' in line


def test_a_library_learns_when_to_stop_and_moves_the_bar(tmp_path, site):
    code = (
        START.format(settings='')
        + """
model.processing_core.algorithm_parameter.set_value('lathe_turn')
library = model.processing_core.algorithm_parameter.get_current_reconstructor().library
monitor = model.processing_core.processing_api.task_monitor
told = [library.should_stop()]
monitor.stop_processing()
told.append(library.should_stop())
seen = []
class Pane:
    def _update(self, observable):
        seen.append((monitor.get_progress(), list(monitor.get_log_handler().messages())))
monitor.add_observer(Pane())
library.on_progress(3, 7)
model.run_tasks()
library.get_logger().warning('chips')
library.on_progress(3, 7)
model.run_tasks()
with monitor:
    pass
told.append(library.should_stop())
with model:
    told.append(library.should_stop())
told.append(library.should_stop())
print((told, monitor.get_progress_goal(), seen[0], seen[1]))
"""
    )
    (told, goal, first, second), _ = answer(tmp_path / 'home', code, paths=(site,))
    assert told == [False, True, False, False, True]
    assert (goal, first) == (7, (3, []))
    assert second[0] == 3
    assert second[1][0].endswith('lathe: chips')


def test_installing_twice_changes_nothing_more(tmp_path):
    code = START.format(settings='') + (
        'from ptychodus_torch_plugin.integration.bridge import install\n'
        'import ptychodus.model.core as core, sys\n'
        'before = core.ProcessingCore, len(sys.meta_path)\n'
        'install()\n'
        'print((before == (core.ProcessingCore, len(sys.meta_path)), keys))'
    )
    (same, keys), warnings = answer(tmp_path, code)
    assert same
    assert keys[-len(OURS) :] == OURS
    assert warnings == []


def test_an_unknown_ptychodus_starts_without_us_and_says_why_once(tmp_path):
    write_metadata(tmp_path / 'site', 'ptychodus', '1.8.0')
    code = START.format(settings='') + 'print(keys)'
    keys, warnings = answer(tmp_path / 'home', code, paths=(tmp_path / 'site',))
    assert not set(keys) & set(OURS)
    (warning,) = warnings
    assert 'Ptychodus 1.8.0 is not known to this release of the plugin' in warning
    assert 'expected >=1.7,<1.8' in warning


def test_a_ptychodus_of_other_parameters_starts_without_us_and_says_why_once(tmp_path):
    code = (
        'import ptychodus.model.core as core\n'
        'class ProcessingCore(core.ProcessingCore):\n'
        '    def __init__(self, task_manager, settings_registry, product_api, others):\n'
        '        super().__init__(task_manager, settings_registry, product_api, others)\n'
        'core.ProcessingCore = ProcessingCore' + START.format(settings='') + 'print(keys)'
    )
    keys, warnings = answer(tmp_path, code)
    assert not set(keys) & set(OURS)
    (warning,) = warnings
    assert "has no parameter ['algorithm_libraries']" in warning


WINDOW = """
from pathlib import Path
import sys
sys.path.append({root!r})
from tests.gui.window import Window
from PyQt5.QtWidgets import QApplication, QLabel
from ptychodus.api.io import load_product
from ptychodus.model import ModelCore

if __name__ == '__main__':
    application = QApplication(['test'])
    folder = Path({folder!r})
    with ModelCore() as model:
        window = Window(model, application)
        button = window.actions.reconstruct_button
        data = model.workflow_api.load_assembled_diffraction_data(folder / 'diffraction.h5')
        model.workflow_api.register_product(load_product(folder / 'product.h5'), diffraction=data)
        model.workflow_api.register_product(load_product(folder / 'product.h5'))
        window.choose_product(0)
        window.choose_algorithm('lathe_turn')
        states = [(button.text(), button.isEnabled())]
        panel = window.panel.text()
        window.choose_file(folder)
        error = window.run(window.actions.train_button)
        states.append((button.text(), button.isEnabled()))
        window.choose_product(1)  # it has no patterns
        states.append((button.text(), button.isEnabled()))
        window.choose_product(0)
        before = window.begin(window.actions.train_button)
        window.choose_product(1)
        error = window.finish(before) or error
        states.append((button.text(), button.isEnabled()))
        window.choose_product(0)
        error = window.run(button) or error
        labels = [each.text() for each in window._processing._stacked_widget.findChildren(QLabel)]
        window.controller._run_tasks_timer.stop()
    print((states, panel, [each for each in labels if 'not found' in each], error, window.log))
"""


def test_in_the_window(tmp_path, site, folder, pytestconfig):
    """A panel; one that fails; 'Infer' once there is a model, for products that have patterns."""
    folders = [tmp_path / name for name in ('raising', 'odd')]
    lathe = LATHE.replace("name = 'Lathe'", "name = 'Raising'")
    install(folders[0], 'raising', lathe, library='Lathe', view='refuse')
    odd = LATHE.replace("name = 'Lathe'", "name = 'Odd'").replace('return QLabel', 'return str')
    install(folders[1], 'odd', odd, library='Lathe', view='create_views')
    code = WINDOW.format(root=str(pytestconfig.rootpath), folder=str(folder))
    found, warnings = answer(tmp_path / 'home', code, paths=(site, *folders))
    states, panel, labels, error, log = found
    assert states == [('Infer', False), ('Infer', True), ('Infer', False), ('Infer', False)]
    assert panel == 'speed of turn: 100'
    assert sorted(labels) == ['odd not found!', 'raising not found!']
    assert error is None
    assert 'turned' in log
    panels = [line for line in warnings if 'panel ' in line]
    assert len(panels) == 2
    assert 'OSError: the chuck is open' in panels[1]


def test_the_flags_of_ptychodus_mean_what_they_are_taken_for():
    """Pressing Stop, and closing the window."""
    tasks = TaskManager()
    monitor = TaskProgressMonitor(tasks)
    assert not monitor.is_stopping
    monitor.stop_processing()
    assert monitor.is_stopping
    tasks.start()
    assert not tasks.is_stopping
    tasks.stop(await_finish=False)
    assert tasks.is_stopping
