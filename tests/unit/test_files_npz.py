import bz2
import logging

import numpy as np
import pytest

from ptychodus_torch_plugin.errors import (
    ConfigError,
    InputNotFoundError,
    ScanFileError,
    ScanValueError,
    ShapeError,
)
from ptychodus_torch_plugin.files import containers
from ptychodus_torch_plugin.files.options import ReadOptions
from ptychodus_torch_plugin.files.reading import identify, read_scan

N = 16


@pytest.fixture
def arrays():
    """Amplitudes with the beam at the centre; no two numbers alike, more columns than rows."""
    rng = np.random.default_rng(5)
    y, x = np.indices((N, N)) - N // 2
    beam = 300 * np.exp(-(y**2 + 2 * x**2) / 8)
    counts = rng.poisson(beam, size=(7, N, N))
    return {
        'xcoords': rng.uniform(20, 40, 7),
        'ycoords': rng.uniform(10, 25, 7),
        'diff3d': np.sqrt(counts).astype(np.float32),
        'probeGuess': rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N)),
        'objectGuess': rng.normal(size=(41, 53)) + 1j * rng.normal(size=(41, 53)),
        'scan_index': np.zeros(7, dtype=int),
    }


@pytest.fixture
def save(tmp_path):
    def write(arrays, **changes):
        path = tmp_path / 'scan.npz'
        merged = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
        np.savez(path, **merged)
        return path

    return write


def counts_of(arrays):
    return np.square(arrays['diff3d'])


class TestPtychoPinn:
    def test_amplitudes_become_counts_and_coordinates_become_rows_and_columns(self, arrays, save):
        path = save(arrays)
        scan = read_scan(path)
        assert identify(path) == 'ptychopinn'
        np.testing.assert_array_equal(scan.patterns, counts_of(arrays))
        np.testing.assert_array_equal(scan.positions_px[:, 0], arrays['ycoords'])
        np.testing.assert_array_equal(scan.positions_px[:, 1], arrays['xcoords'])
        np.testing.assert_allclose(scan.probe[0], arrays['probeGuess'], rtol=1e-6)
        np.testing.assert_allclose(scan.object_guess, arrays['objectGuess'], rtol=1e-6)
        assert scan.probe.shape == (1, N, N)
        assert scan.name == 'scan'
        assert not scan.bad_pixels.any()
        assert scan.frame.shape == (41, 53)

    def test_decisions_are_told_in_provenance_and_log(self, arrays, save, caplog):
        with caplog.at_level(logging.INFO, 'ptychodus_torch_plugin.files'):
            scan = read_scan(save(arrays))
        line = 'patterns taken as amplitude (PtychoPINN files are documented to hold amplitudes): '
        assert line + 'squared to counts' in scan.provenance
        assert any(line in message for message in caplog.messages)
        assert 'read from scan.npz as ptychopinn (told from its keys)' in scan.provenance

    def test_old_order_is_recognised_by_the_number_of_positions(self, arrays, save):
        old = np.moveaxis(arrays['diff3d'], 0, 2)
        scan = read_scan(save(arrays, diff3d=old))
        np.testing.assert_array_equal(scan.patterns, counts_of(arrays))
        assert any('old order' in line for line in scan.provenance)

    def test_as_many_patterns_as_pixels_is_ambiguous(self, arrays, save):
        rng = np.random.default_rng(0)
        path = save(
            arrays,
            diff3d=rng.uniform(1, 2, (N, N, N)),
            xcoords=np.arange(N) + 20.0,
            ycoords=np.arange(N) + 20.0,
        )
        with pytest.raises(ScanFileError, match=r'diff3d has shape \(16, 16, 16\) for 16 pos'):
            read_scan(path)
        options = ReadOptions(file_kind='ptychodus-npz', diffraction_kind='amplitude')
        assert read_scan(path, options).n_patterns == N

    def test_whole_amplitudes_are_warned_of(self, arrays, save, caplog):
        read_scan(save(arrays, diff3d=np.rint(arrays['diff3d'])))
        assert 'whole numbers only' in caplog.text

    def test_negative_amplitudes_do_not_vanish_in_the_square(self, arrays, save):
        arrays['diff3d'][2, 3, 4] = -5
        with pytest.raises(ScanValueError, match=r"lowest -5.*patterns is 'diff3d'"):
            read_scan(save(arrays))

    def test_several_scan_indexes_are_noted(self, arrays, save):
        scan = read_scan(save(arrays, scan_index=np.array([0, 0, 0, 1, 1, 1, 1])))
        assert any('scan_index has 2 different values' in line for line in scan.provenance)

    def test_optional_keys_may_be_missing(self, arrays, save):
        scan = read_scan(save(arrays, objectGuess=None, scan_index=None))
        assert scan.object_guess is None

    def test_modes_come_strongest_first(self, arrays, save):
        probe = arrays['probeGuess']
        scan = read_scan(save(arrays, probeGuess=np.stack([0.1 * probe, 3 * probe, probe])))
        np.testing.assert_allclose(scan.probe[0], 3 * probe, rtol=1e-6)
        np.testing.assert_allclose(scan.probe[2], 0.1 * probe, rtol=1e-6)
        assert any('order [1, 2, 0]' in line for line in scan.provenance)


