"""Writing and reading: bit-equal content, byte-equal files, the golden file, atomicity."""

from __future__ import annotations

import errno
import json
import pickle  # noqa: TID251 - to read the courtesy member as other programs do
import pickletools
import subprocess
import sys
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.archive import Bundle, read_bundle, read_manifest, write_bundle
from ptychodus_torch_plugin.bundle.container import FILE_NAMES
from ptychodus_torch_plugin.bundle.errors import (
    BundleContentError,
    BundleLimitError,
    BundleNotFoundError,
    BundleWeightsError,
)
from ptychodus_torch_plugin.errors import BundleError, InputNotFoundError, OutputError, PluginError


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def assert_same(found: Bundle, expected: Bundle) -> None:
    for name in ('weights', 'optimizer'):
        left, right = getattr(found, name), getattr(expected, name)
        assert left.keys() == right.keys()
        for key in left:
            assert_same_bits(left[key], right[key])
    assert_same_bits(found.probe, expected.probe)
    for field in fields(Bundle):
        if field.name not in ('weights', 'optimizer', 'probe', 'weight_axes'):
            assert getattr(found, field.name) == getattr(expected, field.name), field.name


def reversed_order(value: object) -> object:
    if isinstance(value, dict):
        return {key: reversed_order(value[key]) for key in reversed(value)}
    return [reversed_order(item) for item in value] if isinstance(value, list) else value


def test_round_trip_is_bit_equal(tmp_path: Path, bundle: Bundle) -> None:
    write_bundle(tmp_path / 'wts.h5.zip', bundle)
    found = read_bundle(tmp_path / 'wts.h5.zip')
    assert_same(found, bundle)
    assert found.weight_axes == {
        'encoder.0.bias': ('out',),
        'encoder.0.kernel': ('out', 'in', 'kh', 'kw'),
        'gain': (),
        'sweep/damping': ('sweep', 'h', 'w'),
    }
    assert all(tensor.flags.writeable for tensor in found.weights.values())


def test_optional_parts_may_be_absent(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / 'small.zip'
    write_bundle(path, replace(bundle, optimizer=None, preview_png=None, training_settings=None))
    found = read_bundle(path)
    assert (found.optimizer, found.preview_png, found.training_settings) == (None, None, None)


def test_signs_of_zeros_and_small_numbers_survive(tmp_path: Path, bundle: Bundle) -> None:
    probe = np.zeros((1, 3, 3), dtype=np.complex64)
    probe.real[0, 0, 1], probe.imag[0, 2, 0] = -0.0, -0.0
    probe.real[0, 1, 2] = np.float32(1e-45)
    write_bundle(tmp_path / 'wts.h5.zip', replace(bundle, probe=probe))
    assert_same_bits(read_bundle(tmp_path / 'wts.h5.zip').probe, probe)


def test_golden_file_is_still_read(maker) -> None:
    assert maker.GOLDEN.stat().st_size < 20_000
    assert_same(read_bundle(maker.GOLDEN), maker.golden_bundle())


def test_golden_file_is_still_written(tmp_path: Path, bundle: Bundle, golden_bytes: bytes) -> None:
    """If this fails, the format changed: raise its version and add a golden file."""
    path = tmp_path / 'wts.h5.zip'
    write_bundle(path, bundle)
    assert path.read_bytes() == golden_bytes
    write_bundle(path, read_bundle(path))
    assert path.read_bytes() == golden_bytes


def test_order_of_dictionaries_and_layout_of_arrays_do_not_matter(
    tmp_path: Path, bundle: Bundle, golden_bytes: bytes
) -> None:
    weights = reversed_order(bundle.weights)
    kernel = weights['encoder.0.kernel']
    weights['encoder.0.kernel'] = np.asfortranarray(kernel)
    weights['encoder.0.bias'] = np.repeat(weights['encoder.0.bias'].astype('>f4'), 2)[::2]
    shuffled = {
        name: reversed_order(getattr(bundle, name))
        for name in ('model_settings', 'producer', 'provenance', 'history', 'optimizer')
    }
    write_bundle(tmp_path / 'wts.h5.zip', replace(bundle, weights=weights, **shuffled))
    assert (tmp_path / 'wts.h5.zip').read_bytes() == golden_bytes
    assert weights['encoder.0.kernel'].flags.f_contiguous  # the caller's arrays are left alone
    assert weights['encoder.0.bias'].dtype == '>f4'


@pytest.mark.parametrize('name', FILE_NAMES)
def test_a_folder_is_read_through_its_file(tmp_path: Path, bundle: Bundle, name: str) -> None:
    write_bundle(tmp_path / name, bundle)
    assert_same(read_bundle(tmp_path), bundle)


def test_a_missing_file_or_an_empty_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / 'absent.zip'):
        with pytest.raises(BundleNotFoundError, match=path.name) as caught:
            read_bundle(path)
        assert isinstance(caught.value, BundleError) and isinstance(
            caught.value, InputNotFoundError
        )


