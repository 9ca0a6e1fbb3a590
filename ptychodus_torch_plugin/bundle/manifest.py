"""`manifest.json`: what a bundle says about itself, checked field by field.

specs/bundle-manifest.schema.json is generated from `Manifest`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleVersionError,
    NotABundleError,
    quoted,
)
from ptychodus_torch_plugin.bundle.limits import (
    MANIFEST,
    MEMBER_BYTES,
    REQUIRED_MEMBERS,
    TENSOR_COUNT,
)
from ptychodus_torch_plugin.bundle.strict_json import decode_json

FORMAT: Literal['ptychodus_torch_plugin.bundle'] = 'ptychodus_torch_plugin.bundle'
MAJOR_VERSION = 1
MINOR_VERSION = 0
FORMAT_VERSION = f'{MAJOR_VERSION}.{MINOR_VERSION}'
MODELS: tuple[Literal['autoencoder'], Literal['diffraction_to_obj']] = (
    'autoencoder',
    'diffraction_to_obj',
)
DISTRIBUTION = 'ptychodus-torch-plugin'

_VERSION = re.compile(r'(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})')
_MAX_FAULTS = 10

Label = Annotated[str, Field(pattern='^[A-Za-z0-9_.+-]{1,100}$')]
AxisLength = Annotated[int, Field(ge=0, lt=2**31)]
TensorMember = Literal['weights.safetensors', 'probe.safetensors', 'optimizer.safetensors']


class _Record(BaseModel):
    # 'model_' is a common prefix here (`model_settings`), not a name of pydantic's.
    model_config = ConfigDict(
        frozen=True, extra='forbid', allow_inf_nan=False, protected_namespaces=()
    )


class Normalisation(_Record):
    """The scales frozen at training and used again at inference.

    Attributes
    ----------
    mean_counts
        Mean total photon counts of a training pattern over its good pixels.
    input_scale
        Divisor of the amplitudes (square root of counts) at the network's input.
    probe_scale
        Factor by which the first guess of the probe was multiplied to reach the gauge.
    """

    mean_counts: PositiveFloat
    input_scale: PositiveFloat
    probe_scale: PositiveFloat


class TensorEntry(_Record):
    """Where one tensor is and what its axes mean, e.g. ('out', 'in', 'kh', 'kw')."""

    member: TensorMember
    shape: Annotated[tuple[AxisLength, ...], Field(max_length=8)]
    dtype: Literal['float32'] = 'float32'
    axes: Annotated[tuple[Label, ...], Field(max_length=8)]

    @model_validator(mode='after')
    def _name_every_axis(self) -> Self:
        if len(self.axes) != len(self.shape):
            raise ValueError(f'{len(self.shape)} axes in shape, but {len(self.axes)} names')
        return self


class MemberEntry(_Record):
    """Digest (lower-case hexadecimal) and size in bytes of one other member of the archive."""

    sha256: Annotated[str, Field(pattern='^[0-9a-f]{64}$')]
    size: Annotated[int, Field(ge=0)]


class Manifest(_Record):
    """Everything about a model except its numbers.

    Attributes
    ----------
    format, format_version
        This format; a reader accepts its own major version only.
    models
        The models in the archive; both share the tensors of weights.safetensors.
    backend, producer
        Which backend trained the model, and versions by package name.
    model_settings, training_settings
        JSON of the configurations.  The caller validates them: their fields may change with a
        release, the format of the bundle does not.
    normalisation
        The frozen scales.
    provenance
        Data fingerprints, seeds, date and whatever else tells where the model came from.
    tensors
        Index by ``<member without suffix>/<canonical name>``, e.g. ``weights/encoder.0.kernel``.
    members
        Digests of all other members by name.
    """

    format: Literal['ptychodus_torch_plugin.bundle'] = FORMAT
    format_version: Annotated[str, Field(pattern=f'^{_VERSION.pattern}$')] = FORMAT_VERSION
    models: tuple[Literal['autoencoder'], Literal['diffraction_to_obj']] = MODELS
    backend: Label
    producer: dict[str, str]
    model_settings: dict[str, JsonValue]
    training_settings: dict[str, JsonValue] | None
    normalisation: Normalisation
    provenance: dict[str, JsonValue]
    tensors: Annotated[dict[str, TensorEntry], Field(max_length=3 * TENSOR_COUNT)]
    members: dict[str, MemberEntry]

    @model_validator(mode='after')
    def _check_members(self) -> Self:
        unknown = sorted(self.members.keys() - (MEMBER_BYTES.keys() - {MANIFEST}))
        missing = sorted(REQUIRED_MEMBERS - {MANIFEST} - self.members.keys())
        if unknown or missing:
            names = [quoted(name) for name in unknown]
            raise ValueError(f'members lacks {missing} and names the unknown {names}')
        for key, entry in self.tensors.items():
            if entry.member not in self.members or not key.startswith(tensor_prefix(entry.member)):
                raise ValueError(
                    f'tensor {quoted(key)} is not in the member {entry.member} that it names'
                )
        return self

    def shapes(self, member: str) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of one member by canonical name."""
        return {name: entry.shape for name, entry in self._tensors_of(member)}

    def axes(self, member: str) -> dict[str, tuple[str, ...]]:
        """Return the axis names of every tensor of one member by canonical name."""
        return {name: entry.axes for name, entry in self._tensors_of(member)}

    def _tensors_of(self, member: str) -> Iterator[tuple[str, TensorEntry]]:
        prefix = tensor_prefix(member)
        for key, entry in self.tensors.items():
            if entry.member == member:
                yield key.removeprefix(prefix), entry


