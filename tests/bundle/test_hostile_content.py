"""Members that nobody should trust: no code is run, no value is taken unchecked."""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251 - to make traps and to see that nothing springs them
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from ptychodus_torch_plugin.bundle.archive import read_bundle, read_manifest
from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    BundleWeightsError,
    CorruptBundleError,
    ForeignBundleError,
)
from ptychodus_torch_plugin.errors import BundleError

Members = dict[str, bytes]
Forge = Callable[..., Path]
Sign = Callable[..., Members]
Refuse = Callable[[Path, type[BundleError], str], None]


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def no_unpickling(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError('something was unpickled')

    for name in ('load', 'loads', 'Unpickler', '_load', '_loads', '_Unpickler'):
        monkeypatch.setattr(pickle, name, refuse)


def test_reading_never_unpickles(
    members: Members, forge: Forge, sign: Sign, tmp_path: Path, no_unpickling: None
) -> None:
    trap = tmp_path / 'trap'
    members['manifest.dill'] = pickle.dumps(Payload(trap))
    path = forge(sign(members))
    assert read_bundle(path).backend == read_manifest(path).backend == 'pytorch'
    assert not trap.exists()


def test_the_payload_would_have_worked(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / 'trap')))
    assert (tmp_path / 'trap').is_dir()


@pytest.mark.parametrize(
    ('name', 'framework'),
    [
        ('diffraction_to_obj/model.pth', 'PyTorch'),
        ('autoencoder/model.keras', 'TensorFlow'),
        ('weights', 'unknown framework'),
    ],
)
def test_foreign_archives_are_named_and_never_unpickled(
    name: str,
    framework: str,
    forge: Forge,
    tmp_path: Path,
    no_unpickling: None,
    both_refuse: Refuse,
) -> None:
    trap = tmp_path / 'trap'
    path = forge({'manifest.dill': pickle.dumps(Payload(trap)), 'a/params.dill': b'', name: b''})
    both_refuse(
        path, ForeignBundleError, rf'PtychoPINN archive \({framework}.*convert ARCHIVE BUNDLE'
    )
    assert not trap.exists()


def test_the_legacy_manifest_may_be_absent(members: Members, forge: Forge, sign: Sign) -> None:
    del members['manifest.dill']
    assert read_bundle(forge(sign(members))).backend == 'pytorch'


@pytest.mark.parametrize('name', ['weights.safetensors', 'probe.safetensors', 'history.json'])
def test_required_members(
    name: str, members: Members, forge: Forge, sign: Sign, both_refuse: Refuse
) -> None:
    del members[name]
    both_refuse(forge(members), CorruptBundleError, f'lacks the members {name}')


def test_members_that_the_manifest_does_not_promise(
    members: Members, forge: Forge, both_refuse: Refuse
) -> None:
    without = {name: data for name, data in members.items() if name != 'preview.png'}
    both_refuse(forge(without), CorruptBundleError, r'promises other .* preview\.png')
    longer = members | {'history.json': members['history.json'] + b' '}
    both_refuse(forge(longer), CorruptBundleError, r'promises other .* history\.json')


@pytest.mark.parametrize('name', ['weights.safetensors', 'history.json', 'manifest.dill'])
def test_every_digest_is_compared(name: str, members: Members, forge: Forge) -> None:
    data = bytearray(members[name])
    data[-2] ^= 1
    with pytest.raises(CorruptBundleError, match=f'{name} of .* has sha256'):
        read_bundle(forge(members | {name: bytes(data)}))


def test_all_faults_of_tensors_are_in_one_message(
    members: Members, forge: Forge, sign: Sign
) -> None:
    weights = load(members['weights.safetensors'])
    kernel = weights.pop('encoder.0.kernel')
    weights['encoder.0.bias'] = np.array([1, np.nan, 2], np.float32)
    weights['gain'] = np.zeros(1, np.float32)
    weights['stray'] = kernel
    members['weights.safetensors'] = save(weights)
    with pytest.raises(BundleWeightsError) as caught:
        read_bundle(forge(sign(members)))
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines == [
        "'encoder.0.bias' has 1 of 3 values NaN or infinite, the first at index (1,)",
        "'encoder.0.kernel' is missing; expected shape (3, 2, 3, 5)",
        "'gain' has shape (1,); expected ()",
        "'stray' is not expected; its shape is (3, 2, 3, 5)",
    ]