def test_manifest_is_read_without_the_tensors(tmp_path: Path, bundle: Bundle, monkeypatch) -> None:
    write_bundle(tmp_path / 'wts.h5.zip', bundle)
    opened = []
    original = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile,
        'open',
        lambda self, name, *args, **kw: opened.append(name) or original(self, name, *args, **kw),
    )
    manifest = read_manifest(tmp_path)
    assert opened == ['manifest.json']
    assert manifest.models == ('autoencoder', 'diffraction_to_obj')
    assert manifest.backend == 'pytorch'
    assert manifest.shapes('weights.safetensors')['encoder.0.kernel'] == (3, 2, 3, 5)
    assert manifest.tensors['probe/imag'].axes == ('m', 'h', 'w')


def test_legacy_manifest_is_plain_strings_and_lists(members: dict[str, bytes]) -> None:
    data = members['manifest.dill']
    names = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert not names & {'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'BUILD', 'INST', 'OBJ', 'NEWOBJ'}
    assert pickle.loads(data) == {
        'models': ['autoencoder', 'diffraction_to_obj'],
        'version': '1.0',
        'backend': 'pytorch',
    }


def with_weight(bundle: Bundle, **weights: np.ndarray) -> Bundle:
    return replace(bundle, weights=bundle.weights | weights)


UNWRITABLE = {
    'NaN weights': (
        lambda b: with_weight(b, gain=np.array(np.nan, np.float32)),
        BundleWeightsError,
        'gain',
    ),
    'float64 weights': (
        lambda b: with_weight(b, gain=np.array(1.0)),
        BundleWeightsError,
        'float64',
    ),
    'bad tensor name': (
        lambda b: replace(b, weights={'a b': np.zeros(1, np.float32)}),
        BundleWeightsError,
        'a b',
    ),
    'reserved tensor name': (
        lambda b: replace(b, weights={'__metadata__': np.zeros(1, np.float32)}, weight_axes={}),
        BundleWeightsError,
        '__metadata__',
    ),
    'unknown axes': (
        lambda b: replace(b, weight_axes={'nothing': ()}),
        BundleContentError,
        'nothing',
    ),
    'too few axes': (
        lambda b: replace(b, weight_axes={'encoder.0.kernel': ('out',)}),
        BundleContentError,
        '4 axes',
    ),
    'NaN optimizer': (
        lambda b: replace(b, optimizer={'step': np.array(np.inf, np.float32)}),
        BundleWeightsError,
        'step',
    ),
    'complex128 probe': (
        lambda b: replace(b, probe=b.probe.astype(np.complex128)),
        BundleContentError,
        'complex128',
    ),
    'oblong probe': (
        lambda b: replace(b, probe=b.probe[:, :5]),
        BundleContentError,
        r'\(2, 5, 7\)',
    ),
    'no modes': (lambda b: replace(b, probe=b.probe[:0]), BundleContentError, r'\(0, 7, 7\)'),
    'NaN probe': (
        lambda b: replace(b, probe=b.probe * np.complex64(np.nan)),
        BundleWeightsError,
        'imag',
    ),
    'NaN loss': (
        lambda b: replace(b, history=[{}, {'loss': float('nan')}]),
        BundleContentError,
        r"\[1\]\['loss'\]",
    ),
    'float32 loss': (
        lambda b: replace(b, history=[{'loss': np.float32(1)}]),
        BundleContentError,
        'float32',
    ),
    'boolean loss': (lambda b: replace(b, history=[{'loss': True}]), BundleContentError, 'bool'),
    'preview': (lambda b: replace(b, preview_png=b'GIF89a'), BundleContentError, 'GIF89a'),
    'large preview': (
        lambda b: replace(b, preview_png=b.preview_png + bytes(8 * 2**20)),
        BundleLimitError,
        'preview.png of the bundle to write',
    ),
    'NaN setting': (
        lambda b: replace(b, model_settings={'a': float('nan')}),
        BundleContentError,
        'nan',
    ),
    'no JSON': (
        lambda b: replace(b, provenance={'where': Path('x')}),
        BundleContentError,
        'provenance',
    ),
    'best epoch': (
        lambda b: replace(b, provenance={'best_epoch': 3}),
        BundleContentError,
        'best_epoch = .* the history has 2 epochs',
    ),
    'deep JSON': (
        lambda b: replace(b, provenance={'a': json.loads('[' * 40 + ']' * 40)}),
        BundleLimitError,
        'deep',
    ),
    'scale': (
        lambda b: replace(b, normalisation={'mean_counts': 0, 'input_scale': 1, 'probe_scale': 1}),
        BundleContentError,
        'mean_counts',
    ),
    'backend': (lambda b: replace(b, backend='py torch'), BundleContentError, 'backend'),
}


@pytest.mark.parametrize('case', UNWRITABLE)
def test_what_no_reader_would_accept_is_not_written(
    case: str, tmp_path: Path, bundle: Bundle, golden_bytes: bytes
) -> None:
    spoil, error, words = UNWRITABLE[case]
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(golden_bytes)
    with pytest.raises(error, match=words):
        write_bundle(path, spoil(bundle))
    assert path.read_bytes() == golden_bytes
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left'), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_the_old_file_whole(
    error: BaseException, tmp_path: Path, bundle: Bundle, golden_bytes: bytes, monkeypatch
) -> None:
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(golden_bytes)
    original, calls = zipfile.ZipFile.writestr, []

    def writestr(self: zipfile.ZipFile, info: zipfile.ZipInfo, data: bytes) -> None:
        calls.append(info)
        if len(calls) == 3:
            raise error
        original(self, info, data)

    monkeypatch.setattr(zipfile.ZipFile, 'writestr', writestr)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_bundle(path, replace(bundle, backend='tensorflow'))
    assert path.read_bytes() == golden_bytes
    assert list(tmp_path.iterdir()) == [path]


