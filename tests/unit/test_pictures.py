import io
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
from skimage.io import imread

from ptychodus_torch_plugin.errors import OutputError, ScanValueError, ShapeError
from ptychodus_torch_plugin.picture_layout import DPI, UNSCANNED, Sheet, scale_bar
from ptychodus_torch_plugin.pictures import (
    draw_comparison,
    draw_object,
    draw_training,
    preview_png,
)

TONE = tuple(int(UNSCANNED[i : i + 2], 16) for i in (1, 3, 5))


@pytest.fixture
def object_():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((90, 131)), 3)
    return np.exp(1j * (2.5 + noise / noise.std())).astype(np.complex64)


@pytest.fixture
def occupancy(object_):
    y, x = np.indices(object_.shape)
    return (((y - 40) / 30) ** 2 + ((x - 80) / 40) ** 2 < 1).astype(np.float32)


def is_tone(pixels):
    return (pixels[..., :3] == TONE).all(axis=-1)


@pytest.fixture
def texts(monkeypatch):
    """Collect every text that is put on a sheet."""
    written = []
    original = Sheet.text

    def spy(sheet, text, *args, **kwargs):
        written.append(text)
        return original(sheet, text, *args, **kwargs)

    monkeypatch.setattr(Sheet, 'text', spy)
    return written


def test_object_is_drawn_with_title_stage_and_neutral_surroundings(
    tmp_path, object_, occupancy, texts
):
    path = tmp_path / 'object.png'
    draw_object(
        path,
        object_,
        occupancy=occupancy,
        pixel_size_m=(8e-9, 8e-9),
        title='costs $5, and $6',
        stage='network + 3 sweeps',
        subtitle='R = 0.15',
    )
    assert {'costs $5, and $6', 'network + 3 sweeps', 'R = 0.15', 'Phase (rad)'} <= set(texts)
    pixels = imread(path)
    # The four corners around an ellipse are 1 - pi/4 of its box; the scale bar covers one of eight.
    corners = 2 * (3.7 * DPI) ** 2 * (60 / 80) * (1 - np.pi / 4)
    assert 0.8 * corners < is_tone(pixels).sum() < corners
    assert [p.name for p in tmp_path.iterdir()] == ['object.png']


def test_everything_is_scanned_by_default(tmp_path, object_):
    draw_object(tmp_path / 'a.png', object_, title='t', stage='s')
    assert not is_tone(imread(tmp_path / 'a.png')).any()


def test_long_titles_are_made_to_fit():
    sheet = Sheet(5.0, 1.0, ('word ' * 14, 'a stage', 'subtitle ' * 50))
    title, stage, subtitle = sheet.figure.texts
    assert title.get_text() == 'word ' * 14
    assert title.get_window_extent().x1 <= 5.0 * DPI
    assert stage.get_window_extent().x1 < subtitle.get_window_extent().x0
    assert subtitle.get_text().endswith('…')
    assert subtitle.get_window_extent().x1 <= 5.0 * DPI


def test_non_square_pixels_keep_their_proportions(tmp_path):
    grain = np.random.default_rng(1).random((40, 40))
    object_ = np.exp(1j * grain).astype(np.complex64)
    occupancy = np.ones((40, 40))
    for name, size in (('square', (1e-8, 1e-8)), ('flat', (0.5e-8, 1e-8))):
        draw_object(
            tmp_path / name, object_, occupancy=occupancy, pixel_size_m=size, title='t', stage='s'
        )
    square, flat = imread(tmp_path / 'square'), imread(tmp_path / 'flat')
    assert square.shape[1] == flat.shape[1]
    assert square.shape[0] - flat.shape[0] == pytest.approx(3.7 * DPI / 2, abs=2)


@pytest.mark.parametrize(
    ('width', 'pixel', 'length', 'label'),
    [
        (131, None, 20, '20 px'),
        (150, None, 50, '50 px'),
        (100, 8e-9, 25, '200 nm'),
        (400, 8e-9, 125, '1 µm'),
        (300, 1e-6, 100, '100 µm'),
        (300, 2e-11, 100, '2 nm'),
        (2, 3e-12, 2 / 3, '2 pm'),
    ],
)
def test_scale_bar_is_round_and_right(width, pixel, length, label):
    found, text = scale_bar(width, pixel)
    assert found == pytest.approx(length)
    assert text == label
    assert width / 7.6 < found <= width / 3 * (1 + 1e-6)


