"""The real main window of Ptychodus, driven as a user drives it, without a screen."""

import logging
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from ptychodus.controller import ControllerCore
from ptychodus.model import ModelCore
from ptychodus.view import ViewCore
from PyQt5.QtWidgets import QApplication

PATIENCE_S = 300.0
"""What comes at all comes in this time, however busy the machine is."""
SECONDS_FOR_THE_LAST_UPDATE = 1.2
"""Ptychodus looks once a second for what its worker has for the window."""


class Window:
    """The main window, its model, and what stands in its Processing panel."""

    def __init__(self, model: ModelCore, application: QApplication) -> None:
        self.model, self._application = model, application
        self.view = ViewCore()
        self.controller = ControllerCore(model, self.view)
        self.controller.show_main_window('test')
        self.view.resize(1500, 950)
        self.view.processing_action.trigger()
        self._processing = self.controller._processing_controller
        self.actions = self._processing._actions_view
        self.status = self.view.processing_status_view
        self.api = model.processing_core.processing_api

    # What a user does

    def choose_algorithm(self, key: str) -> None:
        combo = self._processing._algorithm_view_controller.get_widget()
        index = combo.findText(key)
        assert index >= 0, f'{key} is not among {self.algorithms()}'
        combo.setCurrentIndex(index)
        combo.textActivated.emit(key)
        self.pump(0.1)

    def choose_product(self, index: int) -> None:
        self._processing._product_view_controller.get_widget().setCurrentIndex(index)
        self.pump(0.1)

    def choose_file(self, path: Path) -> None:
        """Answer all dialogs for files and folders with `path`."""
        dialogs = self.controller._file_dialog_factory
        dialogs.get_open_file_path = lambda *_, **__: (path, '')
        dialogs.get_save_file_path = lambda *_, **__: (path, '')
        dialogs.get_existing_directory_path = lambda *_, **__: path

    def load_model(self, path: Path) -> None:
        self.choose_file(path)
        self._processing._load_model_action.trigger()

    def export(self, path: Path) -> None:
        self.choose_file(path)
        self._processing._export_training_data_action.trigger()

    # What a user sees

    def algorithms(self) -> list[str]:
        combo = self._processing._algorithm_view_controller.get_widget()
        return [combo.itemText(i) for i in range(combo.count())]

    def set(self, **values) -> None:
        """Change settings, named GROUP_KEY as in the settings file without PINN."""
        for name, value in values.items():
            group, key = name.split('_')
            self.model.settings_registry[f'PINN{group}'].parameters()[key].set_value(value)

    @property
    def panel(self):
        return self._processing._stacked_widget.currentWidget()

    @property
    def log(self) -> str:
        return self.status.text_edit.toPlainText()

    def plotted_losses(self) -> list[float]:
        return [float(y) for line in self.status.axes.lines for y in line.get_ydata()]

    def product(self, index: int = -1):
        """Return a product; without an index the one that is selected."""
        if index < 0:
            index = self._processing._product_view_controller.get_widget().currentIndex()
        return self.model.product_core.product_repository[index].get_product()

    def photograph(self, path: Path) -> None:
        self.view.grab().save(str(path))

    # Waiting

    def pump(self, seconds: float) -> None:
        self.wait(lambda: False, seconds)

    def wait(self, condition, seconds: float) -> bool:
        """Let the window live until a condition holds; return whether it does in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._application.processEvents()
            time.sleep(0.05)
        return True

    def run(self, button, seconds: float = PATIENCE_S) -> BaseException | None:
        """Press a button, wait for the end of what it starts, and return its error, if any."""
        before = self.begin(button)
        return self.finish(before, seconds)

    def begin(self, button) -> int:
        before = self.api.task_monitor.get_completed_runs()
        assert button.isEnabled()
        button.click()
        return before

    def finish(self, before: int, seconds: float = PATIENCE_S) -> BaseException | None:
        monitor = self.api.task_monitor
        assert self.wait(lambda: monitor.get_completed_runs() > before, seconds), 'it never ends'
        self.pump(SECONDS_FOR_THE_LAST_UPDATE)
        return monitor.get_last_error()


@contextmanager
def main_window(settings: Path | None = None):
    """Start Ptychodus as its own command does, and close it."""
    application = QApplication.instance() or QApplication(['ptychodus'])
    with ModelCore(settings) as model:
        # As Ptychodus' command does, were it not for pytest, which has set up logging already.
        logging.getLogger().setLevel(logging.INFO)
        window = Window(model, application)
        faults: list[BaseException] = []
        # With a hook of its own Qt does not abort, neither now nor when Python takes it apart.
        sys.excepthook = lambda _kind, error, _traceback: faults.append(error)
        try:
            yield window
            assert not faults
        finally:
            window.controller._run_tasks_timer.stop()
            window.view.close()
