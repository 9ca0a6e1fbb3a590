"""One scan reconstructed by many processes: each predicts a part, one merges them to an object.

The network of 'cnn' looks at groups one by one, so that they can be dealt out; the patches of all
parts are added on one canvas.  Parts are files: the processes may run at one time or one after the
other, on machines that share a folder and nothing else.  What follows the network (figures of
quality, refining sweeps) is computed by the process that merges.

Sweeps cannot be dealt out: each batch of patterns improves the object that the next one starts
from, so that parts of a scan would give other objects than the whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychodus_torch_plugin.api import Model, check_size
from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import (
    OnEvent,
    Reconstruction,
    ShouldStop,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.backends.stages import (
    GROUPS_AT_ONCE,
    StageReporter,
    patch_canvas,
    predicted_patches,
    reconstruct,
    shares_patches,
)
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError, ScanFileError
from ptychodus_torch_plugin.files.atomic import atomic_path
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.sharding import Shard
from ptychodus_torch_plugin.stitching import Canvas, CanvasPart
from ptychodus_torch_plugin.training_plan import held_out_indices

ABOUT = 'about'
LARGEST_ABOUT = 2**16
"""Bytes of the text about a part: far more than it has."""


@dataclass(frozen=True)
class ObjectPart:
    """What one process predicted.

    Attributes
    ----------
    identity
        Digest of the model, the scan and the settings: parts of different ones do not go together.
    shard
        Which part of how many.
    canvases
        Sums of the patches of all patterns, and of those that are not held out, if any are.
    """

    identity: str
    shard: Shard
    canvases: tuple[CanvasPart, ...]

    def save(self, path: Path) -> Path:
        """Write the file that `load_part` reads, whole or not at all; return `path`."""
        about = {
            'identity': self.identity,
            'index': self.shard.index,
            'count': self.shard.count,
            'firsts': [part.first for part in self.canvases],
        }
        arrays: dict[str, Any] = {ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}
        for number, part in enumerate(self.canvases):
            arrays |= {f'sum{number}': part.sum, f'total{number}': part.total}
        with atomic_path(path) as temporary, temporary.open('wb') as file:
            np.savez(file, **arrays)
        return path


def load_part(path: Path) -> ObjectPart:
    """Return the part in a file; nothing in it is ever executed.

    Raises
    ------
    InputNotFoundError
        If there is none.
    ScanFileError
        If it is no such file, or cut off.
    """
    if not path.is_file():
        raise InputNotFoundError(f'{path} does not exist; expected a part of an object.')
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as archive:
            about = json.loads(archive[ABOUT][:LARGEST_ABOUT].tobytes())
            canvases = tuple(
                CanvasPart((int(y), int(x)), archive[f'sum{number}'], archive[f'total{number}'])
                for number, (y, x) in enumerate(about['firsts'])
            )
            shard = Shard(int(about['index']), int(about['count']))
            return ObjectPart(str(about['identity']), shard, canvases)
    except Exception as error:
        raise ScanFileError(
            f'{path} cannot be read ({type(error).__name__}: {error}); expected a part of an '
            'object, whole. Predict it again.'
        ) from error


def part_path(folder: Path, shard: Shard) -> Path:
    """Return the file of a part in `folder`; parts are counted from 1 there."""
    return folder / f'part-{shard.index + 1}-of-{shard.count}.npz'


def check_parts(architecture: str) -> None:
    """Raise `ConfigError` unless a scan can be reconstructed in parts."""
    if architecture != 'cnn':
        raise ConfigError(
            f'architecture {architecture!r} reconstructs a scan by sweeps, where each batch of '
            'patterns starts from the object that the one before has left: it cannot be dealt out '
            'to several processes. Use one process with more --threads, a process for each scan, '
            "or a model of architecture 'cnn'."
        )


def predict_part(
    model: Model,
    scan: ScanData,
    shard: Shard,
    inference: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> ObjectPart:
    """Return what the network says of a part of a scan.

    Parameters
    ----------
    model, scan, inference, execution, on_event, should_stop
        As for `api.reconstruct`; the scan is the whole one.
    shard
        Which part of how many: of the groups, in order.

    Raises
    ------
    ConfigError
        If the model works by sweeps.
    InterruptedError
        If `should_stop` answered yes.
    """
    check_parts(model.config.architecture)
    check_size(scan, model.config)
    inference, execution = inference or InferenceConfig(), execution or ExecutionConfig()
    batch_size = execution.inference_batch_size or GROUPS_AT_ONCE
    pools = _pools(scan, inference)
    canvases = [patch_canvas(scan, inference, scan.frame) for _ in pools]
    report = StageReporter(_work(model, pools, batch_size, shard), on_event, should_stop)
    takers = [(canvas, _mask(pool, scan)) for canvas, pool in zip(canvases, pools, strict=True)]
    # A group of one pattern says the same, whoever else is looked at.
    shared = shares_patches(model.config)
    passes = (
        [(pools[0], takers)] if shared else [(p, [t]) for p, t in zip(pools, takers, strict=True)]
    )
    with model.trained.engine(scan, execution) as engine:
        for pool, takers in passes:
            for indices, patches in predicted_patches(
                engine, model.config, scan, inference, pool, batch_size, shard=shard
            ):
                for canvas, wanted in takers:
                    seen = wanted[indices]
                    canvas.add(patches[seen], scan.positions_px[indices[seen]])
                report(len(indices))
    return ObjectPart(
        identity(model, scan, inference), shard, tuple(canvas.part() for canvas in canvases)
    )


def merge_parts(
    model: Model,
    scan: ScanData,
    paths: Sequence[Path],
    inference: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Reconstruction:
    """Return the object of which `paths` are all parts; what `api.reconstruct` makes, but rounding.

    Parameters
    ----------
    model, scan, inference, execution, on_event, should_stop
        As for `predict_part`.
    paths
        Files of all parts, in any order; one is in memory at a time.

    Raises
    ------
    ScanFileError
        If a part belongs to another model, scan or setting, is there twice, or is missing.
    """
    check_parts(model.config.architecture)
    check_size(scan, model.config)
    inference, execution = inference or InferenceConfig(), execution or ExecutionConfig()
    objects = _merged(model, scan, paths, inference)
    with model.trained.engine(scan, execution) as engine:
        return reconstruct(
            engine,
            model.config,
            model.trained.calibration,
            scan,
            inference,
            execution,
            on_event=on_event,
            should_stop=should_stop,
            predicted=objects[0],
            predicted_without=objects[1] if len(objects) > 1 else None,
        )


def identity(model: Model, scan: ScanData, inference: InferenceConfig) -> str:
    """Return a sha256 of all that decides what the network says of a scan.

    Of the patterns it knows number, size and mean counts: a digest of all would take longer than
    a part of them.
    """
    used = {'seed', 'held_out_fraction', 'neighbor_count', 'patch_weighting'}
    calibration = model.trained.calibration
    about = [
        model.config.to_json(),
        inference.model_dump(mode='json', include=used),
        [calibration.mean_counts, scan.mean_counts(), scan.patterns.shape],
        [scan.frame.origin_px, scan.frame.shape],
    ]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    arrays = dict(sorted(model.trained.export_weights().items()))
    dark = () if scan.background is None else (scan.background,)
    for array in (*arrays.values(), calibration.probe, scan.probe, scan.bad_pixels, *dark):
        digest.update(np.ascontiguousarray(array).data)
    digest.update(np.ascontiguousarray(scan.positions_px).data)
    return digest.hexdigest()


def _pools(scan: ScanData, inference: InferenceConfig) -> list[IndexArray]:
    """Return all patterns, and those that are not held out, if any are."""
    everything = np.arange(scan.n_patterns)
    held_out = held_out_indices(scan, inference.held_out_fraction, inference.seed)
    return [everything, np.setdiff1d(everything, held_out)] if len(held_out) else [everything]


def _mask(pool: IndexArray, scan: ScanData) -> BoolArray:
    """Return for each pattern (n,) bool whether it is in a pool."""
    mask = np.zeros(scan.n_patterns, dtype=np.bool_)
    mask[pool] = True
    return mask


def _merged(
    model: Model, scan: ScanData, paths: Sequence[Path], inference: InferenceConfig
) -> list[ComplexArray]:
    """Return the objects (h, w) complex64 that all parts make."""
    wanted = identity(model, scan, inference)
    canvases: list[Canvas] = [
        patch_canvas(scan, inference, scan.frame) for _ in _pools(scan, inference)
    ]
    found: dict[int, Path] = {}
    count = 0
    for path in paths:
        part = load_part(path)
        if part.identity != wanted or len(part.canvases) != len(canvases):
            raise ScanFileError(
                f'{path} was predicted by another model, of another scan, or with other settings; '
                'expected parts of one object. Remove it, and predict this part again.'
            )
        index, count = part.shard.index, count or part.shard.count
        if part.shard.count != count or index in found:
            raise ScanFileError(
                f'{path} is part {index + 1} of {part.shard.count}, but '
                f'{found.get(index) or paths[0]} is one of {count}; expected each of {count} parts '
                'once. Remove what is left of another run.'
            )
        found[index] = path
        for canvas, sums in zip(canvases, part.canvases, strict=True):
            canvas.absorb(sums)
    missing = [str(index + 1) for index in range(count) if index not in found]
    if missing or not found:
        raise ScanFileError(
            f'{len(found)} of {count} parts are there; expected all. Predict part '
            f'{", ".join(missing[:20]) or "1, and all others,"} as well.'
        )
    return [canvas.finish()[0] for canvas in canvases]


def _work(model: Model, pools: Sequence[IndexArray], batch_size: int, shard: Shard) -> int:
    """Return the number of batches of a part."""
    computed = pools[:1] if shares_patches(model.config) else pools
    mine = (len(range(len(pool))[shard.rows(len(pool))]) for pool in computed)
    return sum(-(-n // batch_size) for n in mine)
