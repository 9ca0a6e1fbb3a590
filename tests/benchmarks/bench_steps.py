"""Steps without a framework, in pytest-benchmark's tables."""

import pytest

STEPS = [
    ('reading', 'HDF5, compressed'),
    ('reading', 'NPZ of counts'),
    ('reading', 'NPZ of amplitudes'),
    ('grouping', 'groups'),
    ('preparation', 'epoch'),
    ('ground-truth', 'at once'),
    ('ground-truth', 'in batches of 32'),
    ('stitching', 'object'),
]


@pytest.mark.parametrize(('case', 'what'), STEPS, ids=[': '.join(step) for step in STEPS])
def test_step(timed, one_of, case, what):
    timed(one_of(case, what))
