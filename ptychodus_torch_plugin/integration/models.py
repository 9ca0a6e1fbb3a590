"""Models in files, checked without any framework."""

from __future__ import annotations

from pathlib import Path

from ptychodus_torch_plugin.bundle.archive import read_bundle, write_bundle
from ptychodus_torch_plugin.config import ModelConfig
from ptychodus_torch_plugin.foreign.archive import is_archive
from ptychodus_torch_plugin.foreign.conversion import convert_archive
from ptychodus_torch_plugin.integration.workshop import logger


def checked_model(path: Path, converted: Path) -> Path:
    """Return the bundle to use for the model in `path`.

    A model that PtychoPINN trained is converted into the file `converted`.

    Raises
    ------
    BundleError, ConfigError
        If it is no model, or none that this release knows.
    """
    if is_archive(path):
        bundle = convert_archive(path)
        converted.parent.mkdir(parents=True, exist_ok=True)
        write_bundle(converted, bundle)
        assumed = bundle.provenance['assumed']
        assert isinstance(assumed, list)
        for line in assumed:
            logger.info('%s: %s', path.name, line)
        return converted
    bundle = read_bundle(path)
    config = ModelConfig.parse(bundle.model_settings, source=str(path))
    logger.info(
        '%s: a model for N = %d, architecture %s, trained by %s, %d epochs',
        path.name,
        config.N,
        config.architecture,
        bundle.backend,
        len(bundle.history),
    )
    return path
