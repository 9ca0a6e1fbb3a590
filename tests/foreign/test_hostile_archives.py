"""Archives that nobody should trust: nothing runs, one error per defect, at bounded cost."""

import base64
import io
import marshal
import os
import pickle  # noqa: TID251 - to make traps and to see that nothing springs them
import random
import stat
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ptychodus_torch_plugin.bundle.errors import (
    BundleLimitError,
    BundleNotFoundError,
    CorruptBundleError,
    ForeignBundleError,
    NotABundleError,
    UnsafeMemberError,
)
from ptychodus_torch_plugin.errors import BundleError
from ptychodus_torch_plugin.foreign.archive import is_archive, open_inner
from ptychodus_torch_plugin.foreign.conversion import convert_archive

from .lookalikes import (
    Call,
    KerasGraph,
    keras_members,
    keras_parameters,
    keras_weights,
    pickled,
    zipped,
)
from .torch_lookalikes import (
    torch_file,
    torch_members,
    torch_metadata,
    torch_parameters,
    torch_state,
)

PARAMETERS_FILE = 'diffraction_to_obj/params.dill'


@pytest.fixture(scope='module')
def of_keras():
    return keras_members(keras_parameters(), KerasGraph(64), keras_weights())


@pytest.fixture(scope='module')
def of_torch():
    return torch_members(torch_parameters(), torch_state(), torch_metadata())


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Something that makes a folder when it is unpickled; and nobody may unpickle anything."""

    def refuse(*_, **__):
        raise AssertionError('something was unpickled')

    for name in ('load', 'loads', 'Unpickler', '_load', '_loads', '_Unpickler'):
        monkeypatch.setattr(pickle, name, refuse)
    yield Call(os.mkdir, str(tmp_path / 'trap'))
    assert not (tmp_path / 'trap').exists()


# Nothing runs


def test_a_trap_among_the_parameters_is_data_like_any_other(trap, of_torch, converted):
    parameters = torch_parameters(output_prefix=trap, notes=[trap, {'x': trap}])
    assert converted(of_torch | {PARAMETERS_FILE: pickled(parameters)}).backend == 'pytorch'


@pytest.mark.parametrize('key', ['N', 'gridsize', 'nphotons', 'n_filters_scale', 'probe.big'])
def test_a_trap_in_place_of_a_parameter(trap, of_torch, refused, key):
    members = of_torch | {PARAMETERS_FILE: pickled(torch_parameters(**{key: trap}))}
    del members['torch_scaling_metadata.pt']
    refused(members, BundleError, f"has {key} = a record of .*mkdir'")


@pytest.mark.parametrize(
    'name',
    ['manifest.dill', PARAMETERS_FILE, 'torch_scaling_metadata.pt', 'diffraction_to_obj/model.pth'],
)
def test_a_trap_in_place_of_everything(trap, of_torch, refused, name):
    data = torch_file(lambda _: trap) if name.endswith(('.pt', '.pth')) else pickled(trap)
    refused(of_torch | {name: data}, BundleError, 'expected')


def test_what_is_not_needed_is_not_read(trap, of_keras, converted):
    for name in ('autoencoder/custom_objects.dill', 'autoencoder/params.dill', 'notes.txt'):
        converted(of_keras | {name: pickled(trap)})


@pytest.mark.parametrize('source', ['inner', 'obj'])
def test_code_in_a_layer_of_keras(tmp_path, refused, source):
    """On the way from the input to the amplitude, or behind everything."""
    code = compile(f'__import__("os").mkdir({str(tmp_path / "sprung")!r})', 'trap', 'exec')
    marshalled = marshal.dumps(code)
    function = {
        'class_name': '__lambda__',
        'config': {'code': base64.b64encode(marshalled).decode(), 'defaults': None},
    }
    graph = KerasGraph(64)
    amplitude, *_ = [each for each in graph.entries if each['name'] == 'amp']
    before = amplitude['inbound_nodes'][0]['args'][0]['config']['keras_history']
    source = before[0] if source == 'inner' else source
    graph.add('Lambda', 'some_lambda', source, function=function)
    if source == before[0]:
        before[0] = 'some_lambda'
    members = keras_members(keras_parameters(), graph, keras_weights())
    refused(members, ForeignBundleError, "'some_lambda' of the kind Lambda.* never run")
    assert not (tmp_path / 'sprung').exists()
    exec(marshal.loads(marshalled))  # the trap would have worked
    assert (tmp_path / 'sprung').exists()


# The archive itself


def member(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('/x', 'absolute'),
        ('../x', 'leaves the archive'),
        ('a\\x', 'backslash'),
        ('x/', 'a folder'),
        (member('x', stat.S_IFLNK | 0o777), 'symbolic link'),
        (member('x', stat.S_IFIFO | 0o644), 'special file'),
    ],
)
def test_unsafe_members(refused, of_torch, name, words):
    refused(of_torch | {name: b''}, UnsafeMemberError, words)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_member_that_occurs_twice(tmp_path, of_torch):
    path = tmp_path / 'wts.h5.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in [*of_torch.items(), (PARAMETERS_FILE, pickled({}))]:
            archive.writestr(name, data)
    with pytest.raises(UnsafeMemberError, match='more than once'):
        convert_archive(path)
    assert not is_archive(path)


@pytest.mark.parametrize(
    ('name', 'size', 'limit'),
    [
        ('manifest.dill', 70_000, 2**16),
        (PARAMETERS_FILE, 2**24 + 1, 2**24),
        ('torch_scaling_metadata.pt', 2**20 + 1, 2**20),
    ],
)
def test_members_are_limited(refused, of_torch, name, size, limit):
    words = f'{name} .* has {size} bytes; expected at most {limit}'
    refused(of_torch | {name: os.urandom(size)}, BundleLimitError, words)


def test_bombs(refused, of_torch):
    bomb = b'\x80\x04X' + struct.pack('<L', 2**23) + b'a' * 2**23 + b'.'
    refused(of_torch | {PARAMETERS_FILE: bomb}, BundleLimitError, 'at most 200 times')
    inner = zipped({'a/data.pkl': b'N' * 10**6})
    refused(of_torch | {'torch_scaling_metadata.pt': inner}, BundleLimitError, 'at most 200 times')


def test_a_lying_bomb_costs_little_memory(written, of_torch):
    bomb = zipped({PARAMETERS_FILE: b'a' * 2**24})
    path = written(of_torch | {PARAMETERS_FILE: b'a' * 2**24})
    data = bytearray(path.read_bytes())
    entry = data.rindex(PARAMETERS_FILE.encode()) - 46
    struct.pack_into('<L', data, entry + 24, 100_000)
    path.write_bytes(data)
    assert len(bomb) < 200_000
    tracemalloc.start()
    with pytest.raises(CorruptBundleError, match=r'params\.dill'):
        convert_archive(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_missing_members(refused, of_torch, of_keras):
    for members, name, error in (
        (of_torch, 'manifest.dill', ForeignBundleError),
        (of_torch, PARAMETERS_FILE, CorruptBundleError),
        (of_torch, 'diffraction_to_obj/model.pth', ForeignBundleError),
        (of_keras, 'diffraction_to_obj/model.keras', ForeignBundleError),
    ):
        rest = {key: data for key, data in members.items() if key != name}
        refused(rest, error, 'PtychoPINN')
    refused(of_torch | of_keras, ForeignBundleError, 'one of')
    refused(of_torch | {'manifest.json': b'{}'}, ForeignBundleError, 'expected an archive of')


def test_archives_that_cannot_be_opened(tmp_path):
    with pytest.raises(BundleNotFoundError):
        convert_archive(tmp_path / 'no.zip')
    with pytest.raises(BundleNotFoundError):
        convert_archive(tmp_path)
    (tmp_path / 'text.zip').write_text('hello')
    with pytest.raises(NotABundleError):
        convert_archive(tmp_path / 'text.zip')


def test_altered_archives(of_torch, written):
    """Whatever is changed, nothing else escapes; and the weights are those, or there are none."""
    source = random.Random(11)
    path = written(of_torch)
    whole, refused = path.read_bytes(), 0
    expected = convert_archive(path).weights
    for _ in range(150):
        data = bytearray(whole)
        back = source.choice([900, len(data)])
        data[len(data) - 1 - source.randrange(back)] ^= 1 << source.randrange(8)
        cut = source.randrange(len(data)) if source.random() < 0.2 else None
        path.write_bytes(data[:cut])
        try:
            found = convert_archive(path).weights
        except BundleError:
            refused += 1
        else:
            # The scale is no number in the archive: it may follow from other settings.
            for name in expected.keys() - {'log_intensity_scale'}:
                np.testing.assert_array_equal(found[name], expected[name])
    assert refused > 100


# What is recognised


def test_what_is_an_archive(tmp_path, of_torch, written):
    path = written(of_torch)
    assert is_archive(path)
    assert is_archive(path.parent)
    np.savez(tmp_path / 'scan.npz', a=np.ones(3))
    (tmp_path / 'bundle.zip').write_bytes(zipped({'manifest.dill': b'', 'manifest.json': b''}))
    (tmp_path / 'cut.zip').write_bytes(path.read_bytes()[:-30])
    (tmp_path / 'folder').mkdir()
    for name in ('scan.npz', 'bundle.zip', 'cut.zip', 'folder', 'missing'):
        assert not is_archive(tmp_path / name)


# Archives of PyTorch have a second end record


def with_zip64(data, **changes):
    """Put before the end record what PyTorch puts there."""
    end = len(data) - 22
    count, length, offset = struct.unpack_from('<HLL', data, end + 10)
    fields = {'signature': b'PK\x06\x06', 'count': count, 'length': length, 'offset': offset}
    fields |= {'place': end, **changes}
    record = struct.pack(
        '<4sQ2H2L4Q',
        fields['signature'],
        44,
        45,
        45,
        0,
        0,
        fields['count'],
        fields['count'],
        fields['length'],
        fields['offset'],
    )
    locator = struct.pack('<4sLQL', b'PK\x06\x07', 0, fields['place'], 1)
    return data[:end] + record + locator + data[end:]


def test_the_second_end_record_is_read():
    data = with_zip64(zipped({'a': b'x' * 300, 'b': b'y'}))
    archive = open_inner(data, 'inner')
    assert archive.names == ('a', 'b')
    assert archive.read('a', at_most=300) == b'x' * 300
    with zipfile.ZipFile(io.BytesIO(data)) as same:
        assert same.namelist() == ['a', 'b']


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'length': 2**16 + 1}, BundleLimitError, 'directory of 65537 bytes'),
        ({'length': 2**62}, BundleLimitError, 'directory of'),
        ({'length': 7}, CorruptBundleError, 'not one plain zip archive'),
        ({'offset': 3}, CorruptBundleError, 'not one plain zip archive'),
        ({'place': 3}, CorruptBundleError, 'not one plain zip archive'),
        ({'signature': b'PK\x05\x05'}, CorruptBundleError, 'not one plain zip archive'),
    ],
)
def test_second_end_records_of_other_kinds(changes, error, words, monkeypatch):
    data = with_zip64(zipped({'a': b'x' * 300}), **changes)
    monkeypatch.setattr(zipfile, 'ZipFile', None)
    with pytest.raises(error, match=words):
        open_inner(data, 'inner')


def test_a_huge_directory_is_refused_before_it_is_parsed(monkeypatch):
    data = zipped({f'{number}.txt': b'' for number in range(3000)})
    monkeypatch.setattr(zipfile, 'ZipFile', None)
    for each in (data, with_zip64(data)):
        with pytest.raises(BundleLimitError, match='directory of'):
            open_inner(each, 'inner')
