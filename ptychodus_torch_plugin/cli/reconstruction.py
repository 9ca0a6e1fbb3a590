"""What `infer`, `train` and `demo` share: reconstruct, measure each stage, write the results."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ptychodus_torch_plugin.cli.outputs import write_json, write_reconstruction
from ptychodus_torch_plugin.cli.progress import Display
from ptychodus_torch_plugin.cli.report import stage_figures
from ptychodus_torch_plugin.cli.stopping import StoppedError, StopRequest

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.arrays import BoolArray
    from ptychodus_torch_plugin.backends.protocol import Reconstruction
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.placed_objects import PlacedObject
    from ptychodus_torch_plugin.scan import ScanData

METRICS_FILE = 'metrics.json'

T = TypeVar('T')

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A reconstruction, where the beam has been (h, w), its figures, and the files by name."""

    result: 'Reconstruction'
    region: 'BoolArray'
    metrics: dict[str, Any]
    files: dict[str, Path]


def reconstruct_into(
    folder: Path,
    model: 'Model',
    scan: 'ScanData',
    run: 'RunConfig',
    display: Display,
    *,
    truth: 'PlacedObject | None' = None,
    parts: Sequence[Path] | None = None,
    result: 'Reconstruction | None' = None,
    remarks: Mapping[str, Any] | None = None,
) -> Outcome:
    """Reconstruct a scan and write the object and metrics.json into `folder`.

    Parameters
    ----------
    folder
        An existing folder.
    model, scan, run
        What reconstructs what; of the run, `inference` and `execution` hold.
    display
        Where progress is shown.
    truth
        The true object, to compare each stage with.
    parts
        Files of all parts that the network predicted; None: it predicts here.
    result
        What was reconstructed already; None: that is done here.
    remarks
        What metrics.json shall hold besides.

    Raises
    ------
    StoppedError
        If the user stopped it; nothing was written.
    """
    from ptychodus_torch_plugin.evaluation import compare_stages, region_of

    seen = held_out_seen_in_training(model, scan, run)
    _warn(seen)
    seconds = None
    if result is None:
        start = time.perf_counter()
        result = _reconstruct(model, scan, run, display, parts)
        seconds = time.perf_counter() - start
    with display.busy('Writing the results'):
        region = region_of(scan, result)
        found = {} if truth is None else compare_stages(scan, result, region, truth)
        metrics = {
            **_facts(scan, model, result),
            'stages': stage_figures(result, found),
            'held_out_patterns': len(result.held_out),
            'noise_excess': round(result.noise_excess, 3),
            'held_out_seen_in_training': seen,
            **({} if seconds is None else {'seconds': round(seconds, 3)}),
            **({} if parts is None else {'parts': len(parts)}),
            **(remarks or {}),
        }
        files = write_reconstruction(folder, scan, result, region, model.history)
        files['metrics'] = write_json(folder / METRICS_FILE, metrics)
    return Outcome(result, region, metrics, files)


def _warn(seen_in_training: int) -> None:
    if seen_in_training:
        logger.warning(
            'the model was trained on %d of the held-out patterns, so that R on them flatters it. '
            'Leave --held-out and --seed out to hold out those that training did.',
            seen_in_training,
        )


def _facts(scan: 'ScanData', model: 'Model', result: 'Reconstruction') -> dict[str, Any]:
    """Return what was reconstructed by what."""
    return {
        'scan': scan.name,
        'patterns': scan.n_patterns,
        'N': scan.n_px,
        'mean_counts': scan.mean_counts(),
        'backend': model.backend.name,
        'architecture': model.config.architecture,
        'stage': result.stage,
    }


def held_out_seen_in_training(model: 'Model', scan: 'ScanData', run: 'RunConfig') -> int:
    """Return how many of the patterns to hold out the network was trained on."""
    import numpy as np

    from ptychodus_torch_plugin.training_plan import held_out_indices

    if model.training is None or not model.history or not model.was_trained_on(scan):
        return 0
    now, then = (
        held_out_indices(scan, each.held_out_fraction, each.seed)
        for each in (run.inference, model.training)
    )
    return len(np.setdiff1d(now, then))


def as_in_training(model: 'Model', scan: 'ScanData') -> dict[str, Any]:
    """Hold out what the training on this scan held out, for only those patterns are unseen."""
    if model.training is None or not model.was_trained_on(scan):
        return {}
    return {
        'inference.held_out_fraction': model.training.held_out_fraction,
        'inference.seed': model.training.seed,
    }


def _reconstruct(
    model: 'Model',
    scan: 'ScanData',
    run: 'RunConfig',
    display: Display,
    parts: Sequence[Path] | None,
) -> 'Reconstruction':
    def work(stop: StopRequest) -> 'Reconstruction':
        if parts is not None:
            from ptychodus_torch_plugin.parts import merge_parts

            return merge_parts(
                model,
                scan,
                parts,
                run.inference,
                run.execution,
                on_event=display,
                should_stop=stop,
            )
        from ptychodus_torch_plugin.api import reconstruct

        return reconstruct(
            model, scan, run.inference, run.execution, on_event=display, should_stop=stop
        )

    return stoppable(work, display)


def stoppable(work: Callable[[StopRequest], T], display: Display) -> T:
    """Return what `work` does, which asks its argument whether to stop.

    Raises
    ------
    StoppedError
        If the user stopped it.
    """
    with StopRequest(lambda: display.say('The reconstruction ends here.')) as stop:
        try:
            return work(stop)
        except InterruptedError as error:
            raise StoppedError('Stopped during the reconstruction: it was not written.') from error
