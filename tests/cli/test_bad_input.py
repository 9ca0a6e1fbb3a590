"""Every bad input is refused at once, named, and leaves nothing behind."""

import numpy as np
import pytest

COMMANDS = {
    'convert': ('convert', '{file}', 'new/out.h5'),
    'train': ('train', '{file}', '--output_dir', 'new/out'),
    'infer': ('infer', '--architecture', 'none', '--test_data', '{file}', '--output_dir', 'new/o'),
    'demo': ('demo', '--data', '{file}', '--output_dir', 'new/out'),
}


def good():
    rng = np.random.default_rng(2)
    y, x = np.indices((16, 16)) - 8
    return {
        'diff3d': np.sqrt(rng.poisson(50 * np.exp(-(y**2 + x**2) / 9), (7, 16, 16))).astype('f4'),
        'probeGuess': rng.normal(size=(16, 16)) + 1j * rng.normal(size=(16, 16)),
        'xcoords': rng.uniform(10, 30, 7),
        'ycoords': rng.uniform(10, 20, 7),
    }


def with_value(value):
    patterns = good()['diff3d']
    patterns[3, 4, 5] = value
    return patterns


FAULTS = {
    'non-square patterns': ({'diff3d': np.ones((7, 16, 24), 'f4')}, '(7, 16, 24)', "'diff3d'"),
    'too small patterns': (
        {'diff3d': np.ones((7, 8, 8), 'f4'), 'probeGuess': np.ones((8, 8))},
        '8 x 8 px; expected a multiple of 8 from 16',
        '--crop',
    ),
    'unsupported N': (
        {'diff3d': np.ones((7, 20, 20), 'f4'), 'probeGuess': np.ones((20, 20))},
        '20 x 20 px; expected a multiple of 8',
        '--crop',
    ),
    'NaN': ({'diff3d': with_value(np.nan)}, 'first at index (3, 4, 5)', "'diff3d'"),
    'negative': ({'diff3d': with_value(-1)}, 'lowest -1', "'diff3d'"),
    'unequal lengths': ({'xcoords': np.ones(6)}, 'xcoords', '6'),
    'positions too few': (
        {'xcoords': np.ones(6), 'ycoords': np.ones(6)},
        '(7, 16, 16)',
        'n = 6, the length of xcoords and ycoords',
    ),
    'probe of another size': ({'probeGuess': np.ones((24, 24))}, '(1, 24, 24)', "'probeGuess'"),
    'empty scan': (
        {'diff3d': np.ones((0, 16, 16), 'f4'), 'xcoords': np.ones(0), 'ycoords': np.ones(0)},
        'empty',
        "'diff3d'",
    ),
    'all zero': ({'diff3d': np.zeros((7, 16, 16), 'f4')}, 'zero in every good pixel', "'diff3d'"),
    'key missing': ({'probeGuess': None}, "'probeGuess' is missing", 'xcoords'),
    'text': ({'xcoords': np.array(['a'] * 7)}, "'xcoords' has dtype <U1", 'numbers'),
}


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('command', COMMANDS)
def test_a_bad_scan(here, fail, files_below, command, fault):
    changes, found, hint = FAULTS[fault]
    arrays = {key: value for key, value in (good() | changes).items() if value is not None}
    np.savez('bad scan.npz', **arrays)
    ran = fail(*(part.format(file='bad scan.npz') for part in COMMANDS[command]))
    assert ran.last.startswith('Error: bad scan.npz: ')
    assert found in ran.last
    assert hint in ran.last
    assert files_below(here) == ['bad scan.npz']


def test_the_good_scan_is_good(here, call):
    np.savez('good.npz', **good())
    call('convert', 'good.npz', 'good.h5')


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('kind', ['missing', 'text', 'cut', 'cut hdf5', 'folder'])
def test_a_bad_file(here, fail, files_below, scan_file, command, kind):
    path = here / 'file.h5'
    if kind == 'text':
        path.write_text('not a scan')
    elif kind == 'cut':
        np.savez(path, **good())
        whole = here / 'file.h5.npz'
        path.write_bytes(whole.read_bytes()[:-40])
        whole.unlink()
    elif kind == 'cut hdf5':
        path.write_bytes(scan_file.read_bytes()[:4000])
    elif kind == 'folder':
        path.mkdir()
    before = files_below(here)
    ran = fail(*(part.format(file=path) for part in COMMANDS[command]))
    assert str(path) in ran.last
    assert 'expected' in ran.last
    assert files_below(here) == before


@pytest.mark.parametrize(
    'arguments',
    [
        ('train', '{scan}', '--output_dir', 'occupied'),
        ('train', '{scan}', '--output_dir', 'occupied/below'),
        ('infer', '--architecture', 'none', '--test_data', '{scan}', '--output_dir', 'occupied'),
        ('demo', '--output_dir', 'occupied/below'),
        ('convert', '{scan}', 'occupied/out.h5'),
        ('simulate', 'occupied/out.h5'),
    ],
)
def test_an_unwritable_output_fails_before_the_work(here, fail, scan_file, arguments):
    (here / 'occupied').write_text('a file, no folder')
    ran = fail(*(part.format(scan=scan_file) for part in arguments))
    assert 'cannot make the output folder occupied' in ran.last
    assert ran.err.count('\n') == 1, 'nothing was begun'
    assert [path.name for path in here.iterdir()] == ['occupied']


def test_a_folder_in_the_place_of_a_file_stays(here, fail, scan_file):
    (here / 'out.h5').mkdir()
    assert 'not a plain file' in fail('convert', scan_file, 'out.h5').last
    assert (here / 'out.h5').is_dir()


def test_counts_that_cannot_be_thinned_are_refused(here, fail, files_below):
    np.savez('scan.npz', **(good() | {'diff3d': good()['diff3d'] * 1.1}))
    ran = fail('train', 'scan.npz', '--held-out', 0.2)
    assert "Use objective='poisson'" in ran.last
    assert files_below(here) == ['scan.npz']
