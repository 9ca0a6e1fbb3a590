"""The PyTorch backend, trained by Lightning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychodus_torch_plugin.backends.torch.backend import TorchBackend

__all__ = ['TorchBackend']


def __getattr__(name: str) -> Any:
    # Looking at the package must not import torch (`registry._availability` does).
    if name == 'TorchBackend':
        from ptychodus_torch_plugin.backends.torch.backend import TorchBackend

        return TorchBackend
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
