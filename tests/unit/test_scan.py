from dataclasses import replace

import numpy as np
import pytest

from ptychodus_torch_plugin.errors import ScanValueError, ShapeError
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.optics import Optics
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.simulate import expected_counts

N = 16


def values(n=5, n_px=N, modes=2):
    rng = np.random.default_rng(7)
    return {
        'patterns': rng.poisson(3.0, size=(n, n_px, n_px)).astype(np.float32),
        'positions_px': rng.uniform(20, 40, size=(n, 2)),
        'probe': rng.normal(size=(modes, n_px, n_px, 2)).view(np.complex128)[..., 0].astype('c8'),
        'bad_pixels': rng.random((n_px, n_px)) < 0.1,
    }


def scan_of(**changes):
    return ScanData(**(values() | changes))


def with_value(name, index, value):
    array = values()[name].copy()
    array[index] = value
    return {name: array}


def sized(n_px):
    return values(n=1, n_px=n_px, modes=1)


def lit(good, bad):
    """Patterns with these counts in good and in bad pixels."""
    frame = np.where(values()['bad_pixels'], bad, good).astype(np.float32)
    return {'patterns': np.repeat(frame[None], 5, axis=0)}


SHAPES = {
    'fewer numbers than patterns': (
        {'indexes': np.arange(4)},
        ['indexes has shape (4,)', 'expected (n)', 'n = 5'],
    ),
    'patterns of one pattern': (
        {'patterns': np.zeros((N, N), np.float32)},
        ['patterns has shape (16, 16)', 'expected (n, N, N)'],
    ),
    'patterns not square': (
        {'patterns': np.zeros((5, N, 24), np.float32)},
        ['patterns has shape (5, 16, 24)', 'N of equal length'],
    ),
    'patterns of integers': (
        {'patterns': np.ones((5, N, N), np.uint16)},
        ['patterns has dtype uint16; expected float32'],
    ),
    'patterns in double precision': (
        {'patterns': np.ones((5, N, N))},
        ['patterns has dtype float64; expected float32'],
    ),
    'fewer positions than patterns': (
        {'positions_px': np.zeros((4, 2))},
        ['positions_px has shape (4, 2)', 'expected (n, 2)', 'n = 5'],
    ),
    'positions transposed': (
        {'positions_px': np.zeros((2, 5))},
        ['positions_px has shape (2, 5)', 'expected (n, 2)'],
    ),
    'positions in single precision': (
        {'positions_px': np.zeros((5, 2), np.float32)},
        ['positions_px has dtype float32; expected float64'],
    ),
    'a probe of another size': (
        {'probe': np.ones((1, 24, 24), np.complex64)},
        ['probe has shape (1, 24, 24)', 'expected (m, N, N)', 'N = 16'],
    ),
    'a probe without its mode axis': (
        {'probe': np.ones((N, N), np.complex64)},
        ['probe has shape (16, 16)', 'expected (m, N, N)'],
    ),
    'a probe in double precision': (
        {'probe': np.ones((1, N, N), np.complex128)},
        ['probe has dtype complex128; expected complex64'],
    ),
    'a probe without modes': (
        {'probe': np.ones((0, N, N), np.complex64)},
        ['probe has shape (0, 16, 16)', 'at least one mode'],
    ),
    'bad pixels per pattern': (
        {'bad_pixels': np.zeros((5, N, N), bool)},
        ['bad_pixels has shape (5, 16, 16)', 'expected (N, N)'],
    ),
    'bad pixels of another size': (
        {'bad_pixels': np.zeros((8, 8), bool)},
        ['bad_pixels has shape (8, 8)', 'N = 16'],
    ),
    'bad pixels as numbers': (
        {'bad_pixels': np.zeros((N, N), np.uint8)},
        ['bad_pixels has dtype uint8; expected bool'],
    ),
    'an object with layers': (
        {'object_guess': np.ones((1, 50, 60), np.complex64)},
        ['object_guess has shape (1, 50, 60)', 'expected (h, w)'],
    ),
    'an object in double precision': (
        {'object_guess': np.ones((50, 60))},
        ['object_guess has dtype float64; expected complex64'],
    ),
    'patterns too small': (sized(8), ['patterns are 8 x 8 px', 'multiple of 8 from 16 to 1024']),
    'patterns too large': (sized(1032), ['patterns are 1032 x 1032 px', 'from 16 to 1024']),
    'a size that is no multiple of 8': (sized(60), ['patterns are 60 x 60 px', '--crop N']),
}