class TestDiffractionKind:
    def test_integers_are_counts_and_do_not_overflow(self, arrays, save):
        patterns = counts_of(arrays).astype(np.uint16) * 100
        scan = read_scan(save(arrays, diff3d=patterns))
        np.testing.assert_array_equal(scan.patterns, patterns.astype(np.float32))
        assert any('uint16' in line for line in scan.provenance)

    def test_integers_taken_as_amplitudes_are_squared_in_float(self, arrays, save):
        patterns = counts_of(arrays).astype(np.uint16)
        scan = read_scan(save(arrays, diff3d=patterns), ReadOptions(diffraction_kind='amplitude'))
        np.testing.assert_array_equal(scan.patterns, np.square(patterns.astype(np.float64)))
        assert scan.patterns.max() > 65535

    def test_the_option_wins_over_the_contract(self, arrays, save):
        scan = read_scan(save(arrays), ReadOptions(diffraction_kind='intensity'))
        np.testing.assert_array_equal(scan.patterns, arrays['diff3d'])
        assert 'patterns taken as intensity (as asked for)' in scan.provenance

    def test_bad_pixels_mark_an_export_of_ptychodus(self, arrays, save):
        bad = np.zeros((N, N), dtype=bool)
        bad[2, 5] = True
        arrays['diff3d'][:, 2, 5] = np.nan
        path = save(arrays, bad_pixels=bad, probeGuess=np.ones((2, N, N), dtype=complex))
        scan = read_scan(path)
        assert identify(path) == 'ptychodus-npz'
        expected = np.where(bad, 0, arrays['diff3d'])
        np.testing.assert_array_equal(scan.patterns, expected)
        np.testing.assert_array_equal(scan.bad_pixels, bad)


