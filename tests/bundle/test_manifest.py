"""manifest.json: versions, strict fields, and the committed schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleVersionError,
    NotABundleError,
)
from ptychodus_torch_plugin.bundle.manifest import Manifest, Normalisation, parse_manifest
from ptychodus_torch_plugin.errors import BundleError


@pytest.fixture
def fields(members: dict[str, bytes]) -> dict[str, Any]:
    return json.loads(members['manifest.json'])


def parse(fields: object) -> Manifest:
    return parse_manifest(json.dumps(fields).encode(), source='manifest.json of x.zip')


def plain(node: Any) -> Any:
    """Return a schema without the `enum` that early pydantic 2 puts beside every `const`."""
    if isinstance(node, dict):
        return {k: plain(v) for k, v in node.items() if k != 'enum' or 'const' not in node}
    return [plain(item) for item in node] if isinstance(node, list) else node


def test_the_committed_schema_is_up_to_date(maker) -> None:
    """If this fails, run `python tests/bundle/make_golden.py`."""
    committed = json.loads(maker.SCHEMA.read_text(encoding='utf-8'))
    assert plain(json.loads(maker.schema_text())) == plain(committed)


def test_a_manifest_is_frozen_and_exact(fields: dict[str, Any]) -> None:
    manifest = parse(fields)
    assert manifest.normalisation.mean_counts == 12345.678
    assert manifest.training_settings['seed'] == 2**63 + 1
    assert manifest.provenance['note'] == 'Böhmen ✓'
    with pytest.raises(ValidationError, match='frozen'):
        manifest.backend = 'tensorflow'


@pytest.mark.parametrize('scale', [0.0, -1.0, float('inf'), float('nan')])
def test_scales_are_positive_and_finite(scale: float) -> None:
    with pytest.raises(ValidationError, match='input_scale'):
        Normalisation(mean_counts=1.0, input_scale=scale, probe_scale=1.0)


@pytest.mark.parametrize('version', ['2.0', '0.9', '10.0', '1', '1.0.0', ' 1.0', '01.0', 1.0, None])
def test_other_major_versions_are_refused(version: object, fields: dict[str, Any]) -> None:
    fields['format_version'] = version
    fields['producer'] = {'ptychodus-torch-plugin': '7.3.1'}
    with pytest.raises(BundleVersionError, match=r"this release reads 1\.x.*'7\.3\.1'.*or later"):
        parse(fields | {'new field of that version': 1})


def test_a_version_without_a_known_writer(fields: dict[str, Any]) -> None:
    for producer in ({}, 'me', {'ptychodus-torch-plugin': 3}):
        with pytest.raises(BundleVersionError, match='with ptychodus-torch-plugin later'):
            parse(fields | {'format_version': '2.0', 'producer': producer})


def test_later_minor_versions_may_add_fields_and_this_one_not(fields: dict[str, Any]) -> None:
    fields['license'] = 'CC0'
    assert parse(fields | {'format_version': '1.7'}).format_version == '1.7'
    with pytest.raises(BundleContentError, match='license'):
        parse(fields)


@pytest.mark.parametrize('content', [[], 'x', {}, {'format': 'other'}, {'format': ['a']}])
def test_manifests_of_something_else(content: object) -> None:
    with pytest.raises(NotABundleError, match=r"expected 'ptychodus_torch_plugin\.bundle'"):
        parse(content)


def change(*path: str, to: object) -> Callable[[dict[str, Any]], None]:
    def apply(fields: dict[str, Any]) -> None:
        for key in path[:-1]:
            fields = fields[key]
        fields[path[-1]] = to

    return apply


KERNEL = 'weights/encoder.0.kernel'


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (change('normalisation', 'mean_counts', to=0), 'mean_counts'),
        (change('normalisation', 'input_scale', to=-1.0), 'input_scale'),
        (change('normalisation', 'probe_scale', to='1.0'), 'probe_scale'),
        (change('normalisation', 'probe_scale', to=True), 'probe_scale'),
        (change('normalisation', 'extra', to=1), 'extra'),
        (change('backend', to=''), 'backend'),
        (change('backend', to='py\x1btorch'), 'backend'),
        (change('models', to=['autoencoder']), 'models'),
        (change('models', to=['diffraction_to_obj', 'autoencoder']), 'models'),
        (change('producer', 'numpy', to=2), 'producer.numpy'),
        (change('model_settings', to=[]), 'model_settings'),
        (change('provenance', to={'a': '\ud800'}), 'JSON'),
        (change('tensors', KERNEL, 'dtype', to='float16'), 'float32'),
        (change('tensors', KERNEL, 'shape', to=[3, 2, 3]), '3 axes in shape, but 4 names'),
        (change('tensors', KERNEL, 'shape', 0, to=-3), 'shape'),
        (change('tensors', KERNEL, 'shape', 0, to=2**31), 'shape'),
        (change('tensors', KERNEL, 'shape', 0, to=3.0), 'shape'),
        (change('tensors', KERNEL, 'member', to='history.json'), 'member'),
        (change('tensors', KERNEL, 'member', to='probe.safetensors'), 'is not in the member'),
        (change('members', 'history.json', 'sha256', to='A' * 64), 'sha256'),
        (change('members', 'history.json', 'size', to=-1), 'size'),
        (change('members', 'code.py', to={'sha256': 'a' * 64, 'size': 1}), 'code.py'),
        (change('members', to={}), 'weights.safetensors'),
    ],
)
def test_fields_are_strict(
    spoil: Callable[[dict[str, Any]], None], words: str, fields: dict[str, Any]
) -> None:
    spoil(fields)
    with pytest.raises(BundleContentError, match=words):
        parse(fields)


def test_faults_are_listed_up_to_a_limit(fields: dict[str, Any]) -> None:
    fields['backend'], fields['models'] = 5, None
    with pytest.raises(BundleContentError, match=r'(?s)models.*backend'):
        parse(fields)
    fields['producer'] = {str(i): i for i in range(100)}
    with pytest.raises(BundleContentError, match='and 92 more') as caught:
        parse(fields)
    assert len(str(caught.value)) < 3000


def test_no_single_change_of_a_value_escapes(fields: dict[str, Any]) -> None:
    """Replace every value of the manifest by each kind of value."""
    paths: list[tuple[Any, ...]] = []

    def walk(value: object, path: tuple[Any, ...]) -> None:
        items: Any = {}
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            paths.append((*path, key))
            walk(child, (*path, key))

    walk(fields, ())
    assert len(paths) > 100
    for path in paths:
        for value in (None, True, -1, 1.5, 'x', [], [1], {}, {'a': 1}, 10**39):
            spoiled = copy.deepcopy(fields)
            change(*path, to=value)(spoiled)
            try:
                parse(spoiled)
            except BundleError:
                continue
