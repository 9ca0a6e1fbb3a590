"""Whether a scan is of the size that a model is for."""

from __future__ import annotations

from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.errors import ShapeError
from ptychodus_torch_plugin.scan import ScanData


def check_size(scan: ScanData, config: ModelConfig) -> None:
    """Raise `ShapeError` if a scan has patterns of another size N than a model."""
    if scan.n_px != config.N:
        raise ShapeError(
            f'{scan.name}: patterns are {scan.n_px} x {scan.n_px} px, but the model is for N = '
            f'{config.N}. Crop the detector to {config.N} px, or train a model for {scan.n_px}.'
        )


def check_fits(scan: ScanData, config: ModelConfig) -> None:
    """Raise `ShapeError` if a model cannot reconstruct a scan because of the size N.

    Only 'cnn' looks at patterns; what other networks look at, the object, has no N.
    """
    if config.architecture == 'cnn':
        check_size(scan, config)
