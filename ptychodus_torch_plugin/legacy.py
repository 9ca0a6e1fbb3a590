"""A bridge for programs that read PtychoPINN's flat dictionary of settings and of grouped data.

Nothing in this package reads either of them.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ptychodus_torch_plugin.arrays import ComplexArray, PositionArray
from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError
from ptychodus_torch_plugin.frame import ObjectFrame
from ptychodus_torch_plugin.grouping import Groups
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.stitching import read_patches

KEY_MAPPINGS = {
    'object_big': 'object.big',
    'probe_big': 'probe.big',
    'probe_mask': 'probe.mask',
    'probe_trainable': 'probe.trainable',
    'intensity_scale_trainable': 'intensity_scale.trainable',
    'positions_provided': 'positions.provided',
    'output_dir': 'output_prefix',
    'train_data_file': 'train_data_file_path',
    'test_data_file': 'test_data_file_path',
}
"""Settings that have another key in the flat dictionary."""

OUR_SPELLINGS = {'epochs': 'nepochs'}
"""Settings of this package that have another name there."""

FLATTENED = ('inference', 'training', 'model')
"""Settings within settings that are merged in; of equal names the later one here counts."""


def update_legacy_dict(cfg: MutableMapping[str, Any], config: Any) -> None:
    """Write settings into a flat dictionary, under the keys that its readers expect.

    Settings of the model, and in a `RunConfig` of training and inference, are merged in.  What is
    None is left out, so that an older value survives.  Paths become strings, other values JSON
    types.  Settings of the execution never enter.

    Parameters
    ----------
    cfg
        Updated in place, or not at all if there is an error.
    config
        Settings of this package, or any dataclass.

    Raises
    ------
    ConfigError
        If `config` is something else, or settings of the execution.
    """
    if isinstance(config, ExecutionConfig) or not _has_fields(config):
        raise ConfigError(
            f'{type(config).__name__} cannot enter the flat dictionary; expected settings of a '
            'run, a model, training or inference, or a dataclass of such.'
        )
    renamed = KEY_MAPPINGS | OUR_SPELLINGS
    plain = {renamed.get(name, name): to_jsonable_python(v) for name, v in _flat(config).items()}
    cfg.update(plain)


def _has_fields(config: Any) -> bool:
    return isinstance(config, BaseModel) or (is_dataclass(config) and not isinstance(config, type))


def _flat(config: Any) -> dict[str, Any]:
    """Return the settings that are not None by their names; the outermost ones count most."""
    model = isinstance(config, BaseModel)
    names = type(config).model_fields if model else [field.name for field in fields(config)]
    values = {name: getattr(config, name) for name in names if name != 'execution'}
    nested = [values.pop(name) for name in FLATTENED if _has_fields(values.get(name))]
    flat: dict[str, Any] = {}
    for settings in nested:
        flat.update(_flat(settings))
    own = {
        name: value
        for name, value in values.items()
        if value is not None and not isinstance(value, ExecutionConfig)
    }
    return flat | own


def grouped_data(scan: ScanData, groups: Groups) -> dict[str, Any]:
    """Return groups of a scan as the dictionary of PtychoPINN: channels last, [x, y], amplitudes.

    Parameters
    ----------
    scan
        All patterns that the groups were drawn from.
    groups
        From `grouping.draw_groups`; g groups of C patterns.

    Returns
    -------
    dict
        - ``diffraction`` (g, N, N, C) float32: square roots of the counts;
        - ``X_full`` (g, N, N, C) float32: the same, bad pixels 0, scaled so that the mean of
          sum X^2 over the patterns of the *scan* is (N / 2)^2, whatever was drawn;
        - ``Y`` (g, N, N, C) complex64 or None: the object guess around each pattern's position;
        - ``coords_offsets`` (g, 1, 2, 1) float64: mean position of a group;
        - ``coords_relative`` (g, 1, 2, C) float64: *minus* (position - mean);
        - ``coords_nn`` (g, 1, 2, C) float64: positions;
        - ``coords_start_offsets``, ``coords_start_relative``, ``coords_start_nn``: the same again,
          for a scan has one position per pattern;
        - ``nn_indices`` (g, C) int32;
        - ``objectGuess`` (h, w) complex64 or None.

    Raises
    ------
    ScanValueError
        If the groups are of another scan, or the object guess does not reach around a pattern.
    """
    if groups.indices.max() >= scan.n_patterns:
        raise ScanValueError(
            f'groups have pattern {groups.indices.max()}, but the scan {scan.n_patterns} patterns; '
            'expected groups drawn from the positions of this scan.'
        )
    amplitudes = _channels_last(np.sqrt(scan.patterns[groups.indices]))
    scale = np.float32(scan.n_px / 2 / np.sqrt(scan.mean_counts()))
    positions = scan.positions_px[groups.indices]
    coordinates = {
        'offsets': _x_before_y(groups.centers_px[:, None]),
        'relative': _x_before_y(groups.centers_px[:, None] - positions),
        'nn': _x_before_y(positions),
    }
    return {
        'diffraction': amplitudes,
        'X_full': amplitudes * (scan.valid_pixels * scale)[..., None],
        'Y': None if scan.object_guess is None else _truth(scan.object_guess, positions, scan.n_px),
        **{f'coords_{name}': values for name, values in coordinates.items()},
        **{f'coords_start_{name}': values.copy() for name, values in coordinates.items()},
        'nn_indices': groups.indices.astype(np.int32),
        'objectGuess': scan.object_guess,
    }


def _channels_last(patterns: Any) -> Any:
    """(g, C, N, N) -> (g, N, N, C)."""
    return np.ascontiguousarray(np.moveaxis(patterns, 1, -1))


def _x_before_y(pairs: PositionArray) -> PositionArray:
    """(g, C, 2) [y, x] -> (g, 1, 2, C) [x, y]."""
    return np.ascontiguousarray(np.swapaxes(pairs[..., ::-1], 1, 2)[:, None])


def _truth(object_: ComplexArray, positions_px: PositionArray, n_px: int) -> ComplexArray:
    frame = ObjectFrame((0, 0), (object_.shape[0], object_.shape[1]))
    patches = read_patches(object_, positions_px.reshape(-1, 2), n_px, frame)
    patches = patches.reshape(*positions_px.shape[:2], n_px, n_px)
    return np.asarray(_channels_last(patches), dtype=np.complex64)
