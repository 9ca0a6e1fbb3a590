"""Training and reconstruction in one call, for programs that expect amplitude and phase."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.api import Model, check_fits, load_bundle, reconstruct, train
from ptychodus_torch_plugin.arrays import FloatArray
from ptychodus_torch_plugin.backends.protocol import (
    OnEvent,
    ShouldStop,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.config import ExecutionConfig, RunConfig
from ptychodus_torch_plugin.legacy import update_legacy_dict
from ptychodus_torch_plugin.scan import ScanData

logger = logging.getLogger(__name__)


def run_workflow(
    train_scans: ScanData | Sequence[ScanData],
    test_scan: ScanData | None = None,
    run: RunConfig | None = None,
    *,
    execution_overrides: Mapping[str, Any] | None = None,
    legacy_dict: MutableMapping[str, Any] | None = None,
    checkpoint_dir: Path | None = None,
    log_dir: Path | None = None,
    resume: bool = False,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> tuple[FloatArray | None, FloatArray | None, dict[str, Any]]:
    """Train on one scan or many and reconstruct another one.

    Parameters
    ----------
    train_scans
        What the network learns from.
    test_scan
        What it reconstructs; `None` trains alone.
    run
        All settings; `None` takes the defaults for the scans' N.
    execution_overrides
        Execution settings by name, before those of `run`.
    legacy_dict
        PtychoPINN's flat dictionary of a program that still reads it: updated once with the
        settings of `run`, before any backend is looked at.
    checkpoint_dir, log_dir, resume, on_event, should_stop
        As for `api.train`.

    Returns
    -------
    amplitude : (h, w) float32 or None
        Of the object of `test_scan`.
    phase_rad : (h, w) float32 or None
    results
        'backend', 'model' (`api.Model`), 'history' ('train_loss' and 'val_loss' per epoch),
        'execution' (the settings that were applied), and 'reconstruction'
        (`backends.protocol.Reconstruction`, or None).

    Raises
    ------
    PluginError
        A subclass per defect; see `errors`.
    """
    scans = [train_scans] if isinstance(train_scans, ScanData) else list(train_scans)
    if run is None:
        run = RunConfig.parse({'model': {'N': scans[0].n_px}} if scans else {})
    if legacy_dict is not None:
        update_legacy_dict(legacy_dict, run)
    execution = apply_overrides(run.execution, execution_overrides or {})
    start = None if run.resume_from is None else load_bundle(run.resume_from, backend=run.backend)
    config = run.model if start is None or 'model' in run.model_fields_set else start.config
    if test_scan is not None:
        check_fits(test_scan, config)
    model = train(
        scans,
        config,
        run.training,
        execution,
        backend=run.backend,
        start=start,
        checkpoint_dir=checkpoint_dir,
        log_dir=log_dir,
        resume=resume,
        on_event=on_event,
        should_stop=should_stop,
    )
    results = _results(model, execution)
    if test_scan is None:
        return None, None, results
    found = reconstruct(
        model, test_scan, run.inference, execution, on_event=on_event, should_stop=should_stop
    )
    results['reconstruction'] = found
    return np.abs(found.object_), np.angle(found.object_), results


def _results(model: Model, execution: ExecutionConfig) -> dict[str, Any]:
    """Return what is known once the model is trained."""
    return {
        'backend': model.backend.name,
        'model': model,
        'history': {
            'train_loss': [record.loss for record in model.history],
            'val_loss': [record.validation_loss for record in model.history],
        },
        'execution': execution.to_json(),
        'reconstruction': None,
    }


def apply_overrides(execution: ExecutionConfig, overrides: Mapping[str, Any]) -> ExecutionConfig:
    """Return execution settings with `overrides` before them; log what was applied."""
    values = execution.model_dump(exclude_unset=True) | dict(overrides)
    applied = ExecutionConfig.parse(values, source='execution settings')
    logger.info('execution settings: %s', applied.to_json())
    return applied
