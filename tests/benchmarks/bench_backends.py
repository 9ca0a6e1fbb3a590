"""What a backend computes, in pytest-benchmark's tables."""

from importlib import util

import pytest

from ptychodus_torch_plugin.backends.registry import get_backend

FRAMEWORKS = {'pytorch': 'torch', 'tensorflow': 'tensorflow'}
INSTALLED = [name for name, package in FRAMEWORKS.items() if util.find_spec(package) is not None]

STEPS = [
    ('training', None),
    ('inference', 'batch'),
    ('bundle', 'save'),
    ('bundle', 'load'),
    ('sweeps', None),
    ('end-to-end', None),
]

for name in INSTALLED:
    # PyTorch first: the two share libraries, and only this order of loading them is sound.
    get_backend(name)


@pytest.mark.parametrize('backend', INSTALLED)
@pytest.mark.parametrize(
    ('case', 'what'), STEPS, ids=[': '.join(filter(None, step)) for step in STEPS]
)
def test_step(timed, one_of, case, what, backend):
    timed(one_of(case, what, get_backend(backend)))


@pytest.mark.parametrize('backend', INSTALLED)
@pytest.mark.parametrize('name', ['convolution 32-true', 'convolution bf16-mixed', 'fft2 64'])
def test_limit(benchmark, name, backend):
    kernel = get_backend(backend).limits(1)[name][0]
    benchmark.extra_info[kernel.unit] = kernel.amount
    benchmark.pedantic(kernel.run, rounds=20, warmup_rounds=2)
