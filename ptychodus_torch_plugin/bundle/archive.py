"""`wts.h5.zip`: one trained model in one file, written atomically and read without executing it.

The format is specs/bundle-format.md.  Equal bundles give equal files, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from ptychodus_torch_plugin.arrays import ComplexArray, FloatArray
from ptychodus_torch_plugin.bundle.container import (
    Container,
    check_sizes,
    open_container,
    write_container,
)
from ptychodus_torch_plugin.bundle.content import (
    History,
    check_best_epoch,
    check_history,
    check_preview,
    join_probe,
    split_probe,
)
from ptychodus_torch_plugin.bundle.errors import BundleContentError, CorruptBundleError, quoted
from ptychodus_torch_plugin.bundle.legacy_manifest import legacy_manifest
from ptychodus_torch_plugin.bundle.limits import (
    HISTORY,
    LEGACY_MANIFEST,
    MANIFEST,
    OPTIMIZER,
    PREVIEW,
    PROBE,
    TENSOR_MEMBERS,
    WEIGHTS,
)
from ptychodus_torch_plugin.bundle.manifest import (
    FORMAT_VERSION,
    MODELS,
    Manifest,
    MemberEntry,
    Normalisation,
    build_manifest,
    parse_manifest,
    tensor_prefix,
)
from ptychodus_torch_plugin.bundle.strict_json import decode_json, encode_json
from ptychodus_torch_plugin.bundle.weights import check_weights, from_safetensors, to_safetensors
from ptychodus_torch_plugin.files.atomic import atomic_path

Tensors = Mapping[str, FloatArray]

_AXES_BY_RANK = {0: (), 1: ('out',), 2: ('out', 'in'), 4: ('out', 'in', 'kh', 'kw')}
_PROBE_AXES = dict.fromkeys(('real', 'imag'), ('m', 'h', 'w'))


@dataclass(frozen=True, eq=False)
class Bundle:
    """One trained model with all that is needed to use it or to train it further.

    Attributes
    ----------
    backend
        Name of the backend that trained it, e.g. ``'pytorch'``.
    model_settings, training_settings
        JSON of the model's and the training's configuration; the caller validates it.
    normalisation
        The frozen scales.
    weights : dict of float32
        Canonical tensors by name, kernels (out, in, kh, kw).
    probe : (m, N, N) complex64
        Probe modes on the gauge's scale.
    history
        One dictionary per epoch; `None` where nothing was measured.
    producer, provenance
        Versions by package name; data fingerprints, seeds, date, best epoch.
    optimizer : dict of float32 or None
        State of the optimiser, ``<slot>/<canonical name>`` or ``<slot>`` for a scalar.
    preview_png
        A small picture of the training reconstruction.
    weight_axes
        Names of the axes of weights where the rank does not tell them: (out), (out, in) and
        (out, in, kh, kw) are taken for granted, any other rank is (axis0, axis1, ...).
    """

    backend: str
    model_settings: dict[str, JsonValue]
    normalisation: Normalisation
    weights: dict[str, FloatArray]
    probe: ComplexArray
    history: History = field(default_factory=list)
    training_settings: dict[str, JsonValue] | None = None
    producer: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, JsonValue] = field(default_factory=dict)
    optimizer: dict[str, FloatArray] | None = None
    preview_png: bytes | None = None
    weight_axes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int | None:
        """Epoch whose weights these are, counted from 1; `None` if provenance names none."""
        return cast('int | None', self.provenance.get('best_epoch'))  # checked both ways


def write_bundle(path: str | Path, bundle: Bundle) -> None:
    """Write a bundle to the file `path`; on any error the old file stays whole.

    Raises
    ------
    BundleWeightsError, BundleContentError, BundleLimitError
        If no reader would accept the bundle; the disk is not touched.
    OutputError
        If the file cannot be written.
    """
    members = _pack(bundle)
    with atomic_path(path) as temporary:
        write_container(temporary, members)


def read_bundle(path: str | Path) -> Bundle:
    """Return the bundle in a file, or in a folder that holds wts.h5.zip or model.zip.

    Raises
    ------
    BundleError
        A subclass per defect, see `bundle.errors`; no file makes it raise anything else.
    """
    with open_container(path) as container:
        manifest = _read_manifest(container)
        tensors = {
            member: _read_tensors(container, manifest, member)
            for member in TENSOR_MEMBERS
            if member in manifest.members
        }
        others = {
            member: _read_member(container, manifest, member)
            for member in manifest.members
            if member not in tensors
        }
    source = container.source(HISTORY)
    history = check_history(decode_json(others[HISTORY], source=source), source=source)
    check_best_epoch(
        manifest.provenance, history, source=f'the provenance in {container.source(MANIFEST)}'
    )
    return Bundle(
        backend=manifest.backend,
        model_settings=manifest.model_settings,
        training_settings=manifest.training_settings,
        normalisation=manifest.normalisation,
        producer=manifest.producer,
        provenance=manifest.provenance,
        weights=tensors[WEIGHTS],
        weight_axes=manifest.axes(WEIGHTS),
        probe=join_probe(tensors[PROBE], source=container.source(PROBE)),
        optimizer=tensors.get(OPTIMIZER),
        history=history,
        preview_png=check_preview(others.get(PREVIEW), source=container.source(PREVIEW)),
    )


def read_manifest(path: str | Path) -> Manifest:
    """Return what a bundle says about itself, at the cost of reading its manifest alone.

    Names and sizes of the other members are checked, their digests and values are not.

    Raises
    ------
    BundleError
        As `read_bundle`.
    """
    with open_container(path) as container:
        return _read_manifest(container)


def _pack(bundle: Bundle) -> dict[str, bytes]:
    """Return every member by name; refuse whatever a reader would refuse."""
    tensors: dict[str, Tensors] = {WEIGHTS: bundle.weights, PROBE: split_probe(bundle.probe)}
    if bundle.optimizer is not None:
        tensors[OPTIMIZER] = bundle.optimizer
    members = {name: to_safetensors(values, source=name) for name, values in tensors.items()}
    history = check_history(bundle.history, source='history')
    check_best_epoch(bundle.provenance, history, source='provenance')
    members[HISTORY] = encode_json(history, source='history')
    preview = check_preview(bundle.preview_png, source='preview_png')
    if preview is not None:
        members[PREVIEW] = preview
    members[LEGACY_MANIFEST] = legacy_manifest(MODELS, FORMAT_VERSION, bundle.backend)
    manifest = _manifest_of(bundle, tensors, members)
    members[MANIFEST] = encode_json(manifest.model_dump(mode='json'), source='the manifest')
    check_sizes({name: len(data) for name, data in members.items()}, 'the bundle to write')
    return members


def _manifest_of(
    bundle: Bundle, tensors: Mapping[str, Tensors], members: Mapping[str, bytes]
) -> Manifest:
    unknown = sorted(bundle.weight_axes.keys() - bundle.weights.keys())
    if unknown:
        raise BundleContentError(
            f'weight_axes names {[quoted(name) for name in unknown]}; expected names of weights.'
        )
    return build_manifest(
        backend=bundle.backend,
        producer=bundle.producer,
        model_settings=bundle.model_settings,
        training_settings=bundle.training_settings,
        normalisation=bundle.normalisation,
        provenance=bundle.provenance,
        tensors=_tensor_index(tensors, {WEIGHTS: bundle.weight_axes, PROBE: _PROBE_AXES}),
        members={
            name: MemberEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for name, data in members.items()
        },
    )


def _tensor_index(
    tensors: Mapping[str, Tensors], axes: Mapping[str, Mapping[str, tuple[str, ...]]]
) -> dict[str, dict[str, object]]:
    return {
        tensor_prefix(member) + name: {
            'member': member,
            'shape': tensor.shape,
            'axes': axes.get(member, {}).get(name, _default_axes(tensor.ndim)),
        }
        for member, values in tensors.items()
        for name, tensor in values.items()
    }


def _default_axes(rank: int) -> tuple[str, ...]:
    return _AXES_BY_RANK.get(rank, tuple(f'axis{i}' for i in range(rank)))


def _read_manifest(container: Container) -> Manifest:
    source = container.source(MANIFEST)
    manifest = parse_manifest(container.read(MANIFEST), source=source)
    promised = {name: entry.size for name, entry in manifest.members.items()}
    found = {name: size for name, size in container.sizes.items() if name != MANIFEST}
    if promised != found:
        differing = sorted(dict(promised.items() ^ found.items()))
        raise CorruptBundleError(
            f'{source} promises other members than there are: {", ".join(differing)} differ in '
            'size or exist on one side only. Copy the bundle again from where it was written.'
        )
    return manifest


def _read_member(container: Container, manifest: Manifest, member: str) -> bytes:
    data = container.read(member)
    found = hashlib.sha256(data).hexdigest()
    expected = manifest.members[member].sha256
    if found != expected:
        raise CorruptBundleError(
            f'{container.source(member)} has sha256 {found}; its manifest says {expected}. '
            'It was altered after it was written; take the original.'
        )
    return data


def _read_tensors(container: Container, manifest: Manifest, member: str) -> dict[str, FloatArray]:
    source = container.source(member)
    tensors = from_safetensors(_read_member(container, manifest, member), source=source)
    check_weights(tensors, manifest.shapes(member), source=source)
    return tensors
