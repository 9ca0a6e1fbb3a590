"""What `infer` does: find the model and its settings, reconstruct, write the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychodus_torch_plugin.bundle.shipped import PRETRAINED, is_shipped
from ptychodus_torch_plugin.cli.following import FollowOptions, follow_into
from ptychodus_torch_plugin.cli.halves import Taken
from ptychodus_torch_plugin.cli.inference_options import CNN_SETTINGS, SweepOptions
from ptychodus_torch_plugin.cli.options import given
from ptychodus_torch_plugin.cli.parts import Share, parts_of, remove_parts
from ptychodus_torch_plugin.cli.progress import Display
from ptychodus_torch_plugin.cli.reconstruction import Outcome, as_in_training, reconstruct_into
from ptychodus_torch_plugin.cli.settings import load_backend, run_config
from ptychodus_torch_plugin.errors import ConfigError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.files.growing import ScanSoFar
    from ptychodus_torch_plugin.placed_objects import PlacedObject
    from ptychodus_torch_plugin.scan import ScanData


def check_choice(model_path: Path | None, sweeps: SweepOptions) -> Path | None:
    """Return the model to take, the package's own if none was named; None for sweeps alone."""
    if model_path is None:
        return Path(PRETRAINED) if sweeps.architecture is None else None
    if sweeps.architecture is not None or (given(sweeps) and not is_shipped(model_path)):
        raise ConfigError(
            f'{model_path} says how many sweeps and probe modes it takes; expected no '
            '--architecture, --sweeps, --probe-modes or --refine-probe along with a model. '
            '--refine sets the sweeps after the network.'
        )
    return model_path


def load(path: Path, backend: str | None, sweeps: SweepOptions, display: Display) -> Model:
    """Return the model in a bundle, with the sweeps that were asked for."""
    with display.busy(f'Loading {path.name}'):
        from ptychodus_torch_plugin.api import load_bundle, with_sweeps

        model = load_bundle(path, backend=backend)
        changes = {name.split('.')[-1]: value for name, value in given(sweeps).items()}
        return with_sweeps(model, **changes) if changes else model


def check_fit(
    model: Model | None, gridsize: int | None, chosen: Mapping[str, Any], *, in_parts: bool
) -> None:
    """Refuse a model (None: sweeps alone) for other groups, and what means nothing to it."""
    architecture = 'none' if model is None else model.config.architecture
    made_for = 1 if model is None else model.config.gridsize
    if gridsize not in (None, made_for):
        raise ConfigError(
            f'the model is for gridsize = {made_for} (architecture {architecture!r}), but '
            f'--gridsize {gridsize} was asked for; expected --gridsize {made_for}, or none: the '
            f'model knows its own. Or train a model for gridsize = {gridsize}.'
        )
    strange = [path.split('.')[1] for path in CNN_SETTINGS.values() if path in chosen]
    if strange and architecture != 'cnn':
        raise ConfigError(
            f"{', '.join(strange)}: for architecture 'cnn' alone, but the model is "
            f'{architecture!r}; expected none of them.'
        )
    if in_parts:
        from ptychodus_torch_plugin.parts import check_parts

        check_parts(architecture)


def with_settings(
    model: Model | None,
    scan: ScanData,
    chosen: Mapping[str, Any],
    backend: str | None,
    display: Display,
) -> tuple[Model, RunConfig]:
    """Return the model, or without one sweeps alone, and the settings of the run on a scan."""
    if model is not None:
        return model, run_config({**as_in_training(model, scan), **chosen})
    load_backend(backend, display)
    run = run_config(chosen, n_px=scan.n_px)
    from ptychodus_torch_plugin.api import train

    return train([scan], run.model, backend=backend), run


@dataclass(frozen=True)
class Told:
    """What the user is told: figures, but none of a part, and the files by name."""

    figures: dict[str, Any]
    files: dict[str, Path]

    @classmethod
    def of(cls, outcome: Outcome) -> Told:
        """Tell all of it."""
        return cls(outcome.metrics, outcome.files)


@dataclass(frozen=True)
class Task:
    """What reconstructs, with which settings, what it is compared with, and where results go."""

    folder: Path
    model: Model
    run: RunConfig
    display: Display
    truth: PlacedObject | None

    def whole(self, taken: Taken) -> Told:
        """Reconstruct a scan, or half of it."""
        outcome = reconstruct_into(
            self.folder,
            self.model,
            taken.scan,
            self.run,
            self.display,
            truth=self.truth,
            remarks=taken.remarks,
        )
        return Told.of(outcome)

    def in_parts(self, scan: ScanData, share: Share) -> Told:
        """Do this process's share of a scan."""
        parts = parts_of(self.folder, self.model, scan, self.run, self.display, share)
        if not share.merges:
            return Told({}, {'part': parts[0]})
        outcome = reconstruct_into(
            self.folder, self.model, scan, self.run, self.display, truth=self.truth, parts=parts
        )
        remove_parts(parts, share)
        return Told.of(outcome)

    def followed(self, source: ScanSoFar, options: FollowOptions) -> Told:
        """Reconstruct a scan while it is being measured."""
        scan, result = follow_into(self.folder, self.model, source, self.run, options, self.display)
        outcome = reconstruct_into(
            self.folder, self.model, scan, self.run, self.display, truth=self.truth, result=result
        )
        return Told.of(outcome)
