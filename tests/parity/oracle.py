"""What the oracle says of the stored scenes."""

from collections.abc import Callable

import numpy as np

from ptychodus_torch_plugin import physics, stitching
from ptychodus_torch_plugin import sweeps as plain
from ptychodus_torch_plugin.calibration import group_energy, scan_probe
from tests.parity.scenes import PlainScene
from tests.parity.stored import SCHEDULE, SEED, SWEEPS, TERMS, GroupScene

STEP = 1e-6
"""Of finite differences, relative to directions of order one."""


def of_whole_scan(scene: PlainScene) -> dict[str, np.ndarray]:
    """Return intensity, loss, gradients and the outcome of ten sweeps."""
    scan, predicted = scene.scan, scene.predicted()
    by_object, by_probe = scene.gradients()
    state = plain.SweepState(scene.object_.astype(complex), scene.probe.astype(complex))
    plain.sweep_oracle(scan, state, SWEEPS, SCHEDULE, seed=SEED)
    return {
        'intensity': predicted,
        'loss': np.array(
            physics.poisson_loss(predicted, scan.patterns, scan.valid_pixels, scene.mean_count)
        ),
        'gradient_object': by_object,
        'gradient_probe': by_probe,
        'swept_object': state.object_,
        'swept_probe': state.probe,
    }


def of_groups(groups: GroupScene) -> dict[str, np.ndarray]:
    """Return some intensities, each term of the loss, and its slopes."""
    patches, shape = groups.patches.astype(complex), first_shape(groups)
    found = {'seen_counts': predicted_counts(groups, patches, shape)[:, 1, ::2, ::2]}
    for term in TERMS:
        found[term] = np.array(term_of(groups, term, patches, shape))
        found[f'{term}_slopes'] = slopes(
            lambda p, term=term: term_of(groups, term, p, shape), patches, groups.directions
        )
    for term in ('nll', 'mae'):
        found[f'{term}_probe_slopes'] = slopes(
            lambda s, term=term: term_of(groups, term, patches, s), shape, groups.probe_directions
        )
    return found


def slopes(
    loss: Callable[[np.ndarray], float], at: np.ndarray, directions: list[np.ndarray]
) -> np.ndarray:
    return np.array([(loss(at + STEP * d) - loss(at - STEP * d)) / (2 * STEP) for d in directions])


def first_shape(groups: GroupScene) -> np.ndarray:
    """Return the probe (m, N, N) whose largest value is one, which is what is trained."""
    probe = scan_probe(groups.scan, groups.config, groups.calibration)
    return probe / np.abs(probe).max()


def merged(groups: GroupScene, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the patterns see (2, 4, N, N) and the centres of the groups (2, N, N).

    In double precision, unlike `stitching`, for differences as small as `STEP`.
    """
    n_px, side_px = groups.n_px, groups.side_px
    margin = (side_px - n_px) // 2
    line = np.arange(side_px)[:, None] - np.arange(n_px) - margin
    distance = line - groups.offsets_px.astype(float)[..., None, None]
    y, x = np.moveaxis(np.maximum(0, 1 - np.abs(distance)), 2, 0)
    weight = groups.weight.astype(float)
    above, below = (np.sum(y @ each @ transposed(x), axis=1) for each in (weight * patches, weight))
    covered = below > stitching.NEGLIGIBLE_WEIGHT * weight.max()
    canvas = np.where(covered, above / np.where(covered, below, 1), 0)
    inside = slice(margin, margin + n_px)
    return transposed(y) @ canvas[:, None] @ x, canvas[:, inside, inside]


def transposed(matrices: np.ndarray) -> np.ndarray:
    return matrices.swapaxes(-2, -1)


def predicted_counts(groups: GroupScene, patches: np.ndarray, shape: np.ndarray) -> np.ndarray:
    config, scan = groups.config, groups.scan
    first = scan_probe(scan, config, groups.calibration)
    energy = group_energy(first, scan.valid_pixels, config)
    probe = shape * np.sqrt(energy / np.sum(np.abs(shape) ** 2))
    seen, _ = merged(groups, patches)
    waves = physics.shape_exit_waves(
        probe * seen[:, :, None], config.gaussian_smoothing_sigma, masked=config.probe_mask
    )
    return np.asarray(np.sum(np.abs(physics.far_field(waves)) ** 2, axis=2))


def term_of(groups: GroupScene, term: str, patches: np.ndarray, shape: np.ndarray) -> float:
    n_px, scan = groups.n_px, groups.scan
    if term == 'tv':
        return physics.total_variation(merged(groups, patches)[1])
    if term == 'realspace':
        truth = groups.truth.reshape(-1, n_px, n_px)
        return physics.object_error(patches.reshape(truth.shape), truth, groups.weight)
    loss = {'nll': physics.poisson_loss, 'mae': physics.amplitude_error}[term]
    predicted = predicted_counts(groups, patches, shape).reshape(-1, n_px, n_px)
    return loss(predicted, scan.patterns, scan.valid_pixels, groups.mean_count)