@pytest.mark.parametrize(
    ('name', 'data', 'error', 'words'),
    [
        ('history.json', b'{}', BundleContentError, 'expected a list'),
        ('history.json', b'[1]', BundleContentError, r'\[0\] is a int'),
        ('history.json', b'[{"loss": "0.1"}]', BundleContentError, "'0.1'"),
        ('history.json', b'[{"loss": [0.1]}]', BundleContentError, 'list'),
        ('history.json', b'[{"loss": true}]', BundleContentError, 'bool'),
        ('history.json', b'[{"\\u001b[2J": 1}]', BundleContentError, 'printable'),
        ('history.json', b'[{"\\ud800": 1}]', BundleContentError, 'printable'),
        ('history.json', b'[{"n": 9007199254740993}]', BundleContentError, '2\\*\\*53'),
        ('history.json', b'[{"loss": NaN}]', CorruptBundleError, 'NaN'),
        ('history.json', b'[{"loss": 1e999}]', CorruptBundleError, 'finite'),
        ('history.json', b'[' * 100, BundleLimitError, 'nested'),
        ('preview.png', b'<svg/>', BundleContentError, 'PNG'),
        ('weights.safetensors', struct.pack('<Q', 2**30), BundleLimitError, 'header'),
        ('probe.safetensors', save({}), BundleWeightsError, 'missing'),
    ],
)
def test_hostile_contents(
    name: str,
    data: bytes,
    error: type[BundleError],
    words: str,
    members: Members,
    forge: Forge,
    sign: Sign,
) -> None:
    with pytest.raises(error, match=words):
        read_bundle(forge(sign(members | {name: data})))


@pytest.mark.parametrize('best', [-1, 0, 3, 10**30, True, 1.0, '1', [1], {}])
def test_a_best_epoch_that_never_was(
    best: object, members: Members, forge: Forge, sign: Sign
) -> None:
    words = r'manifest\.json .* has best_epoch = .* the history has 2 epochs; expected .* from 1'
    with pytest.raises(BundleContentError, match=words) as caught:
        read_bundle(forge(sign(members, provenance={'best_epoch': best})))
    assert f"'{best}' ({type(best).__name__})" in str(caught.value).replace('"', "'")


@pytest.mark.parametrize('best', [1, 2, None])
def test_the_best_epoch(best: int | None, members: Members, forge: Forge, sign: Sign) -> None:
    bundle = read_bundle(forge(sign(members, provenance={'best_epoch': best})))
    assert bundle.best_epoch == best


def test_no_epoch_is_the_best_of_none(members: Members, forge: Forge, sign: Sign) -> None:
    members['history.json'] = b'[]'
    assert read_bundle(forge(sign(members))).best_epoch is None
    with pytest.raises(BundleContentError, match='has 0 epochs'):
        read_bundle(forge(sign(members, provenance={'best_epoch': 1})))


@pytest.mark.parametrize(
    ('parts', 'words'),
    [
        ({'real': (1, 4, 4)}, 'expected real and imag'),
        ({'real': (1, 4, 4), 'imag': (2, 4, 4)}, 'expected real and imag'),
        ({'real': (1, 4, 4), 'imag': (1, 4, 4), 'x': (1,)}, 'expected real and imag'),
        ({'real': (1, 4, 5), 'imag': (1, 4, 5)}, r'\(1, 4, 5\)'),
        ({'real': (0, 4, 4), 'imag': (0, 4, 4)}, 'at least one mode'),
        ({'real': (4, 4), 'imag': (4, 4)}, r'\(4, 4\)'),
    ],
)
def test_hostile_probes(
    parts: dict[str, tuple[int, ...]], words: str, members: Members, forge: Forge, sign: Sign
) -> None:
    members['probe.safetensors'] = save({k: np.ones(v, np.float32) for k, v in parts.items()})
    tensors = json.loads(members['manifest.json'])['tensors']
    tensors = {key: value for key, value in tensors.items() if not key.startswith('probe/')}
    for name, shape in parts.items():
        axes = ['m', 'h', 'w'][: len(shape)]
        tensors[f'probe/{name}'] = {'member': 'probe.safetensors', 'shape': shape, 'axes': axes}
    with pytest.raises(BundleContentError, match=words):
        read_bundle(forge(sign(members, tensors=tensors)))
