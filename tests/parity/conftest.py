"""Both frameworks in one process; where one is missing these tests fail, they never skip.

PyTorch comes first: the two share libraries, and only this order of loading them is sound.
"""

import pytest
import torch

from ptychodus_torch_plugin.backends.registry import get_backend

for name in ('pytorch', 'tensorflow'):
    get_backend(name)


@pytest.fixture(autouse=True, scope='session')
def one_thread():
    """Two pools of threads in one process mostly wait for each other."""
    torch.set_num_threads(1)
