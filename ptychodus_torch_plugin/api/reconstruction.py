"""A scan in, an object out: by a model as it is, or between other sweeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from ptychodus_torch_plugin.api.model import Model
from ptychodus_torch_plugin.api.sizes import check_fits
from ptychodus_torch_plugin.backends.protocol import (
    OnEvent,
    Reconstruction,
    ShouldStop,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig, ModelConfig
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.scan import ScanData


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
    sweeps_before: int | Literal['automatic'] | None = None,
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
        Numbers of sweeps before and after the network; `None` leaves the model's own, 'automatic'
        takes as many before it as a scan has use for (`visiting.sweeps_before`).
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
    if sweeps_before == 'automatic':
        values['sweeps_before'] = None
    values['sweeps'] = values['sweeps'] | changes
    config = ModelConfig.parse(values, source='sweeps')
    trained = model.backend.build(config, model.trained.calibration)
    trained.import_weights(model.trained.export_weights())
    return replace(model, trained=trained)
