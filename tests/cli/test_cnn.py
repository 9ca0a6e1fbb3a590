"""PtychoPINN's network from the command line: an export of Ptychodus in, an object out."""

import json

import numpy as np
import pytest

from ptychodus_torch_plugin import load_bundle, read_scan
from ptychodus_torch_plugin.files.product import read_product

TINY = ('--architecture', 'cnn', '--max_epochs', 1, '--accelerator', 'cpu')


@pytest.fixture(scope='module')
def cnn_model(tmp_path_factory, call, exported_file):
    """The output folder of a training, called as PtychoPINN is called."""
    folder = tmp_path_factory.mktemp('cnn') / 'out'
    call(
        *('train', '--backend', 'pytorch', '--train_data_file', exported_file),
        *('--output_dir', folder, '--n_images', 64, '--max_epochs', 1, '--accelerator', 'cpu'),
        *('--deterministic', '--num-workers', 0, '--learning-rate', '1e-4', '--gridsize', 2),
        *('--n_filters_scale', 1),
    )
    return folder


def infer(model, scan, *arguments):
    return ('infer', '--backend', 'pytorch', '--model_path', model, '--test_data', scan, *arguments)


def test_training_writes_the_settings_and_the_losses(cnn_model, files_below):
    model = load_bundle(cnn_model)
    assert (model.config.architecture, model.config.gridsize, model.config.N) == ('cnn', 2, 64)
    assert (model.training.n_groups, model.training.objective) == (64, 'poisson')
    assert model.provenance['optimizer']['learning_rate'] == 1e-4
    assert {'logs/version_0/metrics.csv', 'checkpoints/last.ckpt'} <= set(files_below(cnn_model))


def test_inference_writes_an_object(here, call, cnn_model, exported_file):
    ran = call(*infer(cnn_model, exported_file, '--output_dir', 'r', '--gridsize', 2))
    metrics = json.loads((here / 'r/metrics.json').read_text())
    assert metrics['architecture'] == 'cnn'
    assert list(metrics['stages']) == ['network']
    assert 0 < metrics['stages']['network']['r_held_out'] < 1
    assert metrics['held_out_seen_in_training'] == 0
    assert "The object in the files is the one after 'network'." in ran.out
    product = read_product('r/object.h5')
    assert product.object_.shape == read_scan(exported_file).frame.shape
    assert len(product.probe) == 2


def test_the_object_is_made_as_asked(here, call, cnn_model, exported_file):
    def reconstructed(folder, *arguments):
        call(*infer(cnn_model, exported_file, '--held-out', 0, '--output_dir', folder, *arguments))
        return read_product(here / folder / 'object.h5').object_

    plain = reconstructed('plain', '--inference-batch-size', 7)
    np.testing.assert_allclose(plain, reconstructed('again'), atol=1e-5)
    changes = {'--patch-weighting': 'uniform', '--neighbor_count': 6, '--seed': 4}
    for option, value in changes.items():
        assert np.abs(plain - reconstructed(option, option, value)).max() > 1e-3, option


def test_the_old_name_of_the_accelerator_is_understood(here, call, cnn_model, exported_file):
    ran = call(*infer(cnn_model, exported_file, '--device', 'cpu', '--held-out', 0, '--quiet'))
    assert ran.err == 'Warning: --device is deprecated. Use --accelerator cpu.\n'
    assert 'network' in ran.out


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--gridsize', 3], "is for gridsize = 2 (architecture 'cnn'), but --gridsize 3"),
        (['--crop', 32], 'patterns are 32 x 32 px, but the model is for N = 64'),
        (['--neighbor_count', 2], 'neighbor_count = 2 is too small for gridsize = 2'),
    ],
)
def test_a_model_for_other_data_is_refused(
    here, fail, cnn_model, exported_file, files_below, arguments, expected
):
    ran = fail(*infer(cnn_model, exported_file, '--output_dir', 'new/r', *arguments))
    assert expected in ran.last
    assert 'expected' in ran.last or 'Crop' in ran.last
    assert files_below(here) == []


@pytest.mark.parametrize(
    ('arguments', 'expected', 'remedy'),
    [
        (
            ['--gridsize', 2, '--neighbor_count', 2],
            'neighbor_count = 2 is too small for gridsize = 2',
            'expected at least 3',
        ),
        (['--n_images', 82], 'n_groups = 82, but there are 81', 'enable_oversampling'),
        (['--n_subsample', 82], 'n_subsample = 82 of 81', 'expected 1 to 81'),
        (['--n_subsample', 8, '--gridsize', 3], 'gridsize = 3 needs groups of 9', 'at most 2'),
        (['--gridsize', 9], 'model.gridsize = 9', 'less than or equal to 8'),
        (['--amp_activation', 'gelu'], "'gelu' is not one of", "'swish'"),
        (['--architecture', 'fno'], "'fno' is not one of", "'unrolled', 'cnn', 'none'"),
        (['--nll_weight', 0], 'nll_weight = 0', 'expected nll_weight or mae_weight above 0'),
        (
            ['--model_type', 'supervised', '--nll_weight', 1],
            "a 'supervised' model learns from the known object alone",
            'nll_weight = mae_weight = 0',
        ),
        (
            ['--persistent-workers'],
            'persistent_workers = True',
            'expected num_workers of at least 1',
        ),
        (['--scheduler', 'cosine'], "execution.scheduler = 'cosine'", "'warmup-cosine'"),
        (['--objective', 'thinned'], "objective = 'thinned'", "expected 'poisson'"),
        (['--crop', 32], "N = 32 is not supported by architecture 'cnn'", '(64, 128, 256)'),
        (
            ['--architecture', 'unrolled', '--n_images', 20],
            "n_groups = 20 is a setting of architecture 'cnn'",
            "or choose architecture 'cnn'",
        ),
        (
            ['--architecture', 'unrolled', '--probe_mask'],
            "probe_mask = True is a setting of architecture 'cnn'",
            "or architecture 'cnn'",
        ),
    ],
)
def test_settings_that_cannot_be_leave_nothing_behind(
    here, fail, exported_file, files_below, arguments, expected, remedy
):
    ran = fail('train', exported_file, *TINY, *arguments, '--output_dir', 'new/out')
    assert expected in ran.last
    assert remedy in ran.last
    assert files_below(here) == []


def test_too_few_patterns_for_the_gridsize_are_refused(here, fail, write_simulated, files_below):
    write_simulated(here / 'few.h5', N=64, n_positions=4)
    ran = fail('train', 'few.h5', *TINY, '--gridsize', 3, '--output_dir', 'new')
    assert 'gridsize = 3 needs groups of 9 patterns' in ran.last
    assert 'a gridsize of at most' in ran.last
    assert files_below(here) == ['few.h5']


def test_more_groups_than_patterns_with_the_switch(here, call, write_simulated):
    write_simulated(here / 'few.h5', N=64, n_positions=9)
    found = call(
        *(
            'train',
            'few.h5',
            *TINY,
            '--n_filters_scale',
            1,
            '--gridsize',
            2,
            '--n_groups',
            12,
            '--enable_oversampling',
        ),
        *('--logger', 'none', '--disable-checkpointing', '--quiet', '--json'),
    )
    assert found.err == ''
    assert found.json['settings']['training']['n_groups'] == 12
    assert (found.json['gridsize'], found.json['objective']) == (2, 'poisson')
    written = sorted(path.name for path in (here / 'training_outputs').iterdir())
    assert written == ['history.json', 'run.json', 'training.png', 'wts.h5.zip']
