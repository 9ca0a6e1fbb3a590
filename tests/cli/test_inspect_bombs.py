"""Small files that would fill the memory: `inspect` says what they are and why they are refused."""

import io
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

CLAIMED = (2**14, 2**14)
"""Shape of what the bombs hold: 2 GiB of float64."""
PEAK_BYTES = 20_000_000


def header(shape):
    """Return the beginning of a .npy file."""
    stream = io.BytesIO()
    described = {'descr': '<f8', 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def write_zip(path, members):
    """Each of the members is followed by 100 MiB of zeros."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, start in members.items():
            with archive.open(name, 'w', force_zip64=True) as member:
                member.write(start)
                for _ in range(25):
                    member.write(bytes(2**22))


def refused(ran_command, *arguments):
    """Return the outcome of a command that took little memory."""
    tracemalloc.start()
    ran = ran_command('inspect', *arguments, '--json')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ran.code == 2
    assert peak < PEAK_BYTES
    return ran


@pytest.mark.parametrize(
    ('name', 'members', 'why'),
    [
        ('bomb.npz', {'images.npy': header(CLAIMED)}, 'fits no known layout; it has the keys im'),
        ('bomb.zip', {'images.npy': header(CLAIMED)}, 'a zip archive without manifest.json'),
        ('text.zip', {'notes.txt': b''}, 'a zip archive without manifest.json'),
        ('model.zip', {'manifest.json': b'{'}, 'lacks the members history.json'),
        (
            'object.npz',
            {f'{key}.npy': header((2**26,)) for key in ('occupancy', 'origin_px', 'stage')}
            | {'object.npy': header(CLAIMED)},
            "key 'origin_px' has shape (67108864,); expected (2,)",
        ),
        # A version 2 header may say that it has 4 GiB itself.
        (
            'header.npz',
            {'images.npy': b'\x93NUMPY\x02\x00' + struct.pack('<L', 2**32 - 1)},
            'fits no known layout',
        ),
    ],
)
def test_a_bomb(here, command_line, name, members, why):
    write_zip(here / name, members)
    assert (here / name).stat().st_size < 10_000_000
    ran = refused(command_line, name)
    assert why in ran.json['problem']
    whole = {member.removesuffix('.npy') for member, start in members.items() if len(start) > 60}
    assert ran.json['arrays'].keys() == whole
    assert ran.json['arrays'].get('images') in (None, f'{CLAIMED} float64')


def test_a_dataset_that_was_never_written(here, command_line):
    with h5py.File('bomb.h5', 'w') as file:
        file.create_dataset('images', (10**5, 10**4, 10**3), 'f8', chunks=(1, 100, 1000))
        file['nothing'] = h5py.Empty('f8')
        file['title'] = 'text'
        file.create_group('entry')
    ran = refused(command_line, 'bomb.h5')
    assert 'fits no known layout' in ran.json['problem']
    assert ran.json['arrays'] == {'images': '(100000, 10000, 1000) float64'}
