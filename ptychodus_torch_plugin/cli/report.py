"""What a command says at its end: a table for people, JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ptychodus_torch_plugin.backends.protocol import Reconstruction
    from ptychodus_torch_plugin.metrics import ObjectMetrics

WORTH_SAYING = 1.5
"""Noise excess of which a table says a word."""


def say_json(values: Any) -> None:
    """Print values as JSON to stdout."""
    from ptychodus_torch_plugin.cli.outputs import to_json

    typer.echo(to_json(values))


def say_files(files: Mapping[str, Path]) -> None:
    """Print where the files are, one a line."""
    typer.echo('\nFiles:')
    for path in files.values():
        typer.echo(f'  {path}')


def say_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    typer.echo(printable(title))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify='right' if number else 'left', no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def say_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line, in two columns; a list has a line per item."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        lines = value if isinstance(value, list | tuple) else [value]
        for number, line in enumerate(lines or ['-']):
            typer.echo(printable(f'{name if number == 0 else "":<{width}}  {line}'))


def printable(text: str) -> str:
    """Return text from a file in one line that cannot move a terminal's cursor."""
    return ''.join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def stage_figures(
    result: Reconstruction, metrics: Mapping[str, ObjectMetrics]
) -> dict[str, dict[str, Any]]:
    """Return the figures of each stage for JSON."""
    return {
        stage: {
            'r_fitted': result.r_fitted[stage],
            'r_held_out': result.r_held_out.get(stage),
            'object': metrics[stage].as_dict() if stage in metrics else None,
        }
        for stage in result.stages
    }


def say_stages(title: str, stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of `stage_figures` as a table."""
    headings = ['Stage', 'R\nfitted', 'R held\nout']
    compared = any(figures['object'] for figures in stages.values())
    if compared:
        headings += ['Phase\nPSNR', '\nSSIM', 'Ampl.\nPSNR', '\nSSIM']
    rows = []
    for stage, figures in stages.items():
        row = [
            stage,
            text_of_number(figures['r_fitted'], 4),
            text_of_number(figures['r_held_out'], 4),
        ]
        if compared:
            found = figures['object']
            row += [
                text_of_number(found['phase_psnr_dB'], 1),
                text_of_number(found['phase_ssim'], 3),
                text_of_number(found['amplitude_psnr_dB'], 1),
                text_of_number(found['amplitude_ssim'], 3),
            ]
        rows.append(row)
    say_table(title, headings, rows)
    last = list(stages)[-1]
    typer.echo(f"The object in the files is the one after '{last}'.")


def say_reconstruction(metrics: Mapping[str, Any]) -> None:
    """Print the figures of a metrics.json."""
    n_px = metrics['N']
    title = f'{metrics["scan"]}: {metrics["patterns"]} patterns of {n_px} x {n_px} px'
    say_stages(title, metrics['stages'])
    if (excess := metrics['noise_excess']) > WORTH_SAYING:
        typer.echo(
            f'Held-out patterns are fitted {excess:.1f} times worse than the others, so the '
            'network was told of as much more noise than the photons make.'
        )


def text_of_number(value: float | None, digits: int) -> str:
    """Return a number with so many decimals, or a dash for one that there is not."""
    return '-' if value is None or math.isnan(value) else f'{value:.{digits}f}'
