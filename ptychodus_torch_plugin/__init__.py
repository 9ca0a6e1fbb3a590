"""Physics-informed neural ptychography for Ptychodus, with interchangeable backends.

    from ptychodus_torch_plugin import read_scan, reconstruct, train, with_sweeps

    scan = read_scan('scan.h5')
    model = train([scan])
    result = reconstruct(model, scan)

Importing this package loads nothing heavy: every name below is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model, load_bundle, reconstruct, train, with_sweeps
    from ptychodus_torch_plugin.backends.protocol import Progress, Reconstruction
    from ptychodus_torch_plugin.backends.registry import Availability, available_backends
    from ptychodus_torch_plugin.config import (
        ExecutionConfig,
        InferenceConfig,
        ModelConfig,
        RunConfig,
        SweepConfig,
        TrainingConfig,
    )
    from ptychodus_torch_plugin.errors import PluginError
    from ptychodus_torch_plugin.evaluation import Evaluation, evaluate, evaluate_halves
    from ptychodus_torch_plugin.files.options import ReadOptions
    from ptychodus_torch_plugin.files.reading import read_scan
    from ptychodus_torch_plugin.files.writing import write_scan
    from ptychodus_torch_plugin.legacy import update_legacy_dict
    from ptychodus_torch_plugin.optics import Optics
    from ptychodus_torch_plugin.scan import ScanData
    from ptychodus_torch_plugin.simulate import SimulationConfig, simulate_scan
    from ptychodus_torch_plugin.workflow import run_workflow

_HOMES = {
    'Availability': 'backends.registry',
    'Evaluation': 'evaluation',
    'ExecutionConfig': 'config',
    'InferenceConfig': 'config',
    'Model': 'api',
    'ModelConfig': 'config',
    'Optics': 'optics',
    'PluginError': 'errors',
    'Progress': 'backends.protocol',
    'ReadOptions': 'files.options',
    'Reconstruction': 'backends.protocol',
    'RunConfig': 'config',
    'ScanData': 'scan',
    'SimulationConfig': 'simulate',
    'SweepConfig': 'config',
    'TrainingConfig': 'config',
    'available_backends': 'backends.registry',
    'evaluate': 'evaluation',
    'evaluate_halves': 'evaluation',
    'load_bundle': 'api',
    'read_scan': 'files.reading',
    'reconstruct': 'api',
    'run_workflow': 'workflow',
    'simulate_scan': 'simulate',
    'train': 'api',
    'update_legacy_dict': 'legacy',
    'with_sweeps': 'api',
    'write_scan': 'files.writing',
}

__all__ = [
    'Availability',
    'Evaluation',
    'ExecutionConfig',
    'InferenceConfig',
    'Model',
    'ModelConfig',
    'Optics',
    'PluginError',
    'Progress',
    'ReadOptions',
    'Reconstruction',
    'RunConfig',
    'ScanData',
    'SimulationConfig',
    'SweepConfig',
    'TrainingConfig',
    'available_backends',
    'evaluate',
    'evaluate_halves',
    'load_bundle',
    'read_scan',
    'reconstruct',
    'run_workflow',
    'simulate_scan',
    'train',
    'update_legacy_dict',
    'with_sweeps',
    'write_scan',
]


def __getattr__(name: str) -> Any:
    if name == '__version__':
        from importlib.metadata import version

        return version('ptychodus-torch-plugin')
    if name in _HOMES:
        return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return [*__all__, '__version__']
