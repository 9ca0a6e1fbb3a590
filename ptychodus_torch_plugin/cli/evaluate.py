"""`evaluate`: a reconstructed object against the true one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychodus_torch_plugin.cli.options import Json, output_dir
from ptychodus_torch_plugin.cli.outputs import output_folder
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.report import say_facts, say_files, say_json, text_of_number

if TYPE_CHECKING:
    from ptychodus_torch_plugin.metrics import ObjectMetrics

PICTURE = 'comparison.png'


def evaluate(
    object_file: Annotated[
        Path, typer.Argument(metavar='OBJECT', help='object.h5 (a product) or object.npz.')
    ],
    truth: Annotated[
        Path,
        typer.Option(
            metavar='FILE', help='Scan file that holds the true object, or another product.'
        ),
    ],
    out: Annotated[Path | None, output_dir(PICTURE)] = None,
    json_output: Json = False,
) -> None:
    """Compare an object with the true one.

    Where the beam has been; what ptychography cannot know is removed first: a complex factor, a
    phase ramp, and a shift.
    """
    if out is None:
        metrics, picture = _compare(object_file, truth, None), None
    else:
        with output_folder(out) as folder:
            picture = folder / PICTURE
            metrics = _compare(object_file, truth, picture)
    files = {} if picture is None else {'picture': picture}
    if json_output:
        say_json({'object': object_file, 'truth': truth, **metrics.as_dict(), 'files': files})
        return
    say_facts(_facts(metrics))
    if files:
        say_files(files)


def _compare(object_file: Path, truth_file: Path, picture: Path | None) -> 'ObjectMetrics':
    with progress_display() as display, display.busy(f'Comparing {object_file.name}'):
        from ptychodus_torch_plugin.cli.comparison import (
            common_part,
            reconstructed_object,
            true_object,
        )
        from ptychodus_torch_plugin.metrics import compare_objects
        from ptychodus_torch_plugin.pictures import draw_comparison

        ours, theirs = reconstructed_object(object_file), true_object(truth_file)
        object_, reference, region = common_part(ours, theirs)
        metrics = compare_objects(object_, reference, region)
        if picture is not None:
            draw_comparison(
                picture,
                {object_file.name: object_},
                reference,
                region,
                pixel_size_m=ours.pixel_size_m or theirs.pixel_size_m,
                title=object_file.name,
            )
        return metrics


def _facts(metrics: 'ObjectMetrics') -> dict[str, Any]:
    def quality(psnr: float, ssim: float) -> str:
        return f'PSNR {text_of_number(psnr, 2)} dB, SSIM {text_of_number(ssim, 4)}'

    half_period = metrics.frc_resolution_px
    resolution = 'better than 1 px' if half_period is None else f'{half_period:.2f} px'
    return {
        'phase': quality(metrics.phase_psnr_dB, metrics.phase_ssim),
        'amplitude': quality(metrics.amplitude_psnr_dB, metrics.amplitude_ssim),
        'complex error': text_of_number(metrics.complex_error, 4),
        'resolution': f'{resolution} half-period, {metrics.frc_nyquist_fraction:.2f} of Nyquist '
        '(Fourier ring correlation, half-bit)',
        'compared': f'{metrics.region_px} px that the beam has scanned',
    }
