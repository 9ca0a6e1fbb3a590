"""`convert`: any scan file into the one of this package, or into a PtychoPINN NPZ."""

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


@with_groups
def convert(
    source: Annotated[
        Path, typer.Argument(metavar='IN', help='Scan file, or folder of a Ptychodus product.')
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar='OUT', help='File to write: .h5, or .npz for the amplitudes of PtychoPINN.'
        ),
    ],
    json_output: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Convert a scan file of any known kind.

    Writes it in the conventions of this package, and says what was decided about it, and why.
    """
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
