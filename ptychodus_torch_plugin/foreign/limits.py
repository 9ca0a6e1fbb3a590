"""How large the parts of an archive of PtychoPINN may be that are read at all."""

from __future__ import annotations

from ptychodus_torch_plugin.bundle.limits import MEMBER_BYTES, WEIGHTS

_KIB = 1024
_MIB = 1024 * _KIB

MANIFEST_BYTES = 64 * _KIB
PARAMETERS_BYTES = 16 * _MIB
METADATA_BYTES = _MIB
"""Of the description of a model."""
WEIGHTS_BYTES = MEMBER_BYTES[WEIGHTS]
"""Of the file of weights, and of all weights in it together."""

PICKLE_OPCODES = 100_000
PICKLE_MARKS = 100
"""Depth of lists, tuples and dictionaries within each other."""
INTEGER_BITS = 128
KEY_BITS = 60
ARRAY_AXES = 8
LAYERS = 512
