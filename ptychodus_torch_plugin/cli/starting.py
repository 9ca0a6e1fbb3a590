"""What `train` starts from: a run file, its own interrupted run, the bundle of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.config import ModelConfig, RunConfig

CHECKPOINTS, RUN_FILE = 'checkpoints', 'run.json'

Config = Annotated[
    Path | None,
    typer.Option(
        '--config', metavar='FILE', help='Run file (JSON or YAML); the options override it.'
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        '--resume',
        help='Go on where an interrupted training into the same folder was; its run.json '
        'holds unless --config is given. Name the same scans.',
    ),
]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(
        '--resume-from',
        metavar='BUNDLE',
        help='Train the model in a bundle (wts.h5.zip, or its folder) of any backend further: its '
        'weights, scales, optimiser state and settings of the model; those of the training, too, '
        'unless options or --config say otherwise.',
    ),
]


def first_settings(
    folder: Path, config: Path | None, bundle: Path | None, *, resume: bool
) -> RunConfig | None:
    """Return the settings that options override: those of a run file and of a bundle, if any.

    Parameters
    ----------
    folder
        Output folder of the training.
    config, bundle, resume
        What the options of these names say.

    Raises
    ------
    ConfigError
        If two of them contradict each other.
    InputNotFoundError
        If one of them is not there.
    """
    if resume and bundle is not None:
        raise ConfigError(
            f'--resume goes on in {folder}, but --resume-from starts anew from {bundle}; expected '
            'one of them. A training that was started with --resume-from needs --resume alone.'
        )
    run = _load(_run_file(folder, config, resume=resume))
    bundle = bundle or _origin(folder, run, resume=resume)
    return run if bundle is None else _with_bundle(run, bundle)


def check_model_options(chosen: Mapping[str, Any], base: RunConfig | None) -> None:
    """Raise `ConfigError` if options want another model than the one to start from."""
    if base is None or base.resume_from is None:
        return
    wanted = {
        path.removeprefix('model.'): value
        for path, value in chosen.items()
        if path.startswith('model.')
    }
    _check_same(wanted, base.model, base.resume_from)


def _origin(folder: Path, run: RunConfig | None, *, resume: bool) -> Path | None:
    """Return the bundle that a run, or the one to resume, started from."""
    own = _load(_own_run_file(folder)) if resume else None
    known = [each.resume_from for each in (run, own) if each is not None and each.resume_from]
    return Path(known[0]) if known else None


def _run_file(folder: Path, config: Path | None, *, resume: bool) -> Path | None:
    if not resume:
        return config
    if not any((folder / CHECKPOINTS).glob('*')):
        raise InputNotFoundError(
            f'{folder / CHECKPOINTS} holds nothing, so there is nothing to resume; expected the '
            'checkpoints of an interrupted training. Train without --resume first.'
        )
    return config or _own_run_file(folder)


def _own_run_file(folder: Path) -> Path | None:
    own = folder / RUN_FILE
    return own if own.is_file() else None


def _load(run_file: Path | None) -> RunConfig | None:
    if run_file is None:
        return None
    from ptychodus_torch_plugin.config import RunConfig

    return RunConfig.load(run_file)


def _with_bundle(run: RunConfig | None, path: Path) -> RunConfig:
    """Return the settings of a run that starts from a bundle: its model, and its training."""
    from ptychodus_torch_plugin.bundle.archive import read_manifest
    from ptychodus_torch_plugin.bundle.shipped import is_shipped
    from ptychodus_torch_plugin.config import ModelConfig, RunConfig

    manifest = read_manifest(path)
    model = ModelConfig.parse(manifest.model_settings, source=f'{path}: model settings')
    values = {} if run is None else run.model_dump(mode='json', exclude_unset=True)
    _check_same(_paths(values.get('model', {})), model, path)
    values['model'] = model.to_json()
    values['training'] = (manifest.training_settings or {}) | values.get('training', {})
    # Whoever resumes this run later may stand in another folder.
    values['resume_from'] = str(path if is_shipped(path) else path.resolve())
    return RunConfig.parse(values, source=f'{path}: settings')


def _check_same(wanted: Mapping[str, Any], model: ModelConfig, bundle: Path | str) -> None:
    known = _paths(model.to_json())
    others = {name: value for name, value in wanted.items() if known.get(name) != value}
    if others:
        asked, has = (
            ', '.join(f'{name} = {each.get(name)!r}' for name in others) for each in (others, known)
        )
        raise ConfigError(
            f'{asked} was asked for, but the model in {bundle}, which the training starts from, '
            f'has {has}; expected the same. Leave the settings of the model out, or train a new '
            'model without --resume-from.'
        )


def _paths(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return nested settings by their path, e.g. 'sweeps.batch_size'."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f'{prefix}{name}'
        found |= _paths(value, f'{path}.') if isinstance(value, Mapping) else {path: value}
    return found