class TestOptions:
    def test_corner_centred_patterns_are_refused_until_told(self, arrays, save):
        corner = np.fft.ifftshift(arrays['diff3d'], axes=(-2, -1))
        path = save(arrays, diff3d=corner)
        with pytest.raises(ScanFileError, match='--beam-center corner'):
            read_scan(path)
        scan = read_scan(path, ReadOptions(beam_center='corner'))
        np.testing.assert_array_equal(scan.patterns, counts_of(arrays))
        as_is = read_scan(path, ReadOptions(beam_center='center'))
        np.testing.assert_array_equal(as_is.patterns, np.square(corner))

    def test_bad_pixels_move_with_the_beam(self, arrays, save):
        bad = np.zeros((N, N), dtype=bool)
        bad[0, 3] = True
        corner = np.fft.ifftshift(arrays['diff3d'], axes=(-2, -1))
        scan = read_scan(
            save(arrays, diff3d=corner, bad_pixels=bad), ReadOptions(beam_center='corner')
        )
        assert np.argwhere(scan.bad_pixels).tolist() == [[N // 2, N // 2 + 3]]

    def test_flat_patterns_are_no_evidence_against_the_centre(self, arrays, save):
        flat = np.random.default_rng(1).uniform(1, 2, arrays['diff3d'].shape)
        assert read_scan(save(arrays, diff3d=flat)).n_patterns == 7

    @pytest.mark.parametrize(
        ('anchor', 'shift'), [('center', 0), ('center-pixel', -0.5), ('first-pixel', 7.5)]
    )
    def test_anchor(self, arrays, save, anchor, shift):
        scan = read_scan(save(arrays), ReadOptions(position_anchor=anchor))
        np.testing.assert_allclose(scan.positions_px[:, 1], arrays['xcoords'] + shift, rtol=1e-12)

    def test_photons_scale_the_good_pixels_before_the_crop(self, arrays, save):
        bad = np.zeros((N, N), dtype=bool)
        bad[8, 8] = True
        patterns = np.repeat(arrays['diff3d'], 2, axis=1).repeat(2, axis=2) / 1e4
        patterns[:, 8, 8] = 1e9
        path = save(
            arrays,
            diff3d=patterns,
            bad_pixels=np.pad(bad, (0, N)),
            probeGuess=np.ones((2 * N, 2 * N), dtype=complex),
        )
        scan = read_scan(path, ReadOptions(photons=5000))
        assert scan.mean_counts() == pytest.approx(5000, rel=1e-5)
        cropped = read_scan(path, ReadOptions(photons=5000, crop_px=N))
        np.testing.assert_array_equal(cropped.patterns, scan.cropped(N).patterns)
        assert cropped.mean_counts() < 5000

    def test_optics_are_overridden(self, arrays, save):
        options = ReadOptions(pixel_size_m=4e-9, photon_energy_eV=7000, detector_distance_m=2)
        optics = read_scan(save(arrays), options).optics
        assert optics.pixel_size_m == (4e-9, 4e-9)
        assert (optics.photon_energy_eV, optics.detector_distance_m) == (7000, 2)
        assert optics.origin_m == (0.0, 0.0)

    def test_file_kind_must_fit_the_file(self, arrays, save):
        with pytest.raises(ScanFileError, match=r"NPZ, but file kind 'scan' was asked for"):
            read_scan(save(arrays), ReadOptions(file_kind='scan'))
        with pytest.raises(ScanFileError, match=r"key 'scan' is missing; the file has the keys"):
            read_scan(save(arrays), ReadOptions(file_kind='tike'))
        with pytest.raises(ConfigError):
            ReadOptions(file_kind='hdf5')

    def test_a_diffraction_file_belongs_to_a_product_only(self, arrays, save):
        path = save(arrays)
        with pytest.raises(ScanFileError, match='of kind ptychopinn and holds its own patterns'):
            read_scan(path, diffraction_path=path)


class TestCropOfOddDetectors:
    def test_equals_the_crop_of_scan_data_where_both_work(self, arrays, save):
        from ptychodus_torch_plugin.files.cropping import crop_detector
        from ptychodus_torch_plugin.files.npz_layouts import read_ptychopinn

        rng = np.random.default_rng(2)
        arrays['diff3d'] = rng.uniform(1, 2, (7, 40, 40)).astype(np.float32)
        arrays['probeGuess'] = rng.normal(size=(2, 40, 40)) + 1j * rng.normal(size=(2, 40, 40))
        path = save(arrays)
        options = ReadOptions(diffraction_kind='intensity', pixel_size_m=3e-9)
        expected = read_scan(path, options).cropped(16)
        with containers.open_container(path) as container:
            cropped = crop_detector(read_ptychopinn(container), 16)
        np.testing.assert_array_equal(cropped.patterns, expected.patterns)
        np.testing.assert_allclose(cropped.positions_px, expected.positions_px, rtol=1e-12)
        order = [0, 1] if np.allclose(cropped.probe[0], expected.probe[0], atol=1e-4) else [1, 0]
        np.testing.assert_allclose(cropped.probe[order], expected.probe, atol=1e-5)

    def test_an_odd_detector_keeps_beam_probe_and_positions_in_place(self, arrays, save):
        old, new = 41, 16
        y, x = np.indices((old, old)) - old // 2
        patterns = np.ones((7, old, old))
        patterns[:, old // 2, old // 2] = 1000
        probe = np.exp(-((y - 4) ** 2 + (x + 7) ** 2) / 30)
        path = save(arrays, diff3d=patterns, probeGuess=probe)
        options = ReadOptions(diffraction_kind='intensity', crop_px=new, pixel_size_m=2e-9)
        scan = read_scan(path, options)
        assert np.unravel_index(scan.patterns[0].argmax(), (new, new)) == (new // 2, new // 2)
        assert scan.optics.pixel_size_m == pytest.approx((2e-9 * old / new,) * 2)
        # Pixel N//2 of the old patch is its centre, that of the new one lies half a pixel beyond.
        expected = arrays['xcoords'] * new / old - 0.5
        np.testing.assert_allclose(scan.positions_px[:, 1], expected, rtol=1e-12)
        weight = np.abs(scan.probe[0]) ** 2
        center = [(weight * axis).sum() / weight.sum() for axis in np.indices((new, new))]
        np.testing.assert_allclose(center, [8 + 4 * new / old, 8 - 7 * new / old], atol=0.05)

    def test_without_a_crop_the_size_is_refused(self, arrays, save):
        path = save(arrays, diff3d=np.ones((7, 41, 41)), probeGuess=np.ones((41, 41)))
        with pytest.raises(ShapeError, match=r'scan\.npz: patterns are 41 x 41 px'):
            read_scan(path, ReadOptions(diffraction_kind='intensity'))
        with pytest.raises(ShapeError, match='cannot crop patterns of 41 px to 64'):
            read_scan(path, ReadOptions(diffraction_kind='intensity', crop_px=64))


class TestTike:
    @pytest.fixture
    def tike(self, arrays):
        counts = np.rint(counts_of(arrays))
        return {
            'data': np.fft.ifftshift(counts, axes=(-2, -1))[np.newaxis],
            'probe': arrays['probeGuess'][(np.newaxis,) * 4],
            'scan': np.stack([arrays['ycoords'], arrays['xcoords']], axis=1)[np.newaxis],
        }

    def test_counts_positions_and_anchor(self, arrays, tike, save):
        path = save(tike)
        assert identify(path) == 'tike'
        with pytest.raises(ScanFileError, match='--beam-center corner'):
            read_scan(path)
        scan = read_scan(path, ReadOptions(beam_center='corner', position_anchor='first-pixel'))
        np.testing.assert_array_equal(scan.patterns, np.rint(counts_of(arrays)))
        np.testing.assert_allclose(scan.positions_px[:, 0], arrays['ycoords'] + 7.5, rtol=1e-12)
        assert scan.probe.shape == (1, N, N)

    def test_an_unusual_anchor_is_warned_of(self, tike, save, caplog):
        read_scan(save(tike), ReadOptions(beam_center='corner'))
        assert 'usually give the first-pixel' in caplog.text

    def test_several_modes(self, arrays, tike, save):
        modes = np.stack([arrays['probeGuess'], 0.5 * arrays['probeGuess']])
        path = save(tike, probe=modes[np.newaxis, np.newaxis, np.newaxis])
        assert read_scan(path, ReadOptions(beam_center='corner')).probe.shape == (2, N, N)

    def test_two_scans_in_one_file_are_refused(self, tike, save):
        path = save(tike, data=np.concatenate([tike['data']] * 2))
        with pytest.raises(ShapeError, match=r'data has shape \(2, 7, 16, 16\)'):
            read_scan(path)

    def test_bz2_is_unpacked_in_memory(self, tike, save, tmp_path):
        path = tmp_path / 'star.npz.bz2'
        path.write_bytes(bz2.compress(save(tike).read_bytes()))
        scan = read_scan(path, ReadOptions(beam_center='corner'))
        assert (scan.n_patterns, scan.name) == (7, 'star')

    def test_bz2_is_limited(self, tike, save, tmp_path, monkeypatch):
        monkeypatch.setattr(containers, 'MAX_DECOMPRESSED_BYTES', 1000)
        path = tmp_path / 'star.npz.bz2'
        path.write_bytes(bz2.compress(save(tike).read_bytes()))
        with pytest.raises(ScanFileError, match='more than 1000 bytes'):
            read_scan(path)


class TestDefects:
    @pytest.mark.parametrize(
        ('changes', 'error', 'message'),
        [
            ({'probeGuess': None}, ScanFileError, "key 'probeGuess' is missing; the file has the"),
            ({'xcoords': None}, ScanFileError, "key 'xcoords' is missing"),
            ({'diff3d': None}, ScanFileError, 'fits no known layout; it has the keys objectGuess'),
            ({'xcoords': np.ones(6)}, ShapeError, 'ycoords has 7 entries and xcoords has 6'),
            ({'xcoords': np.ones((7, 1))}, ShapeError, r'xcoords has shape \(7, 1\)'),
            ({'diff3d': np.ones((9, N, N))}, ShapeError, r'diff3d has shape \(9, 16, 16\)'),
            ({'diff3d': np.ones((7, N, N + 8))}, ShapeError, r'patterns has shape \(7, 16, 24\)'),
            ({'diff3d': np.ones((7, N))}, ShapeError, r'diff3d has shape \(7, 16\)'),
            ({'probeGuess': np.ones((8, 8))}, ShapeError, r'probe has shape \(1, 8, 8\)'),
            ({'probeGuess': np.zeros((N, N))}, ScanValueError, 'probe is zero everywhere'),
            ({'probeGuess': np.full((N, N), 1e200)}, ScanValueError, 'probe has 256 values'),
            ({'diff3d': np.zeros((7, N, N))}, ScanValueError, 'patterns is zero in every good'),
            ({'diff3d': np.ones((7, N, N), complex)}, ShapeError, 'patterns has dtype complex128'),
            ({'diff3d': np.full((7, N, N), 1e300)}, ScanValueError, 'patterns has 1792 values'),
            ({'xcoords': np.full(7, np.nan)}, ScanValueError, 'positions_px has 7 values'),
            ({'objectGuess': np.full((9, 9), np.inf)}, ScanValueError, 'object_guess has 81'),
            ({'bad_pixels': np.ones((8, 8))}, ShapeError, r'bad_pixels has shape \(8, 8\)'),
            ({'bad_pixels': np.ones((N, N))}, ScanValueError, 'zero in every good pixel'),
            ({'diff3d': np.full((7, N, N), 'x')}, ScanFileError, "key 'diff3d' has dtype <U1"),
        ],
    )
    def test_the_message_names_file_key_and_expectation(
        self, arrays, save, changes, error, message
    ):
        path = save(arrays, **changes)
        with pytest.raises(error, match=message) as caught:
            read_scan(path)
        assert str(caught.value).startswith(f'{path}: ')
        assert 'expected' in str(caught.value)

    def test_nan_names_the_key_of_the_file(self, arrays, save):
        arrays['diff3d'][1, 2, 3] = np.nan
        with pytest.raises(ScanValueError, match=r"\(1, 2, 3\).*patterns is 'diff3d'"):
            read_scan(save(arrays))

    def test_no_patterns(self, arrays, save):
        empty = {'diff3d': np.zeros((0, N, N)), 'xcoords': np.zeros(0), 'ycoords': np.zeros(0)}
        with pytest.raises(ScanValueError, match='at least one diffraction pattern'):
            read_scan(save(arrays, **empty))

    def test_negative_counts(self, arrays, save):
        arrays['diff3d'][0, 0, 0] = -1
        with pytest.raises(ScanValueError, match='patterns has negative values'):
            read_scan(save(arrays), ReadOptions(diffraction_kind='intensity'))

    def test_objects_are_never_unpickled(self, arrays, save):
        path = save(arrays, diff3d=np.array([{'a': 1}] * 7, dtype=object))
        with pytest.raises(ScanFileError, match=r"key 'diff3d' holds Python objects \(a pickle\)"):
            read_scan(path)

    @pytest.mark.parametrize(
        'content', [b'', b'PK', b'BZh', b'BZh91AY&SY', b'hello', b'\x80\x04N.']
    )
    def test_other_files(self, tmp_path, content):
        path = tmp_path / 'scan.npz'
        path.write_bytes(content)
        for read in (read_scan, identify):
            with pytest.raises(ScanFileError, match=r'scan\.npz: '):
                read(path)

    @pytest.mark.parametrize('fraction', [0.05, 0.5, 0.97, 0.999])
    @pytest.mark.parametrize('pack', [bytes, bz2.compress])
    def test_truncated_files(self, arrays, save, tmp_path, fraction, pack):
        content = pack(save(arrays).read_bytes())
        path = tmp_path / 'part.npz'
        path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(ScanFileError, match=r'part\.npz: '):
            read_scan(path)

    def test_missing_file(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r'none\.npz: there is no such file'):
            read_scan(tmp_path / 'none.npz')
