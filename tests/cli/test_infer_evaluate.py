"""`infer` writes objects that others read; `evaluate` measures them."""

import json

import numpy as np
import pytest

from ptychodus_torch_plugin import read_scan
from ptychodus_torch_plugin.files.product import read_product
from ptychodus_torch_plugin.training_plan import held_out_indices

FIGURES = {'amplitude_psnr_dB', 'amplitude_ssim', 'phase_psnr_dB', 'phase_ssim', 'complex_error'}


@pytest.fixture(scope='module')
def inferred(tmp_path_factory, call, trained, other_file):
    """The output folder and the JSON of an inference on an unseen scan, with its truth."""
    folder = tmp_path_factory.mktemp('inference') / 'out'
    found = call(
        *('infer', '--model_path', trained, '--test_data', other_file, '--output_dir', folder),
        *('--truth', other_file, '--json'),
    ).json
    return folder, found


def test_the_files_are_there_and_nothing_else(inferred, files_below):
    folder, found = inferred
    names = ['metrics.json', 'object.h5', 'object.npz', 'object.png']
    assert files_below(folder) == names
    assert sorted(found['files'].values()) == [str(folder / name) for name in names]
    assert (folder / 'object.png').read_bytes().startswith(b'\x89PNG')


def test_metrics_tell_each_stage(inferred, other_file):
    folder, found = inferred
    metrics = json.loads((folder / 'metrics.json').read_text())
    assert metrics == {key: value for key, value in found.items() if key != 'files'}
    stages = ['3 sweeps', '3 sweeps + network', '3 sweeps + network + 2 sweeps']
    assert list(metrics['stages']) == stages
    assert metrics['stage'] == stages[-1]
    for figures in metrics['stages'].values():
        assert 0 < figures['r_fitted'] < figures['r_held_out'] < 1
        assert figures['object'].keys() >= FIGURES
    assert metrics['held_out_patterns'] == 6
    assert metrics['held_out_seen_in_training'] == 0
    assert (metrics['patterns'], metrics['N']) == (64, 32)
    assert metrics['seconds'] > 0


def test_product_and_arrays_hold_the_same_object_in_its_place(inferred, other_file):
    folder, found = inferred
    scan, product = read_scan(other_file), read_product(folder / 'object.h5')
    with np.load(folder / 'object.npz') as arrays:
        np.testing.assert_allclose(product.object_, arrays['object'], rtol=1e-6)
        assert str(arrays['stage']) == found['stage']
        np.testing.assert_array_equal(arrays['positions_px'], scan.positions_px)
        origin = arrays['origin_px']
        assert arrays['occupancy'].shape == product.object_.shape
    np.testing.assert_allclose(product.positions_px, scan.positions_px - origin, atol=1e-6)
    assert np.sum(np.abs(product.probe) ** 2) == pytest.approx(scan.mean_counts(), rel=0.02)
    assert [epoch for epoch, _ in product.losses] == [1, 2]
    assert product.name == scan.name


def test_refine_and_held_out_are_honoured(here, call, trained, other_file):
    found = call(
        *('infer', '--model-path', trained / 'wts.h5.zip', '--test-data', other_file),
        *('--refine', 0, '--held-out', 0, '--json'),
    ).json
    assert found['stage'] == '3 sweeps + network'
    assert found['held_out_patterns'] == 0
    assert [figures['r_held_out'] for figures in found['stages'].values()] == [None, None]
    assert [figures['object'] for figures in found['stages'].values()] == [None, None]
    assert (here / 'inference_outputs/object.h5').is_file()


def test_sweeps_alone_need_no_model(here, call, scan_file):
    ran = call(
        *('infer', '--architecture', 'none', '--test_data', scan_file, '--sweeps', 4),
        *('--probe-modes', 2, '--no-refine-probe', '--seed', 3),
    )
    metrics = json.loads((here / 'inference_outputs/metrics.json').read_text())
    assert list(metrics['stages']) == ['4 sweeps']
    assert len(read_product('inference_outputs/object.h5').probe) == 2
    assert "The object in the files is the one after '4 sweeps'." in ran.out