VALUES = {
    'no patterns': (
        {'patterns': np.zeros((0, N, N), np.float32), 'positions_px': np.zeros((0, 2))},
        ['patterns is empty', 'at least one'],
    ),
    'NaN in a pattern': (
        with_value('patterns', (3, 2, 1), np.nan),
        ['patterns has 1 values that are NaN or infinite', 'index (3, 2, 1)', 'bad_pixels'],
    ),
    'infinity in a pattern': (
        with_value('patterns', (3, 2), np.inf),
        ['patterns has 16 values', 'index (3, 2, 0)'],
    ),
    'NaN in a position': (
        with_value('positions_px', (4, 1), np.nan),
        ['positions_px has 1 values', 'index (4, 1)'],
    ),
    'NaN in the probe': (
        with_value('probe', (1, 5, 6), complex(0, np.nan)),
        ['probe has 1 values', 'index (1, 5, 6)'],
    ),
    'a negative count': (
        with_value('patterns', (2, 7, 9), -1.5),
        ['patterns has negative values (lowest -1.5, the first at index (2, 7, 9))', 'counts'],
    ),
    'nothing was counted': (lit(0, 0), ['patterns is zero in every good pixel']),
    'only bad pixels counted': (lit(0, 9), ['patterns is zero in every good pixel']),
    'a dark probe': ({'probe': np.zeros((2, N, N), np.complex64)}, ['probe is zero everywhere']),
}


@pytest.mark.parametrize(('changes', 'fragments'), SHAPES.values(), ids=SHAPES)
def test_bad_shapes_and_dtypes_name_found_and_expected(changes, fragments):
    with pytest.raises(ShapeError) as caught:
        scan_of(**changes)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(('changes', 'fragments'), VALUES.values(), ids=VALUES)
def test_bad_values_name_what_and_where(changes, fragments):
    with pytest.raises(ScanValueError) as caught:
        scan_of(**changes)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize('n_px', [16, 72, 1024])
def test_sizes_that_are_taken(n_px):
    scan = ScanData(**sized(n_px))
    assert (scan.n_patterns, scan.n_px) == (1, n_px)


def test_mean_counts_are_those_of_good_pixels():
    scan = scan_of(**lit(2, 1000))
    assert scan.bad_pixels.any()
    assert scan.mean_counts() == 2 * np.count_nonzero(scan.valid_pixels)
    assert (scan.valid_pixels == ~scan.bad_pixels).all()


def test_mean_counts_of_many_photons_keep_their_digits():
    patterns = np.full((5, N, N), 16_777_216, np.float32)
    patterns[:, 3, 4] += 2
    scan = scan_of(patterns=patterns, bad_pixels=np.zeros((N, N), bool))
    assert scan.mean_counts() == 16_777_216 * N * N + 2


def test_the_frame_is_that_of_an_object_which_holds_the_scan():
    positions = values()['positions_px']
    large, small = (np.ones(shape, np.complex64) for shape in ((60, 71), (40, 71)))
    assert scan_of(object_guess=large).frame == ObjectFrame((0, 0), (60, 71))
    smallest = ObjectFrame.around(positions, N)
    assert scan_of(object_guess=small).frame == scan_of().frame == smallest
    assert smallest.shape < (60, 71)


def test_a_subset_takes_patterns_and_positions_together():
    scan = scan_of(name='whole', object_guess=np.ones((60, 71), np.complex64))
    indices = np.array([4, 0, 3])
    part = scan.subset(indices)
    assert (part.patterns == scan.patterns[indices]).all()
    assert (part.positions_px == scan.positions_px[indices]).all()
    assert part.probe is scan.probe
    assert part.object_guess is scan.object_guess
    assert part.name == 'whole'
    assert scan.n_patterns == 5
    assert scan.indexes is None
    assert scan.numbers.tolist() == [0, 1, 2, 3, 4]
    assert part.numbers.tolist() == [4, 0, 3]
    # Numbers are those of the whole scan, also in a part of a part, or where they begin elsewhere.
    assert part.subset(np.array([2, 1])).numbers.tolist() == [3, 0]
    assert scan_of(indexes=np.arange(7, 12)).subset(indices).numbers.tolist() == [11, 7, 10]
    with pytest.raises(ScanValueError, match='patterns is empty'):
        scan.subset(np.empty(0, dtype=np.int64))


