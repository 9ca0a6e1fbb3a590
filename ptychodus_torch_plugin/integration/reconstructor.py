"""The reconstructors that Ptychodus shows: three for each backend.

What reads, writes and converts is imported where it is needed: Ptychodus shall start quickly.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ptychodus.api.product import LossValue, Product
from ptychodus.api.reconstruct import (
    ReconstructInput,
    Reconstructor,
    ReconstructOutput,
    TrainableReconstructor,
    TrainOutput,
)

from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.integration.messages import (
    Finished,
    FitScan,
    Infer,
    Job,
    Losses,
    Seen,
    Trained,
    TrainFiles,
    Working,
)
from ptychodus_torch_plugin.integration.workshop import (
    GOAL,
    Workshop,
    done_of,
    faults_logged,
)

SECONDS_BETWEEN_PRODUCTS = 2.0
"""Ptychodus draws a product for about half a second, and freezes if it gets them faster."""

MODEL_SUFFIX = '.zip'
MODEL_FILTER = f'Models of either backend, or of PtychoPINN (*{MODEL_SUFFIX})'
TRAINING_SUFFIX = '.npz'
TRAINING_FILTER = f'Training scans (*{TRAINING_SUFFIX})'
MODEL_NAME = f'model{MODEL_SUFFIX}'
"""Where the batch mode of Ptychodus looks for a model."""


class _BackendReconstructor(Reconstructor):
    """What all have in common: a backend, and products that come as they are made."""

    SUFFIX = ''

    def __init__(self, backend: str, workshop: Workshop) -> None:
        self._backend, self._workshop = backend, workshop
        self._bundle: Path | None = None

    @property
    def name(self) -> str:
        return self._backend + self.SUFFIX

    def get_progress_goal(self) -> int:
        return GOAL

    def _own_file(self, kind: str) -> Path:
        return self._workshop.folder / f'{self.name}-{kind}'

    def _products(self, job: Job, before: Product) -> Iterator[ReconstructOutput]:
        """Yield products as the job makes them, the last one at the end, none too soon."""
        shown = _Shown(before)
        for message in self._workshop.run(job, lambda finished: self._keep(job, finished)):
            match message:
                case Working():
                    shown.done = done_of(message)
                case Seen() | Trained():
                    shown.change(message)
            if shown.is_due():
                yield shown.output()
        if shown.changed:
            shown.done = GOAL
            yield shown.output()

    def _keep(self, job: Job, finished: Finished) -> None:
        if finished.model_saved:
            self._bundle = job.bundle


class _Shown:
    """The product as it is shown, and whether there is anything new in it."""

    def __init__(self, before: Product) -> None:
        self._before = before
        self._seen: Seen | None = None
        self._losses: Losses = ()
        self._last = time.monotonic()
        self.changed, self.done = False, 0

    def change(self, message: Seen | Trained) -> None:
        """Take in a new object, or new losses."""
        if isinstance(message, Seen):
            self._seen = message
        self._losses = message.losses or self._losses
        self.changed = True

    def is_due(self) -> bool:
        """Return whether Ptychodus shall draw it now."""
        return self.changed and time.monotonic() - self._last >= SECONDS_BETWEEN_PRODUCTS

    def output(self) -> ReconstructOutput:
        """Return it."""
        self.changed, self._last = False, time.monotonic()
        if self._seen is None:
            product = replace(self._before, losses=loss_values(self._losses))
        else:
            from ptychodus_torch_plugin.integration.scans import product_of

            seen = self._seen
            product = product_of(
                self._before,
                seen.object_,
                seen.frame,
                seen.probe,
                self._losses,
                positions_px=seen.positions_px,
            )
        return ReconstructOutput(product, self.done)


class FitReconstructor(_BackendReconstructor):
    """Trains a network on the very scan that is reconstructed."""

    SUFFIX = '-fit'

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Train on the scan, and yield the object as it gets better."""
        from ptychodus_torch_plugin.integration.scans import scan_of

        with faults_logged():
            scan = scan_of(parameters)
            run = self._workshop.settings.run_config(self._backend, scan.n_px)
            files = self._own_file(MODEL_NAME), self._own_file('checkpoints')
            yield from self._products(FitScan(run, scan, *files), parameters.product)


