"""From a bundle to a model, for any backend."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from ptychodus_torch_plugin.api.model import Model
from ptychodus_torch_plugin.backends import registry
from ptychodus_torch_plugin.backends.protocol import EpochRecord
from ptychodus_torch_plugin.bundle.errors import BundleContentError, quoted
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ModelConfig, RunConfig, TrainingConfig
from ptychodus_torch_plugin.legacy import update_legacy_dict


def load_bundle(
    path: str | Path,
    *,
    backend: str | None = None,
    legacy_dict: MutableMapping[str, Any] | None = None,
) -> Model:
    """Return the model in a bundle, or in a folder that holds one, for any backend.

    'pretrained' is the model that comes with this package, unless a file is called like that.

    `legacy_dict` gets the settings in the bundle, before the backend is looked at (see `train`).

    Raises
    ------
    BundleError
        A subclass per defect of the file; nothing in it is ever executed.
    ConfigError
        If it describes a model that this release does not know.
    """
    from ptychodus_torch_plugin.bundle.archive import read_bundle

    bundle = read_bundle(path)
    config = ModelConfig.parse(bundle.model_settings, source=f'{path}: model settings')
    stored = bundle.training_settings
    training = None if stored is None else TrainingConfig.parse(stored, source=str(path))
    if legacy_dict is not None:
        run = RunConfig(backend=backend, model=config, training=training or TrainingConfig())
        update_legacy_dict(legacy_dict, run)
    engine = registry.get_backend(backend)
    calibration = Calibration(
        bundle.probe,
        bundle.normalisation.mean_counts,
        probe_trained=training is not None and training.probe_trainable,
    )
    trained = engine.build(config, calibration)
    trained.import_weights(bundle.weights)
    return Model(
        backend=engine,
        trained=trained,
        training=training,
        history=_epochs(bundle.history, source=f'{path}: history'),
        best_epoch=bundle.best_epoch,
        stopped=str(bundle.provenance.get('stopped', '')),
        provenance=dict(bundle.provenance),
        optimizer=bundle.optimizer,
    )


def _epochs(history: Sequence[dict[str, Any]], *, source: str) -> list[EpochRecord]:
    """Return the losses of every epoch; the format of bundles does not say how they are called."""
    epochs = []
    for number, row in enumerate(history):
        epoch, loss = row.get('epoch'), row.get('loss')
        if epoch is None or loss is None:
            raise BundleContentError(
                f'{source}[{number}] is {quoted(row)}; expected numbers for epoch and loss. Take '
                'the bundle as it was written.'
            )
        epochs.append(EpochRecord(int(epoch), float(loss), row.get('validation_loss')))
    return epochs
