"""What a case is told: sizes, backend, threads, and a folder for its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptychodus_torch_plugin.backends.protocol import Backend
from ptychodus_torch_plugin.benchmarks.sizes import Size
from ptychodus_torch_plugin.config import ExecutionConfig


@dataclass(frozen=True)
class Context:
    """What a case is told.

    Attributes
    ----------
    size
        Problem sizes.
    threads
        Threads of every computation.
    folder
        For files; empty at first, and removed afterwards.
    backend
        Who computes, for cases with one.
    ptychi_python
        Python that has pty-chi.
    """

    size: Size
    threads: int
    folder: Path
    backend: Backend | None = None
    ptychi_python: Path | None = None

    @property
    def engine(self) -> Backend:
        """The backend of a case with one."""
        assert self.backend is not None
        return self.backend

    def execution(self, precision: str = '32-true') -> ExecutionConfig:
        """Return settings for the CPU at the wanted number of threads."""
        values = {'accelerator': 'cpu', 'num_threads': self.threads, 'precision': precision}
        return ExecutionConfig.parse(values, source='the benchmark')