def tensor_prefix(member: str) -> str:
    """Return what precedes a canonical name in `Manifest.tensors`, e.g. ``'weights/'``."""
    return member.removesuffix('.safetensors') + '/'


def parse_manifest(data: bytes, *, source: str) -> Manifest:
    """Return the manifest in the bytes of manifest.json.

    Raises
    ------
    NotABundleError
        If it is the manifest of something else.
    BundleVersionError
        If its major version is not the one of this release.
    BundleContentError
        If fields are missing, unknown or out of range; lists them.
    CorruptBundleError, BundleLimitError
        If it is not JSON or is nested too deeply.
    """
    raw = decode_json(data, source=source)
    if not isinstance(raw, dict) or raw.get('format') != FORMAT:
        found = raw.get('format') if isinstance(raw, dict) else type(raw).__name__
        raise NotABundleError(
            f'{source} has the format {quoted(found)}; expected {FORMAT!r}. '
            'Name a wts.h5.zip that this package wrote.'
        )
    if _minor_version(raw, source) > MINOR_VERSION:
        # A minor version may only add top-level fields that an older reader can do without.
        raw = {key: value for key, value in raw.items() if key in Manifest.model_fields}
    try:
        return Manifest.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise BundleContentError(_describe(error, source)) from None


def build_manifest(**fields: Any) -> Manifest:
    """Return a new manifest; `BundleContentError` if a field is missing, unknown or wrong."""
    try:
        return Manifest(**fields)
    except ValidationError as error:
        raise BundleContentError(_describe(error, 'the manifest to write')) from None


def _minor_version(raw: dict[str, Any], source: str) -> int:
    found = raw.get('format_version')
    match = _VERSION.fullmatch(found) if isinstance(found, str) else None
    if match and int(match[1]) == MAJOR_VERSION:
        return int(match[2])
    producer = raw.get('producer')
    writer = producer.get(DISTRIBUTION) if isinstance(producer, dict) else None
    release = f'{writer[:40]!r}, which wrote it, or later' if isinstance(writer, str) else 'later'
    raise BundleVersionError(
        f'{source} has bundle format {quoted(found)}; this release reads {MAJOR_VERSION}.x. '
        f'Read it with {DISTRIBUTION} {release}.'
    )


def _describe(error: ValidationError, source: str) -> str:
    faults = error.errors(include_url=False, include_context=False)
    lines = [
        f'{quoted(".".join(map(str, fault["loc"])) or "manifest")}: {fault["msg"]}, '
        f'found {quoted(fault["input"])}'
        for fault in faults[:_MAX_FAULTS]
    ]
    more = [f'and {len(faults) - _MAX_FAULTS} more'] if len(faults) > _MAX_FAULTS else []
    return f'{source} does not follow specs/bundle-format.md:\n  ' + '\n  '.join([*lines, *more])
