"""A model archive of PtychoPINN into a bundle: what `convert` does with one.

This module loads NumPy: `convert` imports it inside its function, so that `--help` does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.bundle.archive import Bundle, write_bundle
from ptychodus_torch_plugin.cli.options import given
from ptychodus_torch_plugin.cli.outputs import output_folder
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.report import say_facts, say_files, say_json
from ptychodus_torch_plugin.cli.settings import read_one
from ptychodus_torch_plugin.config.model import CNN_FIELDS
from ptychodus_torch_plugin.errors import ConfigError
from ptychodus_torch_plugin.foreign.archive import is_archive
from ptychodus_torch_plugin.foreign.conversion import convert_archive

SUFFIX = '.zip'
SETTINGS = ('architecture', 'N', *CNN_FIELDS)


def convert_model(
    source: Path, out: Path, scan_file: Path | None, reading: ReadingOptions, *, json_output: bool
) -> None:
    """Convert an archive, and say what was assumed.

    Parameters
    ----------
    source, out
        The archive, and the bundle to write.
    scan_file, reading
        Scan for the probe, and how it is read.
    json_output
        Whether to say it as JSON.
    """
    _check(source, out, scan_file, reading)
    with progress_display() as display, output_folder(out.parent):
        scan = None if scan_file is None else read_one(scan_file, reading, display)
        with display.busy(f'Reading {source}'):
            bundle = convert_archive(source, scan)
        with display.busy(f'Writing {out.name}'):
            write_bundle(out, bundle)
    summary = describe_model(bundle)
    if json_output:
        say_json({'file': out, **summary})
        return
    say_facts(
        {
            'from': ', '.join(f'{key} {value}' for key, value in summary['converted_from'].items()),
            'model': [f'{key} = {value}' for key, value in summary['model'].items()],
            'weights': '{numbers} in {tensors} tensors'.format(**summary['weights']),
            'assumed': summary['assumed'],
        }
    )
    say_files({'model': out})


def describe_model(bundle: Bundle) -> dict[str, Any]:
    """Return what became of an archive, as JSON values."""
    return {
        'model': {name: bundle.model_settings[name] for name in SETTINGS},
        'weights': {
            'tensors': len(bundle.weights),
            'numbers': sum(int(np.size(each)) for each in bundle.weights.values()),
        },
        **bundle.provenance,
    }


def _check(source: Path, out: Path, scan_file: Path | None, reading: ReadingOptions) -> None:
    if out.suffix.lower() != SUFFIX:
        raise ConfigError(
            f'{source} is a model of PtychoPINN, but {out} ends in {out.suffix!r}; expected a name '
            'that ends in .zip, such as wts.h5.zip in a folder of its own.'
        )
    if is_archive(out):
        raise ConfigError(
            f'{out} is a model of PtychoPINN itself, which would be lost; expected another name '
            'for the bundle.'
        )
    if scan_file is None and given(reading):
        raise ConfigError(
            f'options for reading a scan were given ({", ".join(given(reading))}), but {source} is '
            'a model of PtychoPINN; expected --scan with a scan to be read so. Leave them out.'
        )