CRASH = """
import os, sys, zipfile
from ptychodus_torch_plugin.bundle.archive import read_bundle, write_bundle
bundle = read_bundle(sys.argv[1])
original = zipfile.ZipFile.writestr
def writestr(self, info, data):
    original(self, info, data)
    if info.filename == 'history.json':
        self.fp.flush()
        os._exit(9)
zipfile.ZipFile.writestr = writestr
write_bundle(sys.argv[1], bundle)
"""


def test_a_crash_while_writing_leaves_the_old_file_whole(
    tmp_path: Path, golden_bytes: bytes
) -> None:
    path = tmp_path / 'wts.h5.zip'
    path.write_bytes(golden_bytes)
    assert subprocess.run([sys.executable, '-c', CRASH, str(path)], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2  # the crash did happen in the middle of a file
    assert path.read_bytes() == golden_bytes


def test_targets_that_cannot_be_written(tmp_path: Path, bundle: Bundle) -> None:
    for path in (tmp_path, tmp_path / 'no folder' / 'wts.h5.zip'):
        with pytest.raises(OutputError, match='Cannot write') as caught:
            write_bundle(path, bundle)
        assert isinstance(caught.value, PluginError)
    assert list(tmp_path.iterdir()) == []


def test_reading_needs_no_framework(maker) -> None:
    code = (
        'import sys\n'
        'from ptychodus_torch_plugin.bundle.archive import read_bundle\n'
        f'read_bundle({str(maker.GOLDEN)!r})\n'
        "heavy = {'torch', 'tensorflow', 'keras', 'lightning', 'scipy', 'matplotlib', 'h5py'}\n"
        'print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == '[]'
