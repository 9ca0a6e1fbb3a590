"""How good an object is: against a truth, a reference, or its own other half, and on the patterns.

`evaluate` measures what is there already, whoever made it; `evaluate_halves` reconstructs a scan
from two halves of its patterns and compares them, which needs no truth.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ptychodus_torch_plugin.alignment import align
from ptychodus_torch_plugin.api import Model, reconstruct
from ptychodus_torch_plugin.arrays import BoolArray, ComplexArray, IndexArray
from ptychodus_torch_plugin.backends.protocol import (
    OnEvent,
    Reconstruction,
    ShouldStop,
    ignore_event,
    never_stop,
)
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig
from ptychodus_torch_plugin.errors import ConfigError, ScanValueError
from ptychodus_torch_plugin.exposures import Exposures
from ptychodus_torch_plugin.metrics import ObjectMetrics, compare_aligned, compare_objects
from ptychodus_torch_plugin.placed_objects import (
    Fit,
    PlacedObject,
    common_part,
    object_of_scan,
    offset_px,
    place,
    positions_on,
    reconstructed_object,
    region_of_probe,
    true_object,
)
from ptychodus_torch_plugin.r_factors import RFactors, r_factors
from ptychodus_torch_plugin.scan import ScanData
from ptychodus_torch_plugin.training_plan import held_out_indices

ComparedWith = Literal['truth', 'reference', 'half']
OneObject = str | Path | PlacedObject

HALVES_SEED = 0
"""The same for everybody, so that halves made on their own fit together."""

SAME_PLACE_PX = 0.5
"""Positions of one pattern in two products may differ by this much, for they may be refined."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; `None` stands for what was not asked for.

    Attributes
    ----------
    name
        What was evaluated.
    compared_with
        'truth', 'reference' or 'half'.
    metrics
        How far apart the objects are, after removing what nobody can know.  Of halves they say how
        well the two agree, not how true they are.
    patterns_in_both
        Of halves: how many patterns are in both products, which should be none; `None` also where
        the files do not say.
    r
        How well object and probe explain the patterns of a scan.
    object_, reference : (h, w) complex64
        The common part of both, the object aligned to the reference.
    region : (h, w) bool
        Where they were compared.
    pixel_size_m
        [height, width] of a pixel in metres, if known.
    """

    name: str
    compared_with: ComparedWith | None = None
    metrics: ObjectMetrics | None = None
    patterns_in_both: int | None = None
    r: RFactors | None = None
    object_: ComplexArray | None = None
    reference: ComplexArray | None = None
    region: BoolArray | None = None
    pixel_size_m: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON, and the Fourier ring correlation as 'frc'."""
        found: dict[str, Any] = {'compared_with': self.compared_with}
        if self.metrics is not None:
            found |= {**self.metrics.as_dict(), 'frc': self.metrics.frc.as_dict()}
        if self.compared_with == 'half':
            found['patterns_in_both'] = self.patterns_in_both
        if self.r is not None:
            found['r'] = self.r.as_dict()
        return found

    def draw(self, path: str | Path, *, title: str | None = None) -> None:
        """Draw both objects, their differences and the ring correlation as the PNG file `path`.

        Raises
        ------
        ConfigError
            If there was nothing to compare with.
        OutputError
            If the file cannot be written.
        """
        from ptychodus_torch_plugin.evaluation_picture import draw_evaluation

        if self.metrics is None or self.compared_with is None:
            raise ConfigError(
                f'{self.name} was compared with no other object, so that there is no difference to '
                'draw; expected a truth, a reference or a half.'
            )
        assert self.object_ is not None
        assert self.reference is not None
        assert self.region is not None
        draw_evaluation(
            path,
            self.object_,
            self.reference,
            self.region,
            self.metrics,
            compared_with='other half' if self.compared_with == 'half' else self.compared_with,
            pixel_size_m=self.pixel_size_m,
            title=title or self.name,
        )


