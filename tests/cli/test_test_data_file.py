"""`train --test_data_file`: a scan that the trained model reconstructs afterwards."""

import json

import pytest

from ptychodus_torch_plugin.cli import train


def test_it_is_reconstructed_into_a_folder_of_its_own(
    here, call, scan_file, other_file, run_file, files_below
):
    arguments = ('train', scan_file, '--test_data_file', other_file, '--config', run_file)
    found = call(*arguments, '--json').json
    folder = here / 'training_outputs'
    names = ['metrics.json', 'object.h5', 'object.npz', 'object.png']
    assert files_below(folder / 'test') == names
    metrics = json.loads((folder / 'test/metrics.json').read_text())
    assert {name: found['test'][name] for name in metrics} == metrics
    assert metrics['patterns'] == 64
    assert metrics['stage'] == '3 sweeps + network + 2 sweeps'
    assert len(found['scans']) == 1


def test_the_figures_are_shown(here, call, scan_file, run_file):
    ran = call(
        *('train', scan_file, '--test-data-file', scan_file, '--config', run_file),
        *('--seed', 7, '--quiet'),
    )
    assert '49 patterns of 32 x 32 px' in ran.out
    assert '3 sweeps + network ' in ran.out
    for name in ('wts.h5.zip', 'test/object.h5'):
        assert f'training_outputs/{name}\n' in ran.out
    # On the scan that it was trained on, what training has not seen is held out: no warning.
    assert ran.err == ''


@pytest.mark.parametrize(
    ('name', 'arguments', 'expected'),
    [
        ('missing.h5', [], 'missing.h5: there is no such file'),
        ('text.h5', [], 'text.h5'),
        ('large.h5', [], 'large.h5 has patterns of 64 px'),
        ('few.h5', ['--crop', 64, '--gridsize', 2], 'few.h5: gridsize = 2 needs groups of 4'),
    ],
)
def test_a_wrong_one_is_refused_before_the_training(
    here, fail, scan_file, write_simulated, files_below, monkeypatch, name, arguments, expected
):
    (here / 'text.h5').write_text('no scan')
    write_simulated(here / 'large.h5', N=64, n_positions=9)
    write_simulated(here / 'few.h5', N=64, n_positions=3, scan='spiral')
    before = files_below(here)
    monkeypatch.setattr(train, 'train_into', None)
    first = 'large.h5' if name == 'few.h5' else scan_file
    ran = fail('train', first, '--test_data_file', name, *arguments)
    assert expected in ran.last
    assert files_below(here) == before
