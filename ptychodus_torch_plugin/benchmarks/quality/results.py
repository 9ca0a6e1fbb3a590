"""What a run of the set found: an outcome for each case and method, and the JSON of them all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from ptychodus_torch_plugin.benchmarks.quality.cases import Case
from ptychodus_torch_plugin.config.settings import Settings
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

CONVERGED_DB = 0.1
"""An engine has converged when its phase PSNR is so close to its best."""


class Point(Settings):
    """One object, and the way to it."""

    stage: str
    """What made it: '40 epochs', or a method's own stages."""
    cpu_s: float = Field(ge=0.0)
    """Processor time of all threads up to it, imports left out."""
    metrics: dict[str, Any]
    """`metrics.ObjectMetrics` as JSON types."""

    @property
    def phase_psnr_dB(self) -> float:
        """Phase PSNR; minus infinity where there is none."""
        value = self.metrics['phase_psnr_dB']
        return float('-inf') if value is None else float(value)


class Outcome(Settings):
    """What one method made of one case."""

    case: str
    """The case."""
    method: str
    """The method."""
    backend: str = ''
    """Who computed; empty for other programs."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The settings, as they were for this case."""
    status: Literal['ok', 'not run', 'failed'] = 'ok'
    """Whether there is an object."""
    reason: str = ''
    """Why not."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of what computed."""
    points: tuple[Point, ...] = ()
    """Objects in the order of their making: one of this package, one for each look at a peer."""
    exhausted: bool = False
    """Whether a peer was still getting better when it had to stop."""

    @property
    def best(self) -> Point | None:
        """The object with the highest phase PSNR; None without any."""
        return max(self.points, key=lambda point: point.phase_psnr_dB, default=None)

    def cpu_s(self) -> float | None:
        """Return the processor time until it is within `CONVERGED_DB` of its best.

        Between two looks the PSNR is taken to rise evenly with time.
        """
        if self.best is None:
            return None
        wanted = self.best.phase_psnr_dB - CONVERGED_DB
        if self.points[0].phase_psnr_dB >= wanted:
            return self.points[0].cpu_s
        before, after = next(
            pair for pair in pairwise(self.points) if pair[1].phase_psnr_dB >= wanted
        )
        share = (wanted - before.phase_psnr_dB) / (after.phase_psnr_dB - before.phase_psnr_dB)
        return before.cpu_s + share * (after.cpu_s - before.cpu_s)

    def metric(self, name: str) -> float | None:
        """Return a metric of the best object; None where it is not known."""
        value = None if self.best is None else self.best.metrics[name]
        return None if value is None else float(value)


class Report(Settings):
    """All that one run found."""

    format: Literal['ptychodus-torch-plugin quality'] = 'ptychodus-torch-plugin quality'
    """What the file is."""
    version: Literal[1] = 1
    """Of the format."""
    date: str
    """When, in UTC."""
    set_name: str
    """'quick', 'standard' or 'full'."""
    threads: int
    """Threads of every computation."""
    machine: dict[str, Any]
    """Processor, memory, versions; no names."""
    cases: tuple[Case, ...]
    """The cases, whole."""
    titles: dict[str, str]
    """Heading of every method."""
    peers: tuple[str, ...]
    """Which of them are other programs."""
    outcomes: tuple[Outcome, ...] = ()
    """What was found."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `quality --output_dir` wrote.

        Raises
        ------
        InputNotFoundError, ConfigError
            If there is no such file, or it is no report of this version.
        """
        if not path.is_file():
            raise InputNotFoundError(f'{path} does not exist; expected a JSON file of quality.')
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f'{path} is no JSON: {error}; expected a file of quality.') from error
        return cls.parse(values, source=str(path))

    def beside(self, earlier: Report) -> Report:
        """Return the report with the methods of an earlier one beside its own, where cases agree.

        Raises
        ------
        ConfigError
            If no case is the same in both.
        """
        same = {case.name for case in self.cases if case in earlier.cases}
        if not same:
            raise ConfigError(
                'the earlier report has none of these cases with the same settings and seed; '
                'expected one of the same set.'
            )
        others = {name: title for name, title in earlier.titles.items() if name not in self.titles}
        kept = [
            outcome
            for outcome in earlier.outcomes
            if outcome.method in others and outcome.case in same
        ]
        return self.model_copy(
            update={
                'titles': self.titles | others,
                'peers': self.peers + tuple(name for name in earlier.peers if name in others),
                'outcomes': self.outcomes + tuple(kept),
            }
        )

    def outcome(self, case: str, method: str) -> Outcome | None:
        """Return what a method made of a case; None if it was not asked to."""
        found = (each for each in self.outcomes if (each.case, each.method) == (case, method))
        return next(found, None)

    def best_peer(self, case: str) -> Outcome | None:
        """Return the outcome of the peer with the highest phase PSNR; None without any."""
        found = [self.outcome(case, name) for name in self.peers]
        ran = [each for each in found if each is not None and each.best is not None]
        return max(ran, key=lambda each: each.metric('phase_psnr_dB') or 0.0, default=None)

    @property
    def failed(self) -> Sequence[Outcome]:
        """Outcomes that ended in an error."""
        return [outcome for outcome in self.outcomes if outcome.status == 'failed']
