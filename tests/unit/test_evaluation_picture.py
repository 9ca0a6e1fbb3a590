"""The picture of a comparison: what stands on it, in which colours, and that nothing is cut off."""

import numpy as np
import pytest
from scipy import ndimage

from ptychodus_torch_plugin.alignment import align
from ptychodus_torch_plugin.evaluation_picture import draw_evaluation, half_period_text
from ptychodus_torch_plugin.metrics import compare_aligned
from ptychodus_torch_plugin.picture_layout import Sheet
from ptychodus_torch_plugin.ring_correlation import fourier_ring_correlation


def pair(shape, level=0.3, seed=0):
    """Return an object with noise and the true one, where they are to be compared."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    truth = np.exp(0.5j * smooth / smooth.std())
    noise = rng.standard_normal((2, *shape))
    region = np.ones(shape, dtype=bool)
    region[:5, :5] = False
    return (truth + level * (noise[0] + 1j * noise[1])).astype(np.complex64), truth, region


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a comparison; return its sheet."""
    sheets = []
    original = Sheet.save

    def save(sheet, path):
        sheets.append(sheet)
        original(sheet, path)

    monkeypatch.setattr(Sheet, 'save', save)

    def draw(object_, truth, region, **changes):
        aligned = align(object_, truth, region)
        pixel_size_m = changes.get('pixel_size_m')
        metrics = compare_aligned(aligned, truth, region, pixel_size_m=pixel_size_m)
        options = {'compared_with': 'truth', 'title': 'a title', **changes}
        draw_evaluation(tmp_path / 'a.png', aligned.object_, truth, region, metrics, **options)
        assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')
        return sheets[-1], metrics

    return draw


@pytest.mark.parametrize('shape', [(60, 70), (40, 150), (150, 40)])
@pytest.mark.parametrize('pixel_size_m', [None, (8e-9, 8e-9), (4e-9, 8e-9)])
def test_nothing_is_cut_off(drawn, shape, pixel_size_m):
    sheet, _ = drawn(*pair(shape), pixel_size_m=pixel_size_m, title='a long title ' * 20)
    box = sheet.figure.get_tightbbox(sheet.canvas.get_renderer())
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= sheet.width
    assert box.y1 <= sheet.height


def test_it_says_what_was_found(drawn):
    sheet, metrics = drawn(*pair((80, 80)), pixel_size_m=(8e-9, 8e-9))
    texts = {text.get_text() for text in sheet.figure.texts}
    assert {'a title', 'object', 'truth', 'difference', 'Fourier ring correlation'} <= texts
    assert f'PSNR {metrics.phase_psnr_dB:.1f} dB · SSIM {metrics.phase_ssim:.3f}' in texts
    labels = {axes.get_ylabel() for axes in sheet.figure.axes}
    assert {'Amplitude', 'Phase (rad)', 'Difference', 'Difference (rad)', 'correlation'} <= labels
    curve = sheet.figure.axes[-1]
    legend = [text.get_text() for text in curve.get_legend().get_texts()]
    nanometres = 1e9 * metrics.frc_resolution_m
    assert legend[-1] == f'half-period {metrics.frc_resolution_px:.2f} px = {nanometres:.3g} nm'
    marked = curve.get_lines()[-1].get_xdata()
    assert marked == pytest.approx([metrics.frc_nyquist_fraction] * 2)


def test_both_objects_have_one_scale_and_differences_their_own(drawn):
    object_, truth, region = pair((64, 64))
    sheet, _ = drawn(object_, truth, region)
    images = [axes.get_images()[0] for axes in sheet.figure.axes if axes.get_images()]
    assert len(images) == 6
    for ours, theirs, difference in (images[:3], images[3:]):
        assert ours.get_clim() == theirs.get_clim()
        low, high = difference.get_clim()
        assert low == -high
        np.testing.assert_array_equal(difference.get_array().mask, ~region)
    phase = images[5].get_array().compressed()
    aligned = align(object_, truth, region).object_
    expected = np.angle(aligned * truth.conj())[region]
    np.testing.assert_allclose(phase, expected, atol=1e-6)


def test_objects_alike_to_nyquist_are_better_than_a_pixel(drawn):
    _, truth, region = pair((64, 64))
    sheet, metrics = drawn(truth.astype(np.complex64), truth, region)
    assert metrics.frc_resolution_px is None
    legend = sheet.figure.axes[-1].get_legend().get_texts()[-1].get_text()
    assert legend == 'half-period better than 1.00 px'
    frc = fourier_ring_correlation(truth, truth)
    assert half_period_text(frc, (2e-9, 1e-9)) == 'better than 1.00 px = 2 nm'
