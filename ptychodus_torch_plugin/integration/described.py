"""What the settings in Ptychodus take and mean, kept in `settings.json`.

It is what the settings of `config` say.  To build these takes several times longer than all else
that the plugin does when Ptychodus starts, and no reconstruction may follow; hence the file.  It
is written by `python tests/plugin/make_settings.py`, and a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name('settings.json')


@cache
def described() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of the values of each setting, without None, by its path.

    'families' has the families of networks for which it means something, unless these are all.
    """
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding='utf-8'))
    return found


def describe(paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return for these settings what `described` should."""
    from ptychodus_torch_plugin.config import (
        ExecutionConfig,
        InferenceConfig,
        ModelConfig,
        Settings,
        SweepConfig,
        TrainingConfig,
    )

    sections: dict[str, type[Settings]] = {
        'model': ModelConfig,
        'model.sweeps': SweepConfig,
        'training': TrainingConfig,
        'inference': InferenceConfig,
        'execution': ExecutionConfig,
    }
    schemas = {name: owner.model_json_schema() for name, owner in sections.items()}
    families = _families()
    result: dict[str, dict[str, Any]] = {}
    for path in paths:
        section, _, field = path.rpartition('.')
        found = schemas[section]['properties'][field]
        kinds = [kind for kind in found.get('anyOf', ()) if kind['type'] != 'null']
        result[path] = found | (kinds[0] if kinds else {})
        if path in families:
            result[path]['families'] = families[path]
    return result


def _families() -> dict[str, list[str]]:
    from ptychodus_torch_plugin.config.model import CNN_FIELDS, UNROLLED_FIELDS
    from ptychodus_torch_plugin.config.training import (
        CNN_TRAINING_FIELDS,
        UNROLLED_TRAINING_FIELDS,
    )

    return {
        **{f'model.{field}': ['cnn'] for field in CNN_FIELDS},
        **{f'model.{field}': ['unrolled', 'none'] for field in UNROLLED_FIELDS},
        'model.sweeps_after': ['unrolled', 'cnn'],
        **{f'training.{field}': ['cnn'] for field in CNN_TRAINING_FIELDS},
        **{f'training.{field}': ['unrolled'] for field in UNROLLED_TRAINING_FIELDS},
        'inference.neighbor_count': ['cnn'],
        'inference.patch_weighting': ['cnn'],
        'execution.precision': ['unrolled', 'cnn'],
        'execution.logger_backend': ['unrolled', 'cnn'],
    }
