"""`evaluate`: how good a reconstructed object is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychodus_torch_plugin.cli.evaluation_options import SourceOptions
from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import Json, output_dir
from ptychodus_torch_plugin.cli.outputs import output_folder, write_json
from ptychodus_torch_plugin.cli.progress import Display, progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.report import say_facts, say_files, say_json, text_of_number
from ptychodus_torch_plugin.cli.settings import read_one

if TYPE_CHECKING:
    from ptychodus_torch_plugin.evaluation import Evaluation
    from ptychodus_torch_plugin.metrics import ObjectMetrics
    from ptychodus_torch_plugin.r_factors import RFactors

PICTURE, FIGURES = 'comparison.png', 'evaluation.json'


@with_groups
def evaluate(
    object_file: Annotated[
        Path, typer.Argument(metavar='OBJECT', help='object.h5 (a product) or object.npz.')
    ],
    *,
    sources: SourceOptions,
    out: Annotated[Path | None, output_dir(f'{FIGURES}, {PICTURE}')] = None,
    json_output: Json = False,
    reading: ReadingOptions,
) -> None:
    """Compare an object with another one, or with the patterns of a scan.

    Expects one of --truth, --reference and --half, or --scan, or both. Objects are compared where
    the beam has been; what ptychography cannot know is removed first: a complex factor, a phase
    ramp, and a shift. How the --scan file is read, the last options say.
    """
    files: dict[str, Path] = {}
    given = sources.given(object_file)
    if out is None:
        found = _evaluate(object_file, given, reading)
        values = {'object': object_file, **given, **found.as_dict(), 'files': files}
    else:
        with output_folder(out) as folder:
            found = _evaluate(object_file, given, reading)
            files['figures'] = folder / FIGURES
            if sources.compared:
                files['picture'] = folder / PICTURE
                found.draw(files['picture'], title=object_file.name)
            values = {'object': object_file, **given, **found.as_dict(), 'files': files}
            write_json(files['figures'], values)
    if json_output:
        say_json(values)
        return
    say_facts(_facts(found))
    if files:
        say_files(files)


def _evaluate(object_file: Path, sources: dict[str, Path], reading: ReadingOptions) -> 'Evaluation':
    with progress_display() as display:
        return _measured(object_file, sources, reading, display)


def _measured(
    object_file: Path, sources: dict[str, Path], reading: ReadingOptions, display: Display
) -> 'Evaluation':
    chosen: dict[str, Any] = dict(sources)
    if 'scan' in sources:
        chosen['scan'] = read_one(sources['scan'], reading, display)
    with display.busy(f'Evaluating {object_file.name}'):
        from ptychodus_torch_plugin.evaluation import evaluate as measure

        return measure(object_file, **chosen)


def _facts(found: 'Evaluation') -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if found.metrics is not None:
        facts |= _facts_of_objects(found.metrics, found)
    if found.r is not None:
        facts['R'] = _facts_of_r(found.r)
    return facts


def _facts_of_objects(metrics: 'ObjectMetrics', found: 'Evaluation') -> dict[str, Any]:
    from ptychodus_torch_plugin.evaluation_picture import CRITERIA, half_period_text

    def quality(psnr: float, ssim: float) -> str:
        return f'PSNR {text_of_number(psnr, 2)} dB, SSIM {text_of_number(ssim, 4)}'

    half_period = half_period_text(metrics.frc, found.pixel_size_m)
    other = 'other half' if found.compared_with == 'half' else found.compared_with
    return {
        'phase': quality(metrics.phase_psnr_dB, metrics.phase_ssim),
        'amplitude': quality(metrics.amplitude_psnr_dB, metrics.amplitude_ssim),
        'complex error': text_of_number(metrics.complex_error, 4),
        'resolution': [
            f'{half_period} half-period, {metrics.frc_nyquist_fraction:.2f} of Nyquist',
            f'by Fourier ring correlation, {CRITERIA[metrics.frc_criterion]}',
        ],
        'compared': f'with the {other}, in {metrics.region_px} px that the beam has scanned',
    }


def _facts_of_r(r: 'RFactors') -> list[str]:
    lines = []
    if r.r_fitted is not None:
        lines.append(f'{r.r_fitted:.4f} on {r.fitted_patterns} patterns that it was made from')
    if r.r_held_out is not None:
        lines.append(f'{r.r_held_out:.4f} on {r.held_out_patterns} others')
    if r.outside_patterns:
        lines.append(f'{r.outside_patterns} patterns lie partly outside the object')
    return lines
