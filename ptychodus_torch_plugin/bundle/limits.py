"""What a bundle may hold and how large it may be; specs/bundle-format.md states the same numbers.

The sizes leave room for models of 10^8 weights and keep every archive below 2 GiB, so that the
plain zip format is enough: one that needs zip64 is not a bundle.
"""

from __future__ import annotations

MANIFEST = 'manifest.json'
WEIGHTS = 'weights.safetensors'
PROBE = 'probe.safetensors'
HISTORY = 'history.json'
OPTIMIZER = 'optimizer.safetensors'
PREVIEW = 'preview.png'
LEGACY_MANIFEST = 'manifest.dill'

_KIB = 1024
_MIB = 1024 * _KIB

# In the order in which they are written.
MEMBER_BYTES = {
    MANIFEST: _MIB,
    WEIGHTS: 512 * _MIB,
    PROBE: 256 * _MIB,
    HISTORY: 4 * _MIB,
    OPTIMIZER: 1024 * _MIB,
    PREVIEW: 8 * _MIB,
    LEGACY_MANIFEST: 64 * _KIB,
}
REQUIRED_MEMBERS = frozenset({MANIFEST, WEIGHTS, PROBE, HISTORY})
TENSOR_MEMBERS = (WEIGHTS, PROBE, OPTIMIZER)

TOTAL_BYTES = 1536 * _MIB
ARCHIVE_BYTES = TOTAL_BYTES + _MIB
DIRECTORY_BYTES = 64 * _KIB
COMPRESSION_RATIO = 200
HEADER_BYTES = _MIB
TENSOR_COUNT = 4096
JSON_DEPTH = 32
