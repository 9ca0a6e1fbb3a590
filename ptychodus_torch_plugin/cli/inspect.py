"""`inspect`: what a file holds, and what would be made of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import Json, given
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.report import say_facts, say_json
from ptychodus_torch_plugin.errors import PluginError


@with_groups
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar='FILE', help='Scan file, model bundle, product, object.npz, or their folder.'
        ),
    ],
    json_output: Json = False,
    *,
    reading: ReadingOptions,
) -> None:
    """Say what a scan, model or product file holds.

    For a scan: what was decided about it and why, counts, overlap, optics.  Needs no backend.
    """
    with progress_display() as display, display.busy(f'Reading {file}'):
        from ptychodus_torch_plugin.cli.contents import describe, stored_arrays
        from ptychodus_torch_plugin.files.options import ReadOptions

        options = ReadOptions(**given(reading))
        try:
            report = describe(file, options, reading.diffraction)
            problem = None
        except PluginError as error:
            report = {'kind': 'unreadable', 'arrays': stored_arrays(file)}
            problem = error
    if json_output:
        told = {} if problem is None else {'problem': ' '.join(str(problem).split())}
        say_json({'file': file, **report, **told})
    elif problem is None or report['arrays']:
        say_facts({'file': file, **_facts(report)})
    if problem is not None:
        raise problem


def _facts(report: dict[str, Any]) -> dict[str, list[str]]:
    """Return nested values as lines of text; of a manifest, without what only programs read."""
    manifest = report.get('manifest', {})
    told = {name: value for name, value in report.items() if name != 'manifest'}
    told |= {name: value for name, value in manifest.items() if name != 'tensors'}
    if manifest:
        told['members'] = {
            name: f'{member["size"]} bytes' for name, member in manifest['members'].items()
        }
    return {name.replace('_', ' '): _lines(value) for name, value in told.items()}


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f'{name}: {_inline(inner)}' for name, inner in value.items()]
    if isinstance(value, list | tuple) and any(isinstance(inner, str) for inner in value):
        return [_inline(inner) for inner in value]
    return [_inline(value)]


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {_inline(inner)}' for name, inner in value.items())
    if isinstance(value, list | tuple):
        return f'[{", ".join(_inline(inner) for inner in value)}]'
    if isinstance(value, float):
        return f'{value:.6g}'
    return '-' if value is None else str(value)
