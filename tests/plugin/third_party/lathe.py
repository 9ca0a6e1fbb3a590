"""A library of somebody else: trains in no time, and returns the product that it is given."""

import os
import sys

from ptychodus.api.reconstruct import (
    ReconstructorLibrary,
    ReconstructOutput,
    TrainableReconstructor,
    TrainOutput,
)


class Turn(TrainableReconstructor):
    name = 'Turn'
    trained = False

    def __init__(self, library):
        self.library = library

    def get_progress_goal(self):
        return 2

    def reconstruct(self, parameters):
        self.library.get_logger().warning('turned')
        yield ReconstructOutput(parameters.product, 2)

    def train(self, input_path, output_path):
        yield TrainOutput([], [], 1)
        self.trained = True

    def is_model_loaded(self):
        return self.trained

    def get_model_file_filter(self):
        return 'Lathe (*.lathe)'

    def get_model_file_extension(self):
        return '.lathe'

    def load_model_from_file(self, file_path):
        self.trained = True

    def save_model(self, file_path):
        file_path.touch()

    def get_training_data_file_filter(self):
        return 'Wood (*.wood)'

    def export_training_data(self, file_path, parameters):
        file_path.touch()


class Lathe(ReconstructorLibrary):
    name = 'Lathe'

    def __init__(self, settings_registry):
        super().__init__('lathe')
        group = settings_registry.create_group(self.name)
        self.speed = group.create_integer_parameter('Speed', 100)
        self.only = Turn(self)

    def __iter__(self):
        return iter([self.only])

    def attach(self, should_stop, on_progress):
        self.should_stop, self.on_progress = should_stop, on_progress


def create_views(library, file_dialog_factory):
    """A panel of this name for the one reconstructor."""
    from PyQt5.QtWidgets import QLabel

    class Panels:
        def create_view_controller(self, reconstructor_name):
            return QLabel(f'speed of {reconstructor_name}: {library.speed.get_value()}')

    return Panels()


def refuse(*_):
    raise OSError('the chuck is open')


def print_and_die(*_):
    for stream, text in ((sys.stdout, 'out of wood'), (sys.stderr, 'chisel fault')):
        stream.write(f'{text}\n')
        stream.flush()
    os._exit(3)
