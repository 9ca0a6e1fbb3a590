"""What a backend says the machine can do: the same kernels in both, each worth what it says."""

import numpy as np
import pytest

from ptychodus_torch_plugin.backends.protocol import OffersLimits
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.benchmarks.measuring import measure_limit, process_clock

NAMES = [
    *('convolution 32-true', 'convolution bf16-mixed'),
    *('fft2 64', 'fft2 128', 'fft2 256'),
]


@pytest.fixture(scope='module')
def kernels(backend):
    found = get_backend(backend)
    assert isinstance(found, OffersLimits)
    return found.limits(1)


def test_every_limit_has_kernels(kernels):
    assert list(kernels) == NAMES
    assert all(each.amount > 0 for group in kernels.values() for each in group)


@pytest.mark.parametrize('name', NAMES)
def test_a_kernel_does_what_it_says(kernels, name):
    for kernel in kernels[name]:
        result = kernel.run()
        values = np.prod(tuple(result.shape))
        if kernel.unit == 'transforms':
            assert values == kernel.amount * int(name.split()[1]) ** 2
        else:
            channels = sorted(result.shape)[1:]
            # Twice 9 multiplications for each value and each input channel, of which there are as
            # many as output channels.
            per_value = kernel.amount / (2 * 9 * values)
            assert per_value in channels


def test_they_can_be_measured(kernels, backend):
    found = measure_limit(backend, 'fft2 64', kernels['fft2 64'], process_clock)
    # Slower than any machine of this century, faster than any yet.
    assert 1e2 < found.per_core_s < 1e8
