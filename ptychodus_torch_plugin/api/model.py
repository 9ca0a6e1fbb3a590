"""A model with all that its bundle carries, and its way there; back leads `loading`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import ComplexArray
from ptychodus_torch_plugin.backends.protocol import Backend, EpochRecord, TrainedModel
from ptychodus_torch_plugin.config import ModelConfig, TrainingConfig
from ptychodus_torch_plugin.errors import OutputError
from ptychodus_torch_plugin.scan import ScanData

if TYPE_CHECKING:
    from ptychodus_torch_plugin.bundle.archive import Bundle

BUNDLE_NAME = 'wts.h5.zip'


@dataclass(frozen=True)
class Model:
    """A model, trained or not, with all that its bundle carries.

    Attributes
    ----------
    backend
        The backend that computes it.
    trained
        The backend's own model.
    training
        How it was trained; `None` if it was not.
    history
        Losses per epoch.
    best_epoch
        Epoch whose weights it has, counted from 1; `None` if no epoch was completed.
    stopped
        'patience' or 'request' if training ended early.
    provenance
        Where it came from: data fingerprints, seeds, date.
    optimizer
        State of the optimiser, for training on; `None` if there is none.
    """

    backend: Backend
    trained: TrainedModel
    training: TrainingConfig | None = None
    history: Sequence[EpochRecord] = ()
    best_epoch: int | None = None
    stopped: str = ''
    provenance: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, NDArray[np.float32]] | None = None

    @property
    def config(self) -> ModelConfig:
        """What the model is."""
        return self.trained.config

    @property
    def probe(self) -> ComplexArray:
        """Probe (m, N, N) complex64 of the first training scan; trained, if that was asked for."""
        return self.trained.calibration.probe

    @property
    def mean_counts(self) -> float:
        """Mean total counts of a pattern of the training scans."""
        return self.trained.calibration.mean_counts

    def was_trained_on(self, scan: ScanData) -> bool:
        """Return whether a scan is one of those that the model was trained on."""
        prints = [known.get('sha256') for known in self.provenance.get('scans', ())]
        return scan.fingerprint() in prints

    def save(self, path: str | Path, *, preview_png: bytes | None = None) -> Path:
        """Write the bundle `path` (a file, or a folder that gets `wts.h5.zip`); return its path."""
        from ptychodus_torch_plugin.bundle.archive import write_bundle

        file = Path(path)
        if file.is_dir() or not file.suffix:
            try:
                file.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f'cannot make the folder {file} for the model: {error.strerror}; expected a '
                    'folder, or a file name with a suffix such as .zip.'
                ) from error
            file = file / BUNDLE_NAME
        write_bundle(file, _to_bundle(self, preview_png))
        return file


def _to_bundle(model: Model, preview_png: bytes | None) -> Bundle:
    from ptychodus_torch_plugin.bundle.archive import Bundle
    from ptychodus_torch_plugin.bundle.manifest import Normalisation

    config = model.config
    return Bundle(
        backend=model.backend.name,
        model_settings=config.to_json(),
        training_settings=None if model.training is None else model.training.to_json(),
        normalisation=Normalisation(
            mean_counts=model.mean_counts,
            input_scale=model.trained.calibration.input_scale,
            probe_scale=float(np.linalg.norm(model.probe)),
        ),
        weights=model.trained.export_weights(),
        probe=model.probe,
        history=[
            {'epoch': r.epoch, 'loss': r.loss, 'validation_loss': r.validation_loss}
            for r in model.history
        ],
        producer={'ptychodus-torch-plugin': _own_version(), **model.backend.versions()},
        provenance=model.provenance,
        optimizer=model.optimizer,
        preview_png=preview_png,
    )


def _own_version() -> str:
    from importlib.metadata import version

    return version('ptychodus-torch-plugin')