def test_on_the_training_scan_the_same_patterns_are_held_out(here, call, tmp_path_factory):
    """By default; other ones were seen in training, and that is said."""
    scan = tmp_path_factory.mktemp('many') / 'scan.h5'
    call('simulate', scan, '-N', 32, '--positions', 49, '--step-px', 4)
    (here / 'run.yaml').write_text(
        'model: {channels: [4], sweeps_before: 2}\n'
        'training: {thinnings: 1, epochs: 1, held_out_fraction: 0.2, seed: 8}\n'
    )
    call('train', scan, '--config', 'run.yaml')
    infer = ('infer', '--model_path', 'training_outputs', '--test_data', scan, '--json')
    same = call(*infer)
    assert same.json['held_out_patterns'] == len(held_out_indices(read_scan(scan), 0.2, 8)) == 10
    assert same.json['held_out_seen_in_training'] == 0
    assert 'Warning' not in same.err
    other = call(*infer, '--seed', 9)
    assert other.json['held_out_seen_in_training'] > 0
    assert 'Warning: the model was trained on' in other.err
    quiet = call(*infer, '--seed', 9, '--quiet')
    assert quiet.err.startswith('Warning: the model was trained on')
    assert quiet.err.count('\n') == 1


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--sweeps', 3], 'expected no --architecture, --sweeps, --probe-modes'),
        (['--architecture', 'none'], 'expected no --architecture'),
        (['--refine', -1], 'inference.refine = -1'),
        (['--truth', 'missing.h5'], 'missing.h5: there is no such file'),
        (['--truth', 'far.h5'], 'do not overlap'),
        (['--truth', 'coarse.h5'], 'expected the same. Was the detector of one of them cropped?'),
        (['--backend', 'jax'], "backend = 'jax'"),
        (['--gridsize', 2], "the model is for gridsize = 1 (architecture 'unrolled'), but"),
        (['--neighbor_count', 4], "neighbor_count: for architecture 'cnn' alone"),
        (['--patch-weighting', 'uniform'], "patch_weighting: for architecture 'cnn' alone"),
        (['--inference-batch-size', 4], "inference_batch_size: for architecture 'cnn' alone"),
    ],
)
def test_wrong_requests_fail_before_the_work(
    here, fail, call, trained, scan_file, other_file, files_below, arguments, expected
):
    scan = read_scan(scan_file)
    _write_product(here / 'far.h5', scan, origin_m=(1.0, 0.0), pixel_m=2e-8)
    _write_product(here / 'coarse.h5', scan, origin_m=(0.0, 0.0), pixel_m=4e-8)
    before = files_below(here)
    ran = fail('infer', '--model_path', trained, '--test_data', other_file, *arguments)
    assert expected in ran.last
    assert files_below(here) == before


def test_a_missing_model_is_named(here, fail, other_file):
    ran = fail('infer', '--model_path', 'nowhere', '--test_data', other_file)
    assert 'nowhere' in ran.last


def _write_product(path, scan, *, origin_m, pixel_m):
    from dataclasses import replace

    from ptychodus_torch_plugin.files.product import write_product

    optics = replace(scan.optics, pixel_size_m=(pixel_m, pixel_m), origin_m=origin_m)
    placed = replace(scan, optics=optics)
    write_product(
        path,
        object_=scan.object_guess,
        frame=scan.frame,
        scan=placed,
        probe=scan.probe,
        name='product',
    )


def test_evaluate_agrees_with_what_infer_found(here, call, inferred, other_file):
    folder, found = inferred
    told = found['stages'][found['stage']]['object']
    product = call(
        *('evaluate', folder / 'object.h5', '--truth', other_file, '--output_dir', 'out', '--json')
    ).json
    for name in FIGURES:
        assert product[name] == pytest.approx(told[name], rel=1e-3), name
    assert (here / 'out/comparison.png').read_bytes().startswith(b'\x89PNG')
    assert json.loads((here / 'out/evaluation.json').read_text()) == product
    assert product['files'].keys() == {'figures', 'picture'}
    assert (product['compared_with'], product['frc_criterion']) == ('truth', 'noise-free')
    pixel_m = read_scan(other_file).optics.pixel_size_m[0]
    assert product['frc_resolution_m'] == pytest.approx(pixel_m * product['frc_resolution_px'])
    assert product['frc'].keys() == {'frequency_per_px', 'correlation', 'threshold'}
    arrays = call('evaluate', folder / 'object.npz', '--truth', other_file, '--json').json
    assert arrays['complex_error'] == pytest.approx(told['complex_error'], rel=0.02)