class PretrainedReconstructor(_BackendReconstructor):
    """Takes the network of this package, which was trained beforehand."""

    SUFFIX = '-pretrained'

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Yield the object that the network makes of what sweeps give."""
        from ptychodus_torch_plugin.bundle.shipped import SHIPPED_FILE
        from ptychodus_torch_plugin.integration.scans import scan_of

        with faults_logged():
            scan = scan_of(parameters)
            run = self._workshop.settings.pretrained_config(self._backend)
            job = Infer(run, SHIPPED_FILE, scan, sweeps_of_run=True)
            yield from self._products(job, parameters.product)


class NetworkReconstructor(_BackendReconstructor, TrainableReconstructor):
    """Trains a network on exported scans, and reconstructs others by it."""

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Yield the object that the model gives."""
        from ptychodus_torch_plugin.integration.scans import scan_of

        with faults_logged():
            if self._bundle is None:
                raise ConfigError(
                    f'{self.name} has no model; expected one. Choose Train, or Load Model in the '
                    f'menu beside it; or choose {self.name}{PretrainedReconstructor.SUFFIX}, which '
                    f'needs no training, or {self.name}{FitReconstructor.SUFFIX}, which trains on '
                    'the selected scan.'
                )
            scan = scan_of(parameters)
            run = self._workshop.settings.inference_config(self._backend)
            yield from self._products(Infer(run, self._bundle, scan), parameters.product)

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """Train on the scans in a folder; write `model.zip` into another one."""
        from ptychodus_torch_plugin.integration.training_files import training_files

        with faults_logged():
            run = self._workshop.settings.run_config(self._backend, None)
            files, test_file = training_files(input_path)
            checkpoints = output_path / f'{self.name}-checkpoints'
            job = TrainFiles(run, files, test_file, output_path / MODEL_NAME, checkpoints)
            yield from self._training(job)

    def _training(self, job: TrainFiles) -> Iterator[TrainOutput]:
        output = TrainOutput()
        for message in self._workshop.run(job, lambda finished: self._keep(job, finished)):
            match message:
                case Working():
                    output = replace(output, progress=done_of(message))
                case Trained():
                    output = replace(
                        output,
                        training_loss=loss_values(message.losses),
                        validation_loss=loss_values(message.validation_losses),
                    )
            yield output
        yield replace(output, progress=GOAL)

    def _keep(self, job: Job, finished: Finished) -> None:
        """Keep a copy: others train into the same folder."""
        if finished.model_saved:
            own = self._own_file(MODEL_NAME)
            own.parent.mkdir(parents=True, exist_ok=True)
            self._bundle = Path(shutil.copyfile(job.bundle, own))

    def is_model_loaded(self) -> bool:
        return self._bundle is not None

    def get_model_file_filter(self) -> str:
        return MODEL_FILTER

    def load_model_from_file(self, file_path: Path) -> None:
        from ptychodus_torch_plugin.integration.models import checked_model

        self._bundle = checked_model(file_path, self._own_file(f'converted{MODEL_SUFFIX}'))

    def get_model_file_extension(self) -> str:
        return MODEL_SUFFIX

    def save_model(self, file_path: Path) -> None:
        if self._bundle is None:
            raise ConfigError(f'{self.name} has no model to save; expected one. Choose Train.')
        # Not just copied: what is not a model any more is told, and the write is all or nothing.
        from ptychodus_torch_plugin.bundle.archive import read_bundle, write_bundle

        write_bundle(file_path, read_bundle(self._bundle))

    def get_training_data_file_filter(self) -> str:
        return TRAINING_FILTER

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> None:
        from ptychodus_torch_plugin.files.writing import write_ptychodus_npz
        from ptychodus_torch_plugin.integration.scans import scan_of

        named = file_path.suffix == TRAINING_SUFFIX
        path = file_path if named else file_path.with_name(file_path.name + TRAINING_SUFFIX)
        write_ptychodus_npz(path, scan_of(parameters))


def loss_values(losses: Losses) -> list[LossValue]:
    """Return losses as Ptychodus keeps them."""
    return [LossValue(epoch, value) for epoch, value in losses]
