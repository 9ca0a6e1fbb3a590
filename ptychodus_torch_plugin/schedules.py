"""Courses of the learning rate: the same numbers in every backend."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi

from ptychodus_torch_plugin.config import ExecutionConfig

RISE, FIRST_RATIO, LAST_RATIO = 0.3, 1 / 25, 1 / 250_000
"""'one-cycle': share of the steps in which it rises; first and last rate relative to the peak."""

BETTER = 1e-4
"""Share by which a loss must improve to count as better for 'plateau'."""


def learning_rate(
    execution: ExecutionConfig, step: int, n_steps: int, epochs: int, losses: Sequence[float]
) -> float:
    """Return the learning rate of an optimiser step.

    Parameters
    ----------
    execution
        Scheduler and its settings.
    step, n_steps
        The step, counted from 0, and how many the whole training has.
    epochs
        How many epochs the whole training has.
    losses
        Monitored loss of each epoch that was completed.
    """
    match execution.scheduler:
        case 'one-cycle':
            factor = one_cycle(step, n_steps)
        case 'warmup-cosine':
            warmup = n_steps * execution.warmup_epochs // epochs
            factor = warmup_cosine(step, n_steps, warmup, execution.min_lr_ratio)
        case 'exponential':
            factor = execution.decay ** (step * epochs // n_steps)
        case 'plateau':
            factor = plateau(execution, losses)
        case 'constant':
            factor = 1.0
    return execution.learning_rate * factor


def one_cycle(step: int, n_steps: int) -> float:
    """Rise to the peak and fall far below the start, each along half a cosine.

    The course of Smith & Topin, arXiv:1708.07120, as PyTorch's `OneCycleLR` draws it, with the peak
    on a whole step.
    """
    top = max(0, round(RISE * n_steps) - 1)
    if step < top:
        return _cosine(FIRST_RATIO, 1.0, step / top)
    return _cosine(1.0, LAST_RATIO, (step - top) / max(1, n_steps - 1 - top))


def warmup_cosine(step: int, n_steps: int, warmup: int, lowest: float) -> float:
    """Rise along a line in `warmup` steps, fall to `lowest` along half a cosine."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return _cosine(1.0, lowest, (step - warmup) / max(1, n_steps - warmup))


def plateau(execution: ExecutionConfig, losses: Sequence[float]) -> float:
    """Fall by a factor after each `plateau_patience` + 1 epochs without a better loss."""
    sign = 1 if execution.checkpoint_mode == 'min' else -1
    factor, bad, best = 1.0, 0, float('inf')
    for loss in losses:
        if sign * loss < best - BETTER * abs(best) or best == float('inf'):
            best, bad = sign * loss, 0
        else:
            bad += 1
        if bad > execution.plateau_patience:
            factor, bad = max(execution.min_lr_ratio, factor * execution.plateau_factor), 0
    return factor


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + cos(pi * min(1.0, share)))
