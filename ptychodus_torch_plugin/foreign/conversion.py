"""`convert_archive`: from an archive that PtychoPINN wrote to a bundle of this package.

What comes out is a bundle like any other, and says in its provenance where it comes from and what
had to be assumed.  What this package has no model for is refused, by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ptychodus_torch_plugin.arrays import ComplexArray
from ptychodus_torch_plugin.bundle.archive import Bundle
from ptychodus_torch_plugin.bundle.errors import ForeignBundleError, quoted
from ptychodus_torch_plugin.bundle.foreign import is_foreign
from ptychodus_torch_plugin.bundle.limits import LEGACY_MANIFEST
from ptychodus_torch_plugin.bundle.manifest import DISTRIBUTION, Normalisation
from ptychodus_torch_plugin.bundle.weights import check_weights
from ptychodus_torch_plugin.errors import ConfigError, ShapeError
from ptychodus_torch_plugin.foreign.archive import Archive, open_archive
from ptychodus_torch_plugin.foreign.canonical import canonical_shapes
from ptychodus_torch_plugin.foreign.illumination import (
    normalised_probe,
    object_scale,
    placeholder_probe,
)
from ptychodus_torch_plugin.foreign.inert_pickle import read_pickle
from ptychodus_torch_plugin.foreign.keras_archive import KERAS_FILE, read_keras_archive
from ptychodus_torch_plugin.foreign.limits import MANIFEST_BYTES
from ptychodus_torch_plugin.foreign.model import MODEL, ForeignModel
from ptychodus_torch_plugin.foreign.parameters import Parameters
from ptychodus_torch_plugin.foreign.torch_archive import TORCH_FILE, read_torch_archive
from ptychodus_torch_plugin.physics import Complex
from ptychodus_torch_plugin.scan import ScanData

READERS = {
    KERAS_FILE: ('1.0', 'tensorflow', read_keras_archive),
    TORCH_FILE: ('2.0-pytorch', 'pytorch', read_torch_archive),
}
"""By the member that tells the variant: its version, its backend here, its reader."""

MIN_NORM = 1e-9
"""Where the scale of an object is no more a matter of units."""

_INPUT = (
    'input: normalised by the counts of the scan at hand, as PtychoPINN does (input_scaling = scan)'
)


def convert_archive(path: str | Path, scan: ScanData | None = None) -> Bundle:
    """Return the model in an archive of PtychoPINN as a bundle; nothing in it is executed.

    The network and its weights are exactly PtychoPINN's.  The probe decides the weight of a patch's
    pixels where patches of a group merge, and the scale of the object's amplitude.

    Parameters
    ----------
    path
        The archive, or a folder that holds it as wts.h5.zip or model.zip.
    scan
        A scan that the model was trained on, for its probe; for the PyTorch variant alone, whose
        archives have none.  Without it a Gaussian beam stands in its place.

    Raises
    ------
    BundleError
        A subclass per defect; `ForeignBundleError` names what this package has no model for.
    ConfigError, ShapeError
        If a scan is given whose probe is not wanted, or does not fit.
    """
    with open_archive(path) as (archive, sha256):
        model, backend = _read(archive)
        source = archive.source
    light = _light(model, scan, source)
    log_scale = np.array(math.log(light.object_scale), dtype=np.float32)
    weights = {'log_intensity_scale': log_scale, **model.weights}
    check_weights(weights, canonical_shapes(model.config), source=f'the network of {source}')
    return Bundle(
        backend=backend,
        model_settings=model.config.to_json(),
        normalisation=Normalisation(
            mean_counts=model.photons,
            input_scale=2 * math.sqrt(model.photons) / model.config.N,
            probe_scale=light.factor,
        ),
        weights=weights,
        probe=light.probe,
        producer={DISTRIBUTION: version(DISTRIBUTION)},
        provenance={
            'converted_from': {
                'program': 'PtychoPINN',
                'framework': model.framework,
                'version': model.version,
                'sha256': sha256,
            },
            'assumed': [*model.notes, _INPUT, light.note, *_scale_notes(model, light)],
        },
    )


def _read(archive: Archive) -> tuple[ForeignModel, str]:
    variants = [member for member in READERS if member in archive.names]
    if not is_foreign(archive.names) or len(variants) != 1:
        raise ForeignBundleError(
            f'{archive.source} has the members {quoted(", ".join(sorted(archive.names)))}; '
            f'expected an archive of PtychoPINN: {LEGACY_MANIFEST} and one of {", ".join(READERS)}.'
        )
    expected, backend, read = READERS[variants[0]]
    data = archive.read(LEGACY_MANIFEST, at_most=MANIFEST_BYTES)
    source = archive.source_of(LEGACY_MANIFEST)
    manifest = Parameters(read_pickle(data, source=source), source)
    manifest.require('version', expected)
    manifest.require('backend', backend)
    models = manifest.plain('models')
    if not isinstance(models, list | tuple) or MODEL not in models:
        raise ForeignBundleError(
            f'{source} does not name the model {MODEL}; expected an archive that PtychoPINN wrote '
            'after training.'
        )
    return read(archive, manifest.text('version')), backend


@dataclass(frozen=True, eq=False)
class _Light:
    """The probe (m, N, N) complex64, its factor to P_ref, what is said about it, and s."""

    probe: ComplexArray
    factor: float
    note: str
    object_scale: float


def _light(model: ForeignModel, scan: ScanData | None, source: str) -> _Light:
    # Absurd values are refused at the end, in one place.
    with np.errstate(all='ignore'):
        reference, note = _reference_probe(model, scan, source)
        scale = object_scale(reference, model.config)
        factor = math.sqrt(model.photons) / max(float(np.linalg.norm(reference)), MIN_NORM)
        probe = (reference * factor).astype(np.complex64)
    if not (MIN_NORM < scale < 1 / MIN_NORM and np.isfinite(probe).all()):
        raise ForeignBundleError(
            f'{source}: its probe, probe_scale = {model.probe_scale:g} and nphotons = '
            f'{model.photons:g} make a factor of {scale:g} on the object; expected about 1. Train '
            'the model here instead.'
        )
    return _Light(probe, factor, note, scale)


def _reference_probe(
    model: ForeignModel, scan: ScanData | None, source: str
) -> tuple[Complex, str]:
    """Return P_ref (m, N, N), and what is to be said about it."""
    n_px = model.config.N
    if model.probe is not None:
        if scan is not None:
            raise ConfigError(
                f'{source} has a probe of its own, but the scan {scan.name} was given for one; '
                'expected no scan. Leave it out.'
            )
        note = 'probe: that of the archive, mean amplitude 1 / probe_scale inside the disc of N / 2'
        return normalised_probe(model.probe, model.probe_scale), note
    if scan is None:
        probe = normalised_probe(placeholder_probe(n_px), model.probe_scale)
        return probe, (
            'probe: unknown, a Gaussian beam stands in its place; it decides the weights in the '
            "merge of a group and the scale of the object's amplitude, nothing else"
        )
    if scan.n_px != n_px:
        raise ShapeError(
            f'{scan.name} has patterns of {scan.n_px} px, but the model in {source} is for N = '
            f'{n_px}; expected a scan that it was trained on.'
        )
    note = f'probe: that of the scan {scan.name} ({scan.fingerprint()}), as stored, / probe_scale'
    return np.asarray(scan.probe / model.probe_scale, dtype=np.complex128), note


def _scale_notes(model: ForeignModel, light: _Light) -> list[str]:
    said = f'probe_scale = {model.probe_scale:g}, nphotons = {model.photons:g}'
    return [
        f'{said}; intensity_scale: not used, it acts on input and output alike and cancels',
        f'transmission = {light.object_scale:.6g} x patch, from the energy of the probe',
        'optimiser and history: not taken over',
    ]
