"""The TensorFlow backend, with Keras layers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ptychodus_torch_plugin.backends.tensorflow.quiet import quiet_import
from ptychodus_torch_plugin.errors import BackendUnavailableError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.backends.tensorflow.backend import TensorFlowBackend

__all__ = ['TensorFlowBackend']


def __getattr__(name: str) -> Any:
    # Looking at the package must not import tensorflow (`registry._availability` does).
    if name == 'TensorFlowBackend':
        with quiet_import():
            _import_frameworks()
        from ptychodus_torch_plugin.backends.tensorflow.backend import TensorFlowBackend

        return TensorFlowBackend
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _import_frameworks() -> None:
    """Import TensorFlow and Keras; `BackendUnavailableError` unless Keras runs on TensorFlow."""
    try:
        import_module('tensorflow')
        found = import_module('keras').backend.backend()
    except ValueError as error:
        found = f'what it does not know ({error})'
    except ImportError as error:
        if error.name is None or error.name.startswith(('tensorflow', 'keras')):
            raise
        found = f'what is not installed ({error})'
    if found != 'tensorflow':
        raise BackendUnavailableError(
            f'TensorFlow backend selected, but Keras runs on {found}; expected tensorflow. Set the '
            'environment variable KERAS_BACKEND=tensorflow, or leave it out and remove "backend" '
            'from ~/.keras/keras.json.'
        )
