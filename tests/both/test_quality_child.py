"""What a process of the quality set does, by each backend."""

import numpy as np
import pytest

from ptychodus_torch_plugin.benchmarks.quality import cases, driver, methods, own_child

BRIEF = {
    'sweeps': {'model': {'sweeps_before': 2}},
    'thinned': {
        'model': {'sweeps_before': 2, 'sweeps_after': 1, 'channels': [4]},
        'training': {'epochs': 1, 'thinnings': 1},
    },
}


@pytest.fixture(scope='module')
def scan_file(tmp_path_factory):
    """A scan of a few patterns with a wrong probe."""
    base = {case.name: case for case in cases.SETS['quick']}['natural-39-1e4-wrong']
    changed = base.simulation.model_copy(update={'n_positions': 25})
    path = tmp_path_factory.mktemp('quality') / 'scan.npz'
    driver.write_scan(path, cases.make_problem(base.model_copy(update={'simulation': changed})))
    return path


@pytest.mark.parametrize('name', BRIEF)
def test_a_scan_is_reconstructed_in_a_process_of_its_own(backend, scan_file, tmp_path, name):
    request = own_child.Request(
        scan=scan_file,
        object_file=tmp_path / 'object.npy',
        settings=methods.laid_over(methods.METHODS[name].settings, BRIEF[name]),
        backend=backend,
    )
    answer = own_child.run(request)
    assert answer['cpu_s'] > 0
    assert ('network' in answer['stage']) == (name == 'thinned')
    assert answer['versions']
    with np.load(scan_file) as scan:
        shape, flat = scan['object'].shape, scan['object']
    found = np.load(request.object_file)
    assert found.shape == shape
    assert np.abs(found - flat).max() > 0.1