def test_the_fingerprint_knows_the_data_and_nothing_else():
    scan = scan_of()
    same = [
        replace(scan, name='other', optics=Optics(photon_energy_eV=8e3), provenance=('read',)),
        replace(scan, patterns=np.asfortranarray(scan.patterns)),
    ]
    assert {s.fingerprint() for s in same} == {scan.fingerprint()}
    patterns, positions, bad_pixels = (
        getattr(scan, name).copy() for name in ('patterns', 'positions_px', 'bad_pixels')
    )
    patterns[4, 15, 15] += 1
    positions[0, 1] += 1e-9
    bad_pixels[0, 0] ^= True
    others = [
        replace(scan, patterns=patterns),
        replace(scan, positions_px=positions),
        replace(scan, bad_pixels=bad_pixels),
        replace(scan, patterns=scan.patterns[::-1].copy()),
        scan.subset(np.arange(4)),
    ]
    prints = {s.fingerprint() for s in (scan, *others)}
    assert len(prints) == 6
    assert all(len(p) == 64 for p in prints)


# A detector cropped from 64 px: what it sees, against the same sample on the coarse grid.

FINE = 64


def landscape(y, x):
    """A transmission of low spatial frequencies, known at every real coordinate of fine pixels."""
    ky, kx = 2 * np.pi / FINE * 2.3, 2 * np.pi / FINE * 1.7
    return (
        0.8
        + 0.2 * np.exp(1j * (ky * y - kx * x + 0.4))
        + 0.1j * np.cos(0.6 * kx * y + 1.2 * kx * x)
        - 0.15 * np.sin(0.9 * ky * x)
    )


def beam():
    """Two smooth off-centre modes that are small at the edges of space and of frequency."""
    y, x = np.indices((FINE, FINE)) - FINE // 2
    width = FINE / (2 * np.pi * 2.2)
    first = np.exp(-((y - 2.2) ** 2 + (x + 3.1) ** 2) / (2 * width**2) + 0.1j * x)
    second = 0.1 * (y + 1.5) * np.exp(-((y + 1.0) ** 2 + (x - 2.0) ** 2) / (2 * width**2))
    return (30 * np.stack([first, second])).astype(np.complex64)


@pytest.fixture(scope='module')
def fine_scan():
    positions = np.array([[40.2, 51.9], [44.5, 38.37], [52.81, 47.0], [33.0, 60.24]])
    object_ = landscape(*np.indices((90, 101)))
    bad_pixels = np.zeros((FINE, FINE), bool)
    bad_pixels[30, 35] = bad_pixels[2, 3] = True
    return ScanData(
        patterns=expected_counts(object_, beam(), positions).astype(np.float32),
        positions_px=positions,
        probe=beam(),
        bad_pixels=bad_pixels,
        object_guess=object_.astype(np.complex64),
        optics=Optics((10e-9, 12e-9), photon_energy_eV=8e3, origin_m=(1e-6, -2e-6)),
        provenance=('simulated',),
    )


@pytest.mark.parametrize('n_px', [32, 40, 48])
def test_a_cropped_scan_is_a_scan_of_the_coarse_object(fine_scan, n_px):
    """Pixel i of the coarse object grid is the point i * 64 / n_px of the fine one."""
    small = fine_scan.cropped(n_px)
    ratio = FINE / n_px
    y, x = np.indices((90, 101)) * ratio
    expected = expected_counts(landscape(y, x), small.probe, small.positions_px)
    np.testing.assert_allclose(small.patterns, expected, atol=2e-5 * expected.max())
    # The probe keeps its energy, and the sample its place in metres.
    energies = [np.sum(np.abs(scan.probe) ** 2) for scan in (small, fine_scan)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-4)
    assert small.optics == replace(
        fine_scan.optics, pixel_size_m=pytest.approx((10e-9 * ratio, 12e-9 * ratio))
    )
    assert small.object_guess is None


def test_a_crop_takes_the_centre_of_patterns_and_bad_pixels(fine_scan):
    small = fine_scan.cropped(32)
    assert (small.patterns == fine_scan.patterns[:, 16:48, 16:48]).all()
    assert small.patterns.flags.c_contiguous
    assert np.argwhere(small.bad_pixels).tolist() == [[14, 19]]
    assert small.provenance == ('simulated', 'detector cropped from 64 to 32 px')
    np.testing.assert_allclose(small.positions_px, fine_scan.positions_px / 2 - 0.25)


def test_a_crop_without_known_pixel_size_keeps_it_unknown(fine_scan):
    assert replace(fine_scan, optics=Optics()).cropped(32).optics == Optics()


def test_a_crop_to_the_same_size_is_the_scan(fine_scan):
    assert fine_scan.cropped(FINE) is fine_scan


@pytest.mark.parametrize('n_px', [0, -8, 72])
def test_impossible_crops(fine_scan, n_px):
    with pytest.raises(ShapeError, match=f'cannot crop patterns of 64 px to {n_px}'):
        fine_scan.cropped(n_px)


def test_a_crop_to_an_unsupported_size(fine_scan):
    with pytest.raises(ShapeError, match='60 x 60 px'):
        fine_scan.cropped(60)