def test_comparison_prints_figures_against_a_truth(tmp_path, object_, occupancy, texts):
    rng = np.random.default_rng(2)
    stages = {
        name: (2j * object_ * np.exp(1j * level * rng.standard_normal(object_.shape))).astype(
            np.complex64
        )
        for name, level in (('sweeps', 0.3), ('network', 0.1))
    }
    draw_comparison(tmp_path / 'c.png', stages, object_, occupancy)
    assert {'sweeps', 'network', 'truth'} <= set(texts)
    figures = [text for text in texts if text.startswith('PSNR')]
    found = [float(text.split()[1]) for text in figures]
    span = np.ptp(np.unwrap(np.angle(object_ * np.exp(-2.5j)))[occupancy > 0])
    assert found == pytest.approx([20 * np.log10(span / s) for s in (0.3, 0.1)], abs=0.5)
    assert texts.count('truth is flat') == 2


def test_comparison_without_truth_has_fewer_columns(tmp_path, object_, texts):
    draw_comparison(tmp_path / 'c.png', {'a': object_, 'b': object_})
    draw_comparison(tmp_path / 'd.png', {'a': object_}, truth=object_)
    assert imread(tmp_path / 'c.png').shape[1] == imread(tmp_path / 'd.png').shape[1]
    assert texts.count('truth') == 1


def test_training_curves(tmp_path):
    history = {'train': [3.0, 1.0, 0.5, np.nan, 0.01], 'validation': [3.0, 2.0, 0.7, 0.6, 0.9]}
    draw_training(tmp_path / 't.png', history)
    draw_training(tmp_path / 'one.png', {'train': [-7.5], 'validation': []})
    assert imread(tmp_path / 't.png').shape == imread(tmp_path / 'one.png').shape
    assert (imread(tmp_path / 't.png') != imread(tmp_path / 'one.png')).any()
    with pytest.raises(ScanValueError, match='no finite loss in its 1 curves'):
        draw_training(tmp_path / 'none.png', {'train': [np.nan]})


@pytest.mark.parametrize('shape', [(90, 131), (300, 517)])
def test_preview_is_small_and_shows_the_phase(shape):
    phase = np.zeros(shape)
    phase[: shape[0] // 2] = 1
    scanned = np.ones(shape, dtype=bool)
    scanned[-20:, -20:] = False
    png = preview_png(np.exp(1j * (phase + 3)).astype(np.complex64), scanned)
    assert png.startswith(b'\x89PNG')
    pixels = imread(io.BytesIO(png))
    block = -(-max(shape) // 256)
    assert pixels.shape[:2] == tuple(-(-n // block) for n in shape)
    middle = pixels.shape[0] // 2
    assert pixels[: middle - 1, :, 0].min() > 230
    assert pixels[middle + 1 :, : pixels.shape[1] // 2, 0].max() < 25
    assert is_tone(pixels)[-20 // block :, -20 // block :].mean() > 0.8


def test_defects_are_named_and_leave_the_old_file(tmp_path, object_, occupancy):
    path = tmp_path / 'a.png'
    path.write_bytes(b'old')
    with pytest.raises(ScanValueError, match='occupancy is zero everywhere'):
        draw_object(path, object_, occupancy=0 * occupancy, title='t', stage='s')
    with pytest.raises(ShapeError, match='occupancy has shape'):
        draw_object(path, object_, occupancy=occupancy[1:], title='t', stage='s')
    with pytest.raises(ScanValueError, match='no finite value'):
        preview_png(np.full((9, 9), np.nan, dtype=np.complex64))
    with pytest.raises(ScanValueError, match='stages is empty'):
        draw_comparison(path, {})
    with pytest.raises(ShapeError, match='object has shape'):
        draw_comparison(path, {'a': object_, 'b': object_[1:]})
    assert path.read_bytes() == b'old'
    with pytest.raises(OutputError):
        draw_object(tmp_path / 'missing' / 'a.png', object_, title='t', stage='s')


def test_pyplot_and_global_settings_stay_out_of_it(tmp_path, object_):
    code = (
        'import sys, numpy as np\n'
        'from ptychodus_torch_plugin import pictures\n'
        "assert 'matplotlib' not in sys.modules\n"
        'import matplotlib\n'
        'before = matplotlib.rcParams.copy()\n'
        "pictures.draw_object(sys.argv[1], np.ones((20, 30), 'c8'), title='t', stage='s')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        'assert dict.__eq__(matplotlib.rcParams.copy(), before)\n'
    )
    command = [sys.executable, '-W', 'error', '-c', code, str(tmp_path / 'a.png')]
    subprocess.run(command, check=True)
