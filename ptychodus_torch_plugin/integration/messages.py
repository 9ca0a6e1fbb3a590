"""What the process of Ptychodus and the one with the framework say to each other.

Plain data that both sides can make without a framework, without Ptychodus and without Qt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray
    from ptychodus_torch_plugin.backends.protocol import Reconstruction
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.frame import ObjectFrame
    from ptychodus_torch_plugin.scan import ScanData

Losses = Sequence[tuple[int, float]]
"""Pairs (epoch, loss)."""


@dataclass(frozen=True)
class TrainFiles:
    """Train on scan files.

    Attributes
    ----------
    run
        Backend and settings; N is that of the scans.
    files
        Scan files, or folders with product.h5 and diffraction.h5.
    test_file
        A scan to reconstruct after the training, to tell how well; or `None`.
    bundle
        Where the model goes; a logger writes into a folder beside it.
    checkpoints
        Folder of the checkpoints; training goes on from those that an interrupted run left there.
    """

    run: RunConfig
    files: Sequence[Path]
    test_file: Path | None
    bundle: Path
    checkpoints: Path


@dataclass(frozen=True)
class FitScan:
    """Train on one scan and reconstruct it; attributes as above."""

    run: RunConfig
    scan: ScanData
    bundle: Path
    checkpoints: Path


@dataclass(frozen=True)
class Infer:
    """Reconstruct a scan by the model in `bundle`.

    Attributes
    ----------
    run
        Settings; of its `model` at most the sweeps matter.
    bundle
        Where the model is.
    scan
        The scan.
    sweeps_of_run
        Whether the network stands between the sweeps of `run`, and not between those with which it
        was trained.
    """

    run: RunConfig
    bundle: Path
    scan: ScanData
    sweeps_of_run: bool = False


Job = TrainFiles | FitScan | Infer


@dataclass(frozen=True)
class Stop:
    """The wish to end well: what there is so far is kept."""


@dataclass(frozen=True)
class Working:
    """The share of the work that is done, 0 to 1."""

    share: float


@dataclass(frozen=True)
class Said:
    """A line for the log."""

    level: int
    text: str


@dataclass(frozen=True)
class Trained:
    """One more epoch is done: the losses so far."""

    losses: Losses
    validation_losses: Losses


@dataclass(frozen=True)
class Seen:
    """An object on the way or at the end: `object_` (h, w) on `frame`, `probe` (m, N, N).

    `positions_px` (n, 2) float64 on the scan's object grid, if they were refined.
    """

    object_: ComplexArray
    frame: ObjectFrame
    probe: ComplexArray
    losses: Losses
    positions_px: PositionArray | None = None

    @classmethod
    def of(cls, found: Reconstruction, losses: Losses) -> Seen:
        """Return what is to be seen of a reconstruction."""
        positions_px = None if found.exposures is None else found.exposures.positions_px
        return cls(found.object_, found.frame, found.probe, losses, positions_px)


@dataclass(frozen=True)
class Failed:
    """The work ended in an error: the name of its class, one sentence, and the traceback."""

    kind: str
    text: str
    traceback: str


@dataclass(frozen=True)
class Finished:
    """The work is done.

    Attributes
    ----------
    model_saved
        Whether a model was written to the bundle of the job.
    stopped
        Whether it ended early on request.
    """

    model_saved: bool = False
    stopped: bool = False


Message = Working | Said | Trained | Seen | Failed | Finished
