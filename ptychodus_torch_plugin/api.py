"""The functions that users call: `train`, `reconstruct`, `load_bundle`.

A backend is named, never guessed at half-way: its framework is imported when it is first needed,
and a missing one is an error that says how to install it.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychodus_torch_plugin.arrays import ComplexArray
from ptychodus_torch_plugin.backends.protocol import (
    Backend,
    EpochRecord,
    OnEvent,
    Reconstruction,
    ShouldStop,
    TrainedModel,
    TrainingResult,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.calibration import Calibration
from ptychodus_torch_plugin.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from ptychodus_torch_plugin.errors import ConfigError, OutputError, ScanValueError, ShapeError
from ptychodus_torch_plugin.legacy import update_legacy_dict
from ptychodus_torch_plugin.ranks import own_rank
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
    engine = get_backend(backend)
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


def reconstruct(
    model: Model,
    scan: ScanData,
    inference: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Reconstruction:
    """Turn a scan into an object, using every pattern.

    Raises
    ------
    ShapeError
        If the model is a 'cnn' for another N.
    InterruptedError
        If `should_stop` answered yes.
    """
    check_fits(scan, model.config)
    return model.trained.reconstruct(
        scan,
        inference or InferenceConfig(),
        execution or ExecutionConfig(),
        on_event=on_event,
        should_stop=should_stop,
    )


def with_sweeps(
    model: Model,
    *,
    sweeps_before: int | None = None,
    sweeps_after: int | None = None,
    **changes: Any,
) -> Model:
    """Return the same network between other sweeps.

    A network on the canvas corrects what sweeps have made of a scan, however they did it.

    Parameters
    ----------
    model
        A model that is no 'cnn'.
    sweeps_before, sweeps_after
        Numbers of sweeps before and after the network; `None` leaves the model's own.
    changes
        Settings of `config.SweepConfig`, e.g. ``probe_modes=3``; all others stay.

    Raises
    ------
    ConfigError
        If the model is a 'cnn', or a setting is not known or out of range.
    """
    if model.config.architecture == 'cnn':
        raise ConfigError(
            "sweeps were to be changed, but the model is a 'cnn', which has none before it; "
            "expected 'unrolled' or 'none'."
        )
    numbers = {'sweeps_before': sweeps_before, 'sweeps_after': sweeps_after}
    values = model.config.to_json()
    values |= {name: number for name, number in numbers.items() if number is not None}
    values['sweeps'] = values['sweeps'] | changes
    config = ModelConfig.parse(values, source='sweeps')
    trained = model.backend.build(config, model.trained.calibration)
    trained.import_weights(model.trained.export_weights())
    return replace(model, trained=trained)


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
    engine = get_backend(backend)
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
        history=[_record(row) for row in bundle.history],
        best_epoch=bundle.provenance.get('best_epoch'),  # type: ignore[arg-type]  # JSON
        stopped=str(bundle.provenance.get('stopped', '')),
        provenance=dict(bundle.provenance),
        optimizer=bundle.optimizer,
    )


def check_size(scan: ScanData, config: ModelConfig) -> None:
    """Raise `ShapeError` if a scan has patterns of another size N than a model."""
    if scan.n_px != config.N:
        raise ShapeError(
            f'{scan.name}: patterns are {scan.n_px} x {scan.n_px} px, but the model is for N = '
            f'{config.N}. Crop the detector to {config.N} px, or train a model for {scan.n_px}.'
        )


def check_fits(scan: ScanData, config: ModelConfig) -> None:
    """Raise `ShapeError` if a model cannot reconstruct a scan because of the size N.

    Only 'cnn' looks at patterns; what other networks look at, the object, has no N.
    """
    if config.architecture == 'cnn':
        check_size(scan, config)


def _record(row: dict[str, Any]) -> EpochRecord:
    return EpochRecord(int(row['epoch']), float(row['loss']), row.get('validation_loss'))


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
