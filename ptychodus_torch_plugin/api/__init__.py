"""The functions that users call: `train`, `reconstruct`, `load_bundle`.

A backend is named, never guessed at half-way: its framework is imported when it is first needed,
and a missing one is an error that says how to install it.
"""

from ptychodus_torch_plugin.api.loading import load_bundle
from ptychodus_torch_plugin.api.model import Model
from ptychodus_torch_plugin.api.reconstruction import reconstruct, with_sweeps
from ptychodus_torch_plugin.api.sizes import check_fits, check_size
from ptychodus_torch_plugin.api.training import train

__all__ = [
    'Model',
    'check_fits',
    'check_size',
    'load_bundle',
    'reconstruct',
    'train',
    'with_sweeps',
]
