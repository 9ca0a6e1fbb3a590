"""What a benchmark found: rows, limits of the machine, and the JSON that holds both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ptychodus_torch_plugin.config.settings import Settings
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

Value = int | float | str
Status = Literal['ok', 'not run', 'failed']


class Timing(Settings):
    """One repetition."""

    cpu_s: float = Field(ge=0.0)
    """Processor time of all threads (core-seconds)."""
    wall_s: float = Field(ge=0.0)
    """Time on the wall."""


class Limit(Settings):
    """What the machine can do, measured by one backend in the process of a case."""

    backend: str
    """Whose convolution or Fourier transform it was."""
    name: str
    """Such as 'convolution 32-true' or 'fft2 64'."""
    unit: str
    """'FLOP' or 'transforms'."""
    per_core_s: float = Field(gt=0.0)
    """Units per core-second, the best of all repetitions."""
    per_s: float = Field(gt=0.0)
    """Units per second on the wall, the best of all repetitions."""


class Work(Settings):
    """What one repetition does."""

    amount: float = Field(1.0, gt=0.0)
    """How many of `unit`."""
    unit: str = 'run'
    """What is counted: 'patterns', 'groups', ..."""
    limit: str = ''
    """Name of the limit that bounds it; empty: none."""
    limit_units: float = Field(0.0, ge=0.0)
    """How much of it, in that limit's units: FLOP, or transforms."""


class Row(Settings):
    """One measured thing at one problem size."""

    case: str
    """The case that measured it."""
    what: str
    """What of the case: 'step' or 'epoch' of 'training', ..."""
    backend: str = ''
    """Who computed; empty where no backend takes part."""
    problem: dict[str, Value] = Field(default_factory=dict)
    """Size of the problem: 'N', 'gridsize', 'patterns', 'modes', ..."""
    status: Status = 'ok'
    """Whether it was measured."""
    reason: str = ''
    """Why not."""
    timings: tuple[Timing, ...] = ()
    """Every repetition."""
    work: Work = Work()
    """What each of them did."""
    limit: Limit | None = None
    """What the machine can do, measured in the same process."""
    peak_bytes: int | None = None
    """Peak resident memory of the process during the repetitions; None: not known here."""
    before_bytes: int | None = None
    """Resident memory before them: imports and inputs."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Parts of the processor time, from 0 to 1."""

    @model_validator(mode='before')
    @classmethod
    def _drop_derived(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if name != 'figures'}
        return values

    def to_json(self) -> dict[str, Any]:
        """Return the row and, under 'figures', what follows from it."""
        return super().to_json() | {'figures': self.figures()}

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two rows of two runs comparable."""
        return self.case, self.what, self.backend, *sorted(self.problem.items())

    def cpu_s(self, *, best: bool = True) -> float | None:
        """Return the best (or the median) processor time; None if nothing was measured."""
        times = [timing.cpu_s for timing in self.timings]
        return (min(times) if best else median(times)) if times else None

    def wall_s(self, *, best: bool = True) -> float | None:
        """Return the best (or the median) time on the wall; None if nothing was measured."""
        times = [timing.wall_s for timing in self.timings]
        return (min(times) if best else median(times)) if times else None

    def per_core_s(self) -> float | None:
        """Return `work.unit` per core-second in the best repetition."""
        return _over(self.work.amount, self.cpu_s())

    def of_limit(self, *, best: bool = True) -> float | None:
        """Return the share of the machine's limit per core-second; None without a limit."""
        rate = _over(self.work.limit_units, self.cpu_s(best=best))
        return None if self.limit is None or not rate else rate / self.limit.per_core_s

    def of_limit_on_the_wall(self) -> float | None:
        """Return the share of the machine's limit per second on the wall, at as many threads."""
        rate = _over(self.work.limit_units, self.wall_s())
        return None if self.limit is None or not rate else rate / self.limit.per_s

    def figures(self) -> dict[str, float | None]:
        """Return what the table shows."""
        return {
            'best_cpu_s': self.cpu_s(),
            'median_cpu_s': self.cpu_s(best=False),
            'best_wall_s': self.wall_s(),
            'median_wall_s': self.wall_s(best=False),
            'per_core_s': self.per_core_s(),
            'of_limit': self.of_limit(),
            'of_limit_median': self.of_limit(best=False),
            'of_limit_on_the_wall': self.of_limit_on_the_wall(),
        }


class Report(Settings):
    """All that one run found."""

    format: Literal['ptychodus-torch-plugin benchmark'] = 'ptychodus-torch-plugin benchmark'
    """What the file is."""
    version: Literal[1] = 1
    """Of the format."""
    date: str
    """When, in UTC."""
    size: str
    """'quick', 'standard' or 'full'."""
    threads: int
    """Threads of every computation, that of the limits too."""
    repeats: int
    """Repetitions of each measurement."""
    machine: dict[str, Any]
    """Processor, memory, versions; no names."""
    limits: tuple[Limit, ...] = ()
    """Every measurement of a limit, one for each process."""
    rows: tuple[Row, ...] = ()
    """Every measurement."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return super().to_json() | {'rows': [row.to_json() for row in self.rows]}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `bench --output_dir` wrote.

        Raises
        ------
        InputNotFoundError, ConfigError
            If there is no such file, or it is no report of this version.
        """
        if not path.is_file():
            raise InputNotFoundError(f'{path} does not exist; expected a JSON file of bench.')
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f'{path} is no JSON: {error}; expected a file of bench.') from error
        return cls.parse(values, source=str(path))

    def best_limits(self) -> list[Limit]:
        """Return the highest rate of each limit and backend, in the order of first measurement."""
        best: dict[tuple[str, str], Limit] = {}
        for limit in self.limits:
            key = limit.backend, limit.name
            if key not in best or limit.per_core_s > best[key].per_core_s:
                best[key] = limit
        return list(best.values())

    @property
    def failed(self) -> Sequence[Row]:
        """Rows of cases that ended in an error."""
        return [row for row in self.rows if row.status == 'failed']


def _over(amount: float, seconds: float | None) -> float | None:
    return amount / seconds if seconds else None