def test_evaluate_prints_figures_for_people(here, call, inferred, other_file):
    folder, found = inferred
    out = call('evaluate', folder / 'object.h5', '--truth', other_file, '--scan', other_file).out
    told = found['stages'][found['stage']]['object']
    assert f'phase          PSNR {told["phase_psnr_dB"]:.2f} dB' in out
    assert 'by Fourier ring correlation, half-bit threshold against an object without noise' in out
    assert f'{told["frc_resolution_px"]:.2f} px = {1e9 * told["frc_resolution_m"]:.3g} nm' in out
    assert ' on 64 patterns that it was made from\n' in out


def test_r_alone_needs_no_other_object(here, call, inferred, other_file):
    folder, found = inferred
    ran = call(
        *('evaluate', folder / 'object.h5', '--scan', other_file),
        *('--output_dir', 'out', '--json'),
    )
    r = ran.json['r']
    told = found['stages'][found['stage']]
    assert r['r_fitted'] == r['r_all'] == pytest.approx(told['r_fitted'], rel=2e-3)
    assert (r['r_held_out'], r['fitted_patterns'], r['held_out_patterns']) == (None, 64, 0)
    assert ran.json['compared_with'] is None
    assert [path.name for path in (here / 'out').iterdir()] == ['evaluation.json']


@pytest.fixture(scope='module')
def two_halves(tmp_path_factory, call, other_file):
    """The output folders of both halves of a scan, and what was said about the first one."""
    folder = tmp_path_factory.mktemp('halves')
    infer = ('infer', '--test_data', other_file, '--architecture', 'none', '--sweeps', 6, '--json')
    first, _ = (
        call(*infer, '--half', half, '--output_dir', folder / half).json
        for half in ('first', 'second')
    )
    return folder, first


def test_halves_are_made_of_different_patterns(two_halves, other_file):
    folder, first = two_halves
    whole = read_scan(other_file)
    rows = [read_product(folder / half / 'object.h5').indexes for half in ('first', 'second')]
    assert sorted(np.concatenate(rows)) == list(range(64))
    assert [first[key] for key in ('half', 'patterns', 'patterns_of_scan')] == ['first', 32, 64]
    assert (first['held_out_patterns'], first['half_seen_in_training']) == (0, False)
    with np.load(folder / 'first/object.npz') as arrays:
        np.testing.assert_array_equal(arrays['positions_px'], whole.positions_px[rows[0]])


def test_halves_are_compared(here, call, two_halves, other_file):
    folder, first = two_halves
    ran = call(
        *('evaluate', folder / 'first/object.h5', '--half', folder / 'second/object.h5'),
        *('--scan', other_file, '--output_dir', 'out', '--json'),
    )
    found = ran.json
    assert (found['compared_with'], found['frc_criterion']) == ('half', 'halves')
    assert found['patterns_in_both'] == 0
    assert found['half'] == str(folder / 'second/object.h5')
    assert (found['r']['fitted_patterns'], found['r']['held_out_patterns']) == (32, 32)
    assert found['r']['r_fitted'] < found['r']['r_held_out']
    told = first['stages'][first['stage']]['r_fitted']
    assert found['r']['r_fitted'] == pytest.approx(told, rel=5e-3)
    assert (here / 'out/comparison.png').is_file()
    same = call('evaluate', folder / 'first/object.h5', '--half', folder / 'first/object.h5')
    assert 'Warning: ' in same.err
    assert 'both list 32 patterns of one number and place' in same.err


