"""Write the golden bundle and the manifest's JSON schema: `python tests/bundle/make_golden.py`.

Both are committed. A new golden file goes beside the old ones, under a new name: every file that a
release once wrote must be read by all later releases of the same major format version.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ptychodus_torch_plugin.bundle.archive import Bundle, write_bundle
from ptychodus_torch_plugin.bundle.manifest import Manifest, Normalisation

GOLDEN = Path(__file__).parent / 'golden' / 'format-1.0.wts.h5.zip'
SCHEMA = Path(__file__).parents[2] / 'specs' / 'bundle-manifest.schema.json'

# The smallest picture there is: one grey pixel.
PNG = bytes.fromhex(
    '89504e470d0a1a0a0000000d4948445200000001000000010800000000'
    '3a7e9b550000000a49444154789c6368000000820081d2e8ec6f0000000049454e44ae426082'
)


def numbers(*shape: int, step: int) -> np.ndarray:
    """Return float32 numbers that are exact, different along every axis, and of either sign."""
    count = int(np.prod(shape))
    return ((np.arange(count) * step % 1021 - 510) / 64).astype(np.float32).reshape(shape)


def golden_bundle() -> Bundle:
    """Return the content of the golden file, without random numbers or today's date."""
    probe = np.empty((2, 7, 7), dtype=np.complex64)
    probe.real, probe.imag = numbers(2, 7, 7, step=37), numbers(2, 7, 7, step=53)
    weights = {
        'encoder.0.kernel': numbers(3, 2, 3, 5, step=7),
        'encoder.0.bias': numbers(3, step=11),
        'sweep/damping': numbers(2, 3, 4, step=13),
        'gain': np.array(-0.0, dtype=np.float32),
    }
    return Bundle(
        backend='pytorch',
        model_settings={'architecture': 'unrolled', 'gridsize': 1, 'widths': [8, 16]},
        training_settings={'epochs': 2, 'learning_rate': 1e-3, 'seed': 2**63 + 1},
        normalisation=Normalisation(mean_counts=12345.678, input_scale=0.1, probe_scale=3e-7),
        producer={'ptychodus-torch-plugin': '0.1.0', 'numpy': '1.26.0'},
        provenance={'date': '2026-01-31T12:00:00Z', 'note': 'Böhmen ✓', 'data': ['ab12', None]},
        weights=weights,
        weight_axes={'sweep/damping': ('sweep', 'h', 'w')},
        probe=probe,
        history=[{'loss': 0.25, 'epoch': 0, 'val_loss': None}, {'loss': 1 / 3, 'epoch': 1}],
        optimizer={
            'step': np.array(41.0, dtype=np.float32),
            'exp_avg/encoder.0.kernel': numbers(3, 2, 3, 5, step=17),
        },
        preview_png=PNG,
    )


def schema_text() -> str:
    """Return the JSON schema of manifest.json."""
    return json.dumps(Manifest.model_json_schema(), indent=2, sort_keys=True) + '\n'


if __name__ == '__main__':
    GOLDEN.parent.mkdir(exist_ok=True)
    write_bundle(GOLDEN, golden_bundle())
    SCHEMA.write_text(schema_text(), encoding='utf-8')
