"""`infer --half`: an object from one half of the patterns, to compare with that of the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ptychodus_torch_plugin.errors import ConfigError

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.scan import ScanData

WhichHalf = Literal['first', 'second']
Half = Annotated[
    WhichHalf | None,
    typer.Option(
        '--half',
        help="Reconstruct one half of the patterns alone; 'evaluate --half' compares both. Of two "
        'neighbours one is in each half, which are always the same.',
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Taken:
    """The patterns to reconstruct, and remarks on them."""

    scan: ScanData
    remarks: dict[str, Any] = field(default_factory=dict)


def check_half(half: WhichHalf | None, chosen: dict[str, Any], *, alone: bool) -> dict[str, Any]:
    """Return the settings for a half, which holds the other one out; refuse what contradicts it."""
    if half is None:
        return chosen
    if not alone:
        raise ConfigError(
            f'--half {half} is made of a scan that is complete, by one process; expected no '
            '--follow, no --part and no --merge, and neither torchrun nor srun with several tasks.'
        )
    if chosen.get('inference.held_out_fraction'):
        raise ConfigError(
            f'--half {half} holds the other half out; expected no --held-out with it. '
            "'evaluate --scan' gives R on the other half."
        )
    return {**chosen, 'inference.held_out_fraction': 0.0}


def take(scan: ScanData, half: WhichHalf | None, model: Model) -> Taken:
    """Return one half of a scan, or all of it; warn if the model has been trained on both."""
    if half is None:
        return Taken(scan)
    from ptychodus_torch_plugin.evaluation import halves, warn_of_training

    first, second = halves(scan)
    rows = first if half == 'first' else second
    remarks = {
        'half': half,
        'patterns_of_scan': scan.n_patterns,
        'half_seen_in_training': warn_of_training(model, scan),
    }
    return Taken(scan.subset(rows), remarks)
