"""Bundles that each backend once wrote, which must be read for ever: `tests/bundle/golden/`.

Both models were trained on `stored.scene()`.  A test never writes these files.
"""

from pathlib import Path

import numpy as np

from ptychodus_torch_plugin import api
from ptychodus_torch_plugin.bundle.archive import read_bundle
from ptychodus_torch_plugin.config import ExecutionConfig
from tests.parity.comparison import TOLERANCES
from tests.parity.stored import scene

FOLDER = Path(__file__).parents[1] / 'bundle' / 'golden'
R_FITTED = {
    'pytorch': (0.237533, 0.237766, 0.235873),
    'tensorflow': (0.237533, 0.237793, 0.235891),
}
"""R after the sweeps, the network and the last sweeps, by the backend that wrote the model."""
CPU = ExecutionConfig(accelerator='cpu')


def path_of(writer: str) -> Path:
    return FOLDER / f'unrolled-{writer}-1.0.wts.h5.zip'


def check_golden(reader: str, writer: str) -> None:
    """Read a golden bundle with a backend: same weights, same R, and it can be trained further."""
    path, scan = path_of(writer), scene().scan
    model, bundle = api.load_bundle(path, backend=reader), read_bundle(path)
    assert bundle.backend == writer
    weights = model.trained.export_weights()
    assert weights.keys() == bundle.weights.keys()
    for name, array in bundle.weights.items():
        np.testing.assert_array_equal(weights[name], array)
    found = api.reconstruct(model, scan, execution=CPU)
    np.testing.assert_allclose(
        list(found.r_fitted.values()), R_FITTED[writer], rtol=TOLERANCES['reconstruction']
    )
    further = api.train([scan], None, model.training, CPU, backend=reader, start=model)
    steps = [
        {float(v) for n, v in moments.items() if n.startswith('step/')}
        for moments in (model.optimizer, further.optimizer)
    ]
    assert steps[1] == {2 * step for step in steps[0]} != {0.0}
