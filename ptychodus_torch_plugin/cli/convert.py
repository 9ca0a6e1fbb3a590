"""`convert`: any scan file into the one of this package, or into a PtychoPINN NPZ; and models."""

from pathlib import Path
from typing import Annotated

import typer

from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import Json
from ptychodus_torch_plugin.cli.outputs import check_scan_suffix, output_folder, write_scan_file
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.report import say_facts, say_files, say_json
from ptychodus_torch_plugin.cli.settings import read_one
from ptychodus_torch_plugin.errors import ConfigError


@with_groups
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar='IN',
            help='Scan file, folder of a Ptychodus product, or model archive of PtychoPINN.',
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar='OUT',
            help='File to write: .h5, or .npz for the amplitudes of PtychoPINN; .zip for a model.',
        ),
    ],
    scan: Annotated[
        Path | None,
        typer.Option(
            '--scan',
            metavar='SCAN',
            help='Scan with the probe of a PtychoPINN model whose archive (PyTorch) has none.',
        ),
    ] = None,
    json_output: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Convert a scan file of any known kind, or a model that PtychoPINN trained.

    Writes it in the conventions of this package, and says what was decided about it, and why.
    """
    from ptychodus_torch_plugin.foreign.archive import is_archive

    if is_archive(source):
        from ptychodus_torch_plugin.cli.model_conversion import convert_model

        convert_model(source, out, scan, reading, json_output=json_output)
        return
    if scan is not None:
        raise ConfigError(
            f'--scan {scan} goes with a model archive of PtychoPINN, but {source} is none; '
            'expected such an archive (wts.h5.zip). Leave --scan out.'
        )
    _convert_scan(source, out, reading, json_output=json_output)


def _convert_scan(source: Path, out: Path, reading: ReadingOptions, *, json_output: bool) -> None:
    check_scan_suffix(out)
    with progress_display() as display, output_folder(out.parent):
        scan = read_one(source, reading, display)
        with display.busy(f'Writing {out.name}'):
            write_scan_file(out, scan)
    summary = {
        'file': out,
        'name': scan.name,
        'patterns': scan.n_patterns,
        'N': scan.n_px,
        'mean_counts': scan.mean_counts(),
        'provenance': scan.provenance,
    }
    if json_output:
        say_json(summary)
        return
    say_facts(
        {
            'patterns': f'{scan.n_patterns} of {scan.n_px} x {scan.n_px} px',
            'counts': f'{scan.mean_counts():.6g} per pattern',
            'decided': scan.provenance,
        }
    )
    say_files({'scan': out})
