"""Memory that was freed is not asked of the system again."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from ptychodus_torch_plugin.backends.allocator import keep_freed_memory

kept = keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(6):
    if i == 3:
        before = faults()
    block = np.full(2**23, 1.0)  # 64 MiB, above any threshold of glibc's own
    del block
print(kept, faults() - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc is the C library of Linux')
@pytest.mark.parametrize('variable', ['', 'MALLOC_ARENA_MAX'])
def test_large_blocks_are_used_again(variable, monkeypatch):
    for name in ('MALLOC_ARENA_MAX', 'GLIBC_TUNABLES'):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, '4')
    done = subprocess.run(
        [sys.executable, '-c', FAULTS], check=True, capture_output=True, text=True
    )
    kept, faults = done.stdout.split()

    assert kept == str(not variable)
    # Three blocks have 49,152 pages, or 96 where the system gives out large ones.
    assert (int(faults) < 64) == (kept == 'True')
