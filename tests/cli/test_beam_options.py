"""The options that say what is different about a beam and a detector."""

import numpy as np

from ptychodus_torch_plugin import read_scan
from ptychodus_torch_plugin.files.product import read_product


def swept(call, scan, *options):
    found = call(
        *('infer', '--test_data', scan, '--architecture', 'none', '--sweeps', '6'),
        *('--output_dir', 'out', '--json', *options),
    ).json
    return found['stages']['6 sweeps']


def test_refined_positions_are_those_of_the_product(here, call, scan_file):
    scan = read_scan(scan_file)
    swept(call, scan_file, '--refine-positions', '--refine-intensity')
    product = read_product(here / 'out' / 'object.h5')
    with np.load(here / 'out' / 'object.npz') as arrays:
        positions, origin = arrays['positions_px'], arrays['origin_px']
    assert 0.05 < np.abs(positions - scan.positions_px).max() <= 3
    np.testing.assert_allclose(product.positions_px, positions - origin, atol=1e-6)


def test_a_background_is_simulated_kept_replaced_and_used(here, call):
    settings = ('-N', '32', '--positions', '49', '--step-px', '4.5', '--photons', '2e4')
    call('simulate', 'dark.h5', *settings, '--background', '3')
    np.testing.assert_array_equal(read_scan('dark.h5').background, np.full((32, 32), 3, 'f4'))
    known = swept(call, 'dark.h5')
    unknown = swept(call, 'dark.h5', '--background', '0')
    assert known['r_fitted'] < 0.9 * unknown['r_fitted']
    np.save('half.npy', np.full((32, 32), 1.5))
    call('convert', 'dark.h5', 'half.h5', '--background', 'half.npy')
    np.testing.assert_array_equal(read_scan('half.h5').background, np.full((32, 32), 1.5, 'f4'))


def test_an_intensity_that_varies_is_simulated_and_found(here, call):
    settings = ('-N', '32', '--positions', '49', '--step-px', '4.5', '--photons', '2e4')
    call('simulate', 'varied.h5', *settings, '--intensity-variation', '0.4')
    totals = read_scan('varied.h5').patterns.sum(axis=(1, 2))
    assert totals.std() / totals.mean() > 0.3
    known = swept(call, 'varied.h5', '--refine-intensity')
    unknown = swept(call, 'varied.h5')
    assert known['r_held_out'] < unknown['r_held_out']
