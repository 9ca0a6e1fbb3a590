"""`simulate`: seeded scans with known objects."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import Json, given
from ptychodus_torch_plugin.cli.outputs import check_scan_suffix, output_folder, write_scan_file
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.report import say_facts, say_json
from ptychodus_torch_plugin.cli.simulation_options import SimulationOptions

if TYPE_CHECKING:
    from ptychodus_torch_plugin.scan import ScanData
    from ptychodus_torch_plugin.simulate import SimulationConfig


@with_groups
def simulate(
    out: Annotated[Path, typer.Argument(metavar='OUT.h5', help='File to write (.h5 or .npz).')],
    *,
    count: Annotated[
        int,
        typer.Option(
            min=1, help='Write so many scans with consecutive seeds: OUT_000.h5, OUT_001.h5, ...'
        ),
    ] = 1,
    json_output: Json = False,
    options: SimulationOptions,
) -> None:
    """Simulate scans of known objects.

    The file holds the true object, so that 'evaluate' can compare a reconstruction with it.
    """
    check_scan_suffix(out)
    with progress_display() as display, output_folder(out.parent):
        config = _config(options)
        scans = [
            _simulate(_numbered(out, number, count), config, number, count, display)
            for number in range(count)
        ]
    summary = {'settings': config.to_json(), 'scans': scans}
    if json_output:
        say_json(summary)
        return
    for scan in scans:
        shape = 'x'.join(str(size) for size in scan['object_shape'])
        say_facts({**scan, 'object_shape': f'{shape} px'})


def _config(options: SimulationOptions) -> 'SimulationConfig':
    from ptychodus_torch_plugin.simulate import SimulationConfig

    return SimulationConfig.parse(given(options), source='the settings of the simulation')


def _numbered(out: Path, number: int, count: int) -> Path:
    return out if count == 1 else out.with_name(f'{out.stem}_{number:03d}{out.suffix}')


def _simulate(
    path: Path, config: 'SimulationConfig', number: int, count: int, display: Display
) -> dict[str, Any]:
    from ptychodus_torch_plugin.simulate import simulate_scan

    display.count('Simulating', number, count)
    seed = config.seed + number
    scan = simulate_scan(config.model_copy(update={'seed': seed}))
    write_scan_file(path, scan)
    display.count('Simulating', number + 1, count)
    return _summary(path, scan, seed)


def _summary(path: Path, scan: 'ScanData', seed: int) -> dict[str, Any]:
    assert scan.object_guess is not None
    return {
        'file': path,
        'name': scan.name,
        'seed': seed,
        'patterns': scan.n_patterns,
        'N': scan.n_px,
        'mean_counts': scan.mean_counts(),
        'object_shape': list(scan.object_guess.shape),
        'probe_modes': len(scan.probe),
        'sha256': scan.fingerprint(),
    }