def evaluate(
    found: OneObject | Reconstruction,
    *,
    truth: OneObject | ScanData | None = None,
    reference: OneObject | ScanData | None = None,
    half: OneObject | None = None,
    scan: ScanData | None = None,
) -> Evaluation:
    """Measure an object against another one, and on the patterns of a scan.

    Objects are laid on one another by their place on the sample and compared where the beam has
    been in both, after `align` has removed a complex factor, a phase ramp and a shift.

    Parameters
    ----------
    found
        A product (object.h5), an object.npz, or what `reconstruct` returned, with its scan.
    truth
        Scan file or scan with the true object, or a product; taken to be without noise.
    reference
        The same, of an object that is not the truth but is taken for it.
    half
        Object of the other half of the data: noise is in both, and the resolution by Fourier ring
        correlation is that of all data together.  At most one of these three.
    scan
        Patterns to measure R on: those that the product lists were fitted, others held out.

    Raises
    ------
    ConfigError
        If nothing was asked for, or more than one object to compare with.
    PluginError
        A subclass per defect of the files; `ScanValueError` if objects do not overlap.
    """
    others = {'truth': truth, 'reference': reference, 'half': half}
    given = [name for name, other in others.items() if other is not None]
    if len(given) > 1 or (not given and scan is None):
        raise ConfigError(
            f'an object is to be evaluated by {" and ".join(given) or "nothing"}; expected one of '
            'truth, reference and half, or a scan, or both.'
        )
    ours = _ours(found, scan)
    result = Evaluation(ours.name, pixel_size_m=ours.pixel_size_m)
    if half is not None:
        result = _compared(ours, _ours(half, None), 'half')
    elif truth is not None:
        result = _compared(ours, _known(truth), 'truth')
    elif reference is not None:
        result = _compared(ours, _known(reference), 'reference')
    return result if scan is None else replace(result, r=r_on_scan(ours, scan))


def evaluate_halves(
    model: Model,
    scan: ScanData,
    inference: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    *,
    on_event: OnEvent = ignore_event,
    should_stop: ShouldStop = never_stop,
) -> Evaluation:
    """Reconstruct a scan from two halves of its patterns and compare them.

    No pattern is in both halves (see `halves`), and neither is its noise; what agrees is signal,
    or an error that both make: a wrong probe or position, or what a network invents.  Each half has
    half the overlap, too, so that it may be worse than its share of the photons explains.  R is
    that of the first half's object, the other half being held out.

    Parameters and errors are those of `reconstruct`; nothing else is held out.
    """
    warn_of_training(model, scan)
    settings = (inference or InferenceConfig()).model_copy(update={'held_out_fraction': 0.0})
    placed = []
    for rows in halves(scan):
        part = scan.subset(rows)
        result = reconstruct(
            model, part, settings, execution, on_event=on_event, should_stop=should_stop
        )
        placed.append(place_reconstruction(part, result))
    first, second = placed
    return replace(_compared(first, second, 'half'), r=r_on_scan(first, scan))


def halves(scan: ScanData) -> tuple[IndexArray, IndexArray]:
    """Return the sorted indices (k,) int64 of two halves, both spread over the whole scan.

    Of two neighbours one goes to each, drawn by a fixed seed: the halves of a scan are always the
    same, and no regular half of a raster.
    """
    if scan.n_patterns < 2:
        raise ScanValueError(f'{scan.name} has one pattern; expected two or more to make halves.')
    first = held_out_indices(scan, 0.5, HALVES_SEED)
    return first, np.setdiff1d(np.arange(scan.n_patterns), first)


def warn_of_training(model: Model, scan: ScanData) -> bool:
    """Return whether a model was trained on a scan whose halves are compared; warn if it was."""
    seen = bool(model.history) and model.was_trained_on(scan)
    if seen:
        logger.warning(
            'the model was trained on %s, on both halves of it: what it learnt of their noise is '
            'in both objects, so that their agreement flatters it. Train it on other scans.',
            scan.name,
        )
    return seen


def place_reconstruction(scan: ScanData, result: Reconstruction) -> PlacedObject:
    """Return what `reconstruct` made of a scan, to be given to `evaluate`."""
    found = result.exposures or Exposures.of(scan.positions_px)
    fit = Fit(
        result.probe,
        found.positions_px - np.asarray(result.frame.origin_px),
        scan.numbers,
        np.asarray(found.intensities, np.float64) if np.any(found.intensities != 1) else None,
    )
    return place(scan, result.frame, region_of(scan, result), result.object_, fit)


def region_of(scan: ScanData, result: Reconstruction) -> BoolArray:
    """Return (h, w) bool: where the beam of a reconstruction has been."""
    return region_of_probe(result.frame, scan.positions_px, result.probe)