def test_a_model_that_was_trained_on_the_scan_is_told_of(here, call, trained, scan_file):
    ran = call(
        *('infer', '--test_data', scan_file, '--model_path', trained, '--half', 'second'),
        '--json',
    )
    assert ran.json['half_seen_in_training'] is True
    assert 'Warning: the model was trained on' in ran.err
    assert 'on both halves of it' in ran.err


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--held-out', 0.1], 'expected no --held-out with it'),
        (['--part', '1/2'], 'expected no --follow, no --part and no --merge'),
        (['--follow'], 'expected no --follow, no --part and no --merge'),
    ],
)
def test_a_half_is_refused_with_what_contradicts_it(here, fail, other_file, arguments, expected):
    sweeps = ('--architecture', 'none', '--half', 'first')
    assert expected in fail('infer', '--test_data', other_file, *sweeps, *arguments).last


def test_objects_on_different_canvases_meet_at_the_same_place(here, call, inferred):
    """The same object, cropped by odd amounts and shifted canvases, is still the same object."""
    from ptychodus_torch_plugin.files.product import write_product
    from ptychodus_torch_plugin.frame import ObjectFrame

    folder, _ = inferred
    product = read_product(folder / 'object.h5')
    top, left = 3, 8
    part = product.object_[top : top + 70, left : left + 60]
    scan = read_scan_like(product)
    write_product(
        here / 'part.h5',
        object_=np.ascontiguousarray(part * np.complex64(0.5j)),
        frame=ObjectFrame((top, left), part.shape),
        scan=scan,
        probe=product.probe,
        name='part',
    )
    found = call('evaluate', folder / 'object.h5', '--truth', 'part.h5', '--json').json
    assert found['complex_error'] < 1e-5
    assert found['shift_px'] == pytest.approx([0, 0], abs=1e-3)
    assert found['scale_amplitude'] == pytest.approx(0.5, rel=1e-4)


def read_scan_like(product):
    """Return a scan on the grid of a product whose patches lie well inside any part of it."""
    from ptychodus_torch_plugin import ScanData

    n_px = product.probe.shape[-1]
    middle = np.mgrid[24.0:52.0:4, 26.0:50.0:4].reshape(2, -1).T
    return ScanData(
        patterns=np.ones((len(middle), n_px, n_px), np.float32),
        positions_px=middle,
        probe=product.probe,
        bad_pixels=np.zeros((n_px, n_px), np.bool_),
        optics=product.optics,
    )


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['object.npz', '--truth', 'object.h5'], 'do not say where they lie to each other'),
        (['missing.h5', '--truth', 'object.h5'], 'missing.h5: there is no such file'),
        (['object.h5', '--truth', 'metrics.json'], 'metrics.json'),
        (['metrics.json', '--truth', 'object.h5'], 'metrics.json'),
        (['object.png', '--truth', 'object.h5'], 'object.png'),
        (['object.npz', '--scan', 'SCAN'], 'object.npz holds no probe to predict patterns with'),
        (['object.h5', '--scan', 'SCAN', '--crop', '16'], 'expected the same. Was the detector'),
        (['object.h5', '--truth', 'a.h5', '--half', 'b.h5'], 'by --truth and --half; expected one'),
        (['object.h5', '--half', 'missing.h5'], 'missing.h5: there is no such file'),
        (['object.h5'], 'is to be evaluated by nothing; expected one of --truth, --reference'),
    ],
)
def test_evaluate_refuses_what_it_cannot_compare(
    inferred, other_file, fail, monkeypatch, arguments, expected
):
    folder, _ = inferred
    monkeypatch.chdir(folder)
    arguments = [other_file if each == 'SCAN' else each for each in arguments]
    assert expected in fail('evaluate', *arguments).last


def test_a_scan_without_an_object_is_no_truth(here, fail, inferred, other_file):
    from dataclasses import replace

    from ptychodus_torch_plugin import write_scan

    write_scan('bare.h5', replace(read_scan(other_file), object_guess=None))
    ran = fail('evaluate', inferred[0] / 'object.h5', '--truth', 'bare.h5', '--output_dir', 'new')
    assert 'bare.h5: the scan holds no object' in ran.last
    assert not (here / 'new').exists()
