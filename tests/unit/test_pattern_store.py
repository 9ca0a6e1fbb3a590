"""Patterns on disk behave like those in memory, and take no memory."""

import copy
import gc
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ptychodus_torch_plugin import pattern_store
from ptychodus_torch_plugin.errors import OutputError, ScanFileError
from ptychodus_torch_plugin.pattern_store import (
    PatternFile,
    Storage,
    blocks,
    mapped,
    outline,
    stored,
    summary,
    taken,
)


@pytest.fixture
def array():
    """Not square, all different, so that no mix-up of axes or patterns goes unseen."""
    return np.random.default_rng(0).integers(1, 60000, (23, 16, 12)).astype(np.uint16)


@pytest.fixture
def on_disk(array, monkeypatch):
    monkeypatch.setattr(pattern_store, 'RESIDENT_BYTES', 0)
    monkeypatch.setattr(pattern_store, 'BLOCK_BYTES', 5 * array[0].nbytes)
    found = stored((part for _, part in blocks(array)), array.shape, array.dtype)
    assert isinstance(found, PatternFile)
    return found


def same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_small_stacks_stay_in_memory(array):
    found = stored(iter([array[:20], array[20:]]), array.shape, array.dtype)

    assert isinstance(found, np.ndarray)
    same(found, array)


def test_attributes_are_those_of_the_array(on_disk, array):
    for name in ('shape', 'dtype', 'ndim', 'size', 'nbytes'):
        assert getattr(on_disk, name) == getattr(array, name), name
    assert len(on_disk) == len(array)


@pytest.mark.parametrize(
    'index',
    [
        5,
        -1,
        slice(3, 9),
        slice(None, None, -2),
        np.array([7, 8, 9, 2, 2, -3]),
        np.array([[4, 22], [0, 1], [13, 12]]),
        np.arange(23) % 3 == 0,
        np.empty(0, np.int64),
    ],
)
def test_indexing_reads_what_it_would_of_an_array(on_disk, array, index):
    same(on_disk[index], array[index])


def test_all_of_it_becomes_an_array(on_disk, array):
    same(np.asarray(on_disk), array)
    same(np.asarray(on_disk, np.float32), array.astype(np.float32))


def test_what_lies_outside_is_an_error_not_a_pattern(on_disk):
    for index in (23, np.array([0, -24])):
        with pytest.raises(IndexError, match='of 23 does not exist'):
            on_disk[index]


def test_steps_and_choices_go_in_their_order(on_disk, array):
    rows = np.array([3, 20, 21, 4])
    chain = mapped(taken(on_disk, rows), lambda p: (p.astype(np.float32) / 2)[:, 2:, :5])
    chain = taken(mapped(chain, np.sqrt), np.array([3, 1]))
    expected = np.sqrt((array[rows].astype(np.float32) / 2)[:, 2:, :5])[[3, 1]]

    assert (chain.shape, chain.dtype) == (expected.shape, expected.dtype)
    same(chain[:], expected)
    same(on_disk[:], array)


def test_a_summary_of_either_kind_is_the_same(on_disk, array):
    values = array.astype(np.float32)
    values[19, 3, 2], values[19, 3, 5], values[4, 0, 1] = np.nan, np.inf, -7.5
    of_file = summary(mapped(on_disk, lambda p: p.astype(np.float32)))
    np.testing.assert_array_equal(of_file.total, array.sum(axis=0))
    assert (of_file.lowest, of_file.highest) == (array.min(), array.max())
    assert of_file.whole
    assert of_file.infinite == 0
    assert of_file.first_negative is None

    of_array = summary(values)
    assert of_array.infinite == 2
    assert of_array.first_infinite == (19, 3, 2)
    assert of_array.first_negative == (4, 0, 1)
    assert not of_array.whole


def test_an_outline_has_the_shape_and_reads_nothing(on_disk, array, monkeypatch):
    monkeypatch.setattr(Storage, 'read', lambda *_: pytest.fail('was read'))

    assert (outline(on_disk).shape, outline(on_disk).dtype) == (array.shape, array.dtype)


def test_blocks_cover_everything_once(on_disk, array):
    firsts, parts = zip(*blocks(on_disk), strict=True)

    assert firsts == (0, 5, 10, 15, 20)
    same(np.concatenate(parts), array)


def test_nothing_is_left_in_the_folder_for_temporary_files(array, monkeypatch, tmp_path):
    monkeypatch.setattr(pattern_store, 'RESIDENT_BYTES', 0)
    monkeypatch.setattr(pattern_store.tempfile, 'gettempdir', lambda: str(tmp_path))
    monkeypatch.setattr(pattern_store.tempfile, 'tempdir', str(tmp_path))
    found = stored(iter([array]), array.shape, array.dtype)

    same(found[3], array[3])
    assert list(tmp_path.iterdir()) == []
    descriptor = found.storage.descriptor
    del found
    gc.collect()
    with pytest.raises(OSError, match='Bad file descriptor'):
        os.fstat(descriptor)


def test_where_open_files_cannot_be_removed_they_go_at_the_end(array, monkeypatch, tmp_path):
    monkeypatch.setattr(pattern_store, 'RESIDENT_BYTES', 0)
    monkeypatch.setattr(pattern_store.tempfile, 'tempdir', str(tmp_path))
    real = Path.unlink

    def refuse(path, missing_ok=False):
        if not missing_ok:
            raise PermissionError('in use')
        real(path, missing_ok=True)

    monkeypatch.setattr(Path, 'unlink', refuse)
    found = stored(iter([array]), array.shape, array.dtype)
    same(found[3], array[3])
    assert len(list(tmp_path.iterdir())) == 1
    del found
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_systems_without_positioned_reads_share_one_position(on_disk, array, monkeypatch):
    monkeypatch.delattr(os, 'preadv')
    wrong = []

    def read(seed):
        chosen = np.random.default_rng(seed).integers(0, len(array), 200)
        wrong.extend(i for i in chosen if not np.array_equal(on_disk[int(i)], array[i]))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_full_disk_is_said_before_anything_is_written(array, monkeypatch):
    monkeypatch.setattr(pattern_store, 'RESIDENT_BYTES', 0)
    monkeypatch.setattr(pattern_store.shutil, 'disk_usage', lambda _: SimpleNamespace(free=2**10))

    with pytest.raises(OutputError, match='TMPDIR'):
        stored(iter([array]), array.shape, array.dtype)


def test_a_file_that_shrinks_meanwhile_is_an_error(array, tmp_path):
    path = tmp_path / 'patterns'
    path.write_bytes(array.tobytes())
    patterns = PatternFile(Storage.opened(path), array.shape, array.dtype)
    same(patterns[22], array[22])
    path.write_bytes(array[:10].tobytes())

    same(patterns[9], array[9])
    with pytest.raises(ScanFileError, match='Did another program change it'):
        patterns[10]


def test_they_are_not_handed_to_another_process(on_disk):
    with pytest.raises(TypeError, match='num_workers = 0'):
        copy.deepcopy(on_disk)