def compare_stages(
    scan: ScanData, result: Reconstruction, region: BoolArray, truth: PlacedObject
) -> dict[str, ObjectMetrics]:
    """Compare the object of each stage with the truth."""
    found = {}
    for stage, object_ in result.stages.items():
        placed = place(scan, result.frame, region, object_)
        pixel_size_m = placed.pixel_size_m or truth.pixel_size_m
        found[stage] = compare_objects(*common_part(placed, truth), pixel_size_m=pixel_size_m)
    return found


def r_on_scan(placed: PlacedObject, scan: ScanData) -> RFactors:
    """Return R of a placed object and its probe on a scan, fitted patterns and others apart.

    Fitted patterns are predicted at the positions that belong to the object, others where the scan
    says.  Where the intensity was found for each pattern, those of others follow from their totals.

    Raises
    ------
    ConfigError
        If the probe is not known.
    ScanValueError
        If the object is not one of this scan.
    """
    fit = placed.fit
    if fit is None:
        raise ConfigError(
            f'{placed.name} holds no probe to predict patterns with; expected a product, such as '
            'the object.h5 that stands beside an object.npz.'
        )
    positions = positions_on(placed, scan)
    order = np.argsort(scan.numbers, kind='stable')
    rows = order[np.searchsorted(scan.numbers[order], fit.indexes).clip(max=scan.n_patterns - 1)]
    strange = scan.numbers[rows] != fit.indexes
    far = np.zeros(len(rows), dtype=np.bool_)
    if not strange.any():
        far = np.abs(positions[rows] - fit.positions_px).max(axis=1) > scan.n_px / 4
    if strange.any() or far.any():
        raise ScanValueError(
            f'{placed.name} does not belong to {scan.name}: {np.count_nonzero(strange | far)} of '
            f'its {len(rows)} positions lie elsewhere than the patterns that they name, of '
            f'which there are {scan.n_patterns}; expected the whole scan that it was made from.'
        )
    positions[rows] = fit.positions_px
    fitted = np.zeros(scan.n_patterns, dtype=np.bool_)
    fitted[rows] = True
    intensities = None
    if fit.intensities is not None:
        intensities = np.full(scan.n_patterns, np.nan)
        intensities[rows] = fit.intensities
    return r_factors(placed.object_, fit.probe, positions, scan, fitted, intensities)


def _ours(found: OneObject | Reconstruction, scan: ScanData | None) -> PlacedObject:
    if isinstance(found, PlacedObject):
        return found
    if not isinstance(found, Reconstruction):
        return reconstructed_object(Path(found))
    if scan is None:
        raise ConfigError(
            'a reconstruction does not say where it lies on the sample; expected its scan, too.'
        )
    return place_reconstruction(scan, found)


def _known(other: OneObject | ScanData) -> PlacedObject:
    if isinstance(other, PlacedObject):
        return other
    if isinstance(other, ScanData):
        return object_of_scan(other, other.name)
    return true_object(Path(other))


def _compared(ours: PlacedObject, theirs: PlacedObject, what: ComparedWith) -> Evaluation:
    object_, reference, region = common_part(ours, theirs)
    pixel_size_m = ours.pixel_size_m or theirs.pixel_size_m
    aligned = align(object_, reference, region)
    metrics = compare_aligned(
        aligned,
        reference,
        region,
        pixel_size_m=pixel_size_m,
        criterion='halves' if what == 'half' else 'noise-free',
    )
    return Evaluation(
        ours.name,
        what,
        metrics,
        patterns_in_both=_shared(ours, theirs) if what == 'half' else None,
        object_=aligned.object_,
        reference=reference,
        region=region,
        pixel_size_m=pixel_size_m,
    )


def _shared(a: PlacedObject, b: PlacedObject) -> int | None:
    """Return how many patterns two objects were both made from; warn if there are any."""
    if a.fit is None or b.fit is None:
        return None
    _, of_a, of_b = np.intersect1d(a.fit.indexes, b.fit.indexes, return_indices=True)
    apart = a.fit.positions_px[of_a] - b.fit.positions_px[of_b] - offset_px(a, b)
    count = int(np.count_nonzero((np.abs(apart) < SAME_PLACE_PX).all(axis=1)))
    if count:
        logger.warning(
            '%s and %s both list %d patterns of one number and place. If these are the same '
            'measurements, their noise is in both objects, and the Fourier ring correlation says '
            'nothing. Make halves by infer --half.',
            a.name,
            b.name,
            count,
        )
    return count
