import numpy as np
import pytest

from ptychodus_torch_plugin.arrays import check_array, check_finite
from ptychodus_torch_plugin.errors import ScanValueError, ShapeError


def test_a_fitting_array_comes_back_as_it_is():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert check_array(array, 'n h w', name='x', dtype=np.float32, sizes={'n': 2}) is array
    assert check_array([[1, 2], [3, 4]], 'N N', name='x').tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ('shape', 'axes', 'sizes', 'message'),
    [
        ((3, 4), 'n h w', None, 'x has shape (3, 4); expected (n, h, w).'),
        ((3, 4, 5), 'n h', None, 'x has shape (3, 4, 5); expected (n, h).'),
        ((7, 3), 'n 2', None, 'x has shape (7, 3); expected (n, 2).'),
        (
            (7, 3, 4),
            'n N N',
            None,
            'x has shape (7, 3, 4); expected (n, N, N) (N of equal length).',
        ),
        ((7, 2), 'n 2', {'n': 6}, 'x has shape (7, 2); expected (n, 2) with n = 6.'),
        (
            (2, 4, 4),
            'm N N',
            {'m': 2, 'N': 5},
            'x has shape (2, 4, 4); expected (m, N, N) (N of equal length) with m = 2, N = 5.',
        ),
        ((), 'n', None, 'x has shape (); expected (n).'),
    ],
)
def test_a_misfit_names_found_and_expected(shape, axes, sizes, message):
    with pytest.raises(ShapeError) as caught:
        check_array(np.zeros(shape), axes, name='x', sizes=sizes)
    assert str(caught.value) == message


def test_dtype_is_never_converted():
    with pytest.raises(ShapeError, match='x has dtype float64; expected float32'):
        check_array(np.zeros(3), 'n', name='x', dtype=np.float32)


def test_sizes_given_by_the_caller_stay_as_they_are():
    sizes = {'n': 3}
    check_array(np.zeros((3, 5)), 'n w', name='x', sizes=sizes)
    assert sizes == {'n': 3}


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, complex(0, np.nan)])
def test_values_that_are_not_finite_are_counted_and_located(value):
    array = np.zeros((3, 4), dtype=np.complex64)
    check_finite(array, name='x')
    array[2, 1] = array[1, 3] = value
    with pytest.raises(ScanValueError, match=r'x has 2 values .* first at index \(1, 3\)'):
        check_finite(array, name='x')
