"""Training, from fresh weights or a model; and where the result says that it came from."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.api.model import Model
from ptychodus_torch_plugin.api.sizes import check_size
from ptychodus_torch_plugin.backends import registry
from ptychodus_torch_plugin.backends.protocol import (
    Backend,
    OnEvent,
    ShouldStop,
    TrainedModel,
    TrainingResult,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import ExecutionConfig, ModelConfig, RunConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError
from ptychodus_torch_plugin.legacy import update_legacy_dict
from ptychodus_torch_plugin.ranks import own_rank
from ptychodus_torch_plugin.scan import ScanData


def train(
    scans: Sequence[ScanData],
    model: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    execution: ExecutionConfig | None = None,
    *,
    backend: str | None = None,
    start: Model | None = None,
    checkpoint_dir: Path | None = None,
    log_dir: Path | None = None,
    resume: bool = False,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
    legacy_dict: MutableMapping[str, Any] | None = None,
) -> Model:
    """Train a network on one scan or many.

    Parameters
    ----------
    scans
        Scans of one pattern size N; the first one's probe goes into the bundle.
    model, training, execution
        Settings; `None` takes the defaults for the scans' N.
    backend
        'pytorch', 'tensorflow' or a third party's; `None` takes the preferred one installed.
    start
        A model of any backend to train on, with its optimiser's state if it has one; its scales
        stay.  `None` starts from fresh weights.
    checkpoint_dir
        Where checkpoints go after every epoch; `None` keeps none.
    log_dir
        Where the logger of the execution settings writes; `None` logs nothing.
    resume
        Go on from the last checkpoint there, to the same loss curve as without the interruption.
    on_event, should_stop
        Called with progress after every step; asked before every step.  A stop keeps the weights of
        the best epoch so far.
    legacy_dict
        PtychoPINN's flat dictionary of a program that still reads it; updated before anything else.

    Raises
    ------
    PluginError
        A subclass per defect; see `errors`.
    """
    if not scans:
        raise ScanValueError('no scan was given; expected at least one to train on.')
    run = RunConfig(
        backend=backend,
        model=_model_config(scans, model, start),
        training=training or TrainingConfig(),
        execution=execution or ExecutionConfig(),
    )
    if legacy_dict is not None:
        update_legacy_dict(legacy_dict, run)
    for scan in scans:
        check_size(scan, run.model)
    settings = run.training.for_model(run.model)
    engine = registry.get_backend(backend)
    result = engine.fit(
        _first_model(engine, run.model, scans, settings.seed, start),
        scans,
        settings,
        run.execution,
        optimizer=_moments(settings, start),
        checkpoint_dir=checkpoint_dir,
        log_dir=log_dir,
        resume=resume,
        on_event=on_event,
        should_stop=should_stop,
    )
    return Model(
        backend=engine,
        trained=result.model,
        training=settings,
        history=result.history,
        best_epoch=result.best_epoch,
        stopped=result.stopped,
        provenance=_provenance(result, settings, run.execution, scans, start),
        optimizer=None if result.optimizer is None else dict(result.optimizer),
    )


def _model_config(
    scans: Sequence[ScanData], model: ModelConfig | None, start: Model | None
) -> ModelConfig:
    if start is None:
        return model or ModelConfig(N=scans[0].n_px)
    if model is not None and model != start.config:
        raise ConfigError(
            f'the model to start from is {start.config.to_json()}, but {model.to_json()} was asked '
            'for; expected the same settings. Leave the settings of the model out.'
        )
    if start.config.architecture == 'cnn':
        return start.config
    return start.config.model_copy(update={'N': scans[0].n_px})  # what it looks at has no N


def _first_model(
    engine: Backend,
    config: ModelConfig,
    scans: Sequence[ScanData],
    seed: int,
    start: Model | None,
) -> TrainedModel:
    """Return a fresh model, or a copy of the one to start from."""
    if start is None:
        return engine.build(config, Calibration.of(scans, config), seed=seed)
    same = config == start.config
    calibration = start.trained.calibration if same else Calibration.of(scans, config)
    trained = engine.build(config, calibration)
    trained.import_weights(start.trained.export_weights())
    return trained


def _moments(
    training: TrainingConfig, start: Model | None
) -> dict[str, NDArray[np.float32]] | None:
    """Return the optimiser's state to go on from, unless another set of variables is trained."""
    if start is None or start.optimizer is None or start.training is None:
        return None
    switches = ('probe_trainable', 'intensity_scale_trainable')
    if any(getattr(training, name) != getattr(start.training, name) for name in switches):
        return None
    return start.optimizer


def _provenance(
    result: TrainingResult,
    training: TrainingConfig,
    execution: ExecutionConfig,
    scans: Sequence[ScanData],
    start: Model | None,
) -> dict[str, Any]:
    rank = own_rank()
    return {
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
        'seed': training.seed,
        'best_epoch': result.best_epoch,
        'stopped': result.stopped,
        'optimizer': execution.course(),
        **({} if rank.alone else {'processes': rank.count}),
        **_origins(start),
        'scans': [
            {'name': scan.name, 'patterns': scan.n_patterns, 'sha256': scan.fingerprint()}
            for scan in scans
        ],
    }


def _origins(start: Model | None) -> dict[str, Any]:
    """Return where the model to start from came from, and before that: a list, newest first."""
    if start is None:
        return {}
    last = dict(start.provenance)
    before = last.pop('started_from', [])
    return {'started_from': [last, *before]}  # flat: a bundle admits only so many levels
