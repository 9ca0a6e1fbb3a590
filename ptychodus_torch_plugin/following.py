"""Reconstruct a scan while it is still being measured.

Whenever patterns have arrived, the object so far is improved and shown: that is a preview.  When
the scan is complete, it is reconstructed as any other scan is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ptychodus_torch_plugin.api import Model
from ptychodus_torch_plugin.backends.protocol import (
    OnEvent,
    Reconstruction,
    ShouldStop,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig
from ptychodus_torch_plugin.errors import (
    InputNotFoundError,
    PluginError,
    ScanFileError,
    ScanValueError,
)
from ptychodus_torch_plugin.files.growing import ScanSoFar
from ptychodus_torch_plugin.live_object import LiveObject, Preview
from ptychodus_torch_plugin.scan import ScanData

logger = logging.getLogger(__name__)

POLL_S = 0.1
"""How often to look for new patterns."""

UPDATE_S = 1.0
"""How long a preview may be worked at before it is shown."""

OnPreview = Callable[[Preview], None]


def follow(
    model: Model,
    source: ScanSoFar,
    inference: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    *,
    idle_s: float = 10.0,
    update_s: float = UPDATE_S,
    on_preview: OnPreview = lambda _: None,
    on_event: OnEvent = ignore_event,
    should_end: ShouldStop = never_stop,
    should_stop: ShouldStop = never_stop,
) -> tuple[ScanData, Reconstruction]:
    """Reconstruct a scan while it is measured, and once more when it is complete.

    Parameters
    ----------
    model
        A trained model, or sweeps alone.
    source
        Where the patterns come from.
    inference, execution
        Settings of the reconstruction at the end; `None` takes the defaults.
    idle_s
        The scan also counts as complete when nothing has arrived for so long.
    update_s
        Previews are shown about so often, if patterns have arrived.
    on_preview
        Called with the object so far.
    should_end
        Asked while patterns arrive; yes ends the scan there: what has arrived is reconstructed.
    on_event, should_stop
        As for `api.reconstruct`, of the reconstruction at the end.

    Returns
    -------
    scan
        All that arrived.
    reconstruction
        What `api.reconstruct` makes of it.

    Raises
    ------
    InputNotFoundError
        If nothing arrived for `idle_s`.
    ScanFileError, ScanValueError
        If nothing that arrived can be read and makes a scan.  A defect after the first preview is
        a warning: what could be read is reconstructed.
    InterruptedError
        If `should_stop` answers yes during the reconstruction at the end.
    """
    inference, execution = inference or InferenceConfig(), execution or ExecutionConfig()
    live = LiveObject(model, inference, execution, update_s)
    _follow(live, source, idle_s, update_s, on_preview, should_end)
    return source.scan(), live.finish(source.scan(), on_event, should_stop)


def _follow(
    live: LiveObject,
    source: ScanSoFar,
    idle_s: float,
    update_s: float,
    on_preview: OnPreview,
    should_end: ShouldStop,
) -> None:
    """Show previews until the scan is complete, nothing more comes, or somebody ends it."""
    heard = shown = time.monotonic()
    defect: PluginError | None = None
    n_shown = 0
    while not should_end():
        arrived = took = False
        try:
            arrived, defect = source.read() > 0, None
            took = len(source) > live.n_patterns and live.take(source.scan())
        except (ScanFileError, ScanValueError) as error:
            defect = error  # perhaps it is being written this moment, or there is no light yet
        if arrived or took:
            heard = time.monotonic()  # what we did meanwhile is no time of silence
        else:
            time.sleep(POLL_S)
        done = source.complete and live.n_patterns == len(source)
        if live.n_patterns > n_shown and (time.monotonic() - shown >= update_s or done):
            on_preview(live.preview())
            heard = shown = time.monotonic()
            n_shown = live.n_patterns
        if done or time.monotonic() - heard > idle_s:
            break
    if defect is not None and live.n_patterns == 0:
        raise defect
    if defect is not None:
        logger.warning('%s It is left out.', defect)
    if len(source) == 0:
        raise InputNotFoundError(
            f'no pattern arrived in {idle_s:g} s; expected a scan that is being written. Check the '
            'path, or wait longer.'
        )
