"""Courses of the learning rate, against closed forms and PyTorch's own words."""

import math

import pytest

from ptychodus_torch_plugin.config import ExecutionConfig
from ptychodus_torch_plugin.schedules import learning_rate

PEAK = 0.01


def course(scheduler, n_steps=20, epochs=4, losses=(), **settings):
    execution = ExecutionConfig(learning_rate=PEAK, scheduler=scheduler, **settings)
    return [learning_rate(execution, step, n_steps, epochs, losses) for step in range(n_steps)]


def test_constant():
    assert course('constant') == [PEAK] * 20


def test_one_cycle_is_that_of_smith_and_topin():
    # Of 20 steps 6 rise: the peak is step 5.
    rates = course('one-cycle')
    rising = [
        PEAK / 25 + (PEAK - PEAK / 25) * (1 - math.cos(math.pi * k / 5)) / 2 for k in range(6)
    ]
    last = PEAK / 250_000
    falling = [last + (PEAK - last) * (1 + math.cos(math.pi * k / 14)) / 2 for k in range(15)]
    assert rates == pytest.approx(rising + falling[1:])
    assert rates[-1] == pytest.approx(last)


@pytest.mark.parametrize('n_steps', [1, 2, 3, 4])
def test_a_short_cycle_still_has_its_peak(n_steps):
    rates = course('one-cycle', n_steps=n_steps)
    assert max(rates) == pytest.approx(PEAK)
    assert all(rate > 0 for rate in rates)


def test_warm_up_and_cosine():
    rates = course('warmup-cosine', warmup_epochs=1, min_lr_ratio=0.1)
    assert rates[:5] == pytest.approx([PEAK * k / 6 for k in range(1, 6)])
    expected = [PEAK * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 15)) / 2) for k in range(15)]
    assert rates[5:] == pytest.approx(expected)
    assert course('warmup-cosine', warmup_epochs=0)[0] == PEAK


def test_exponential_falls_with_the_epochs():
    rates = course('exponential', decay=0.5)
    assert rates == pytest.approx([PEAK * 0.5 ** (step // 5) for step in range(20)])


@pytest.mark.parametrize(
    ('losses', 'factor'),
    [
        ([], 1),
        ([3.0, 2.0, 1.0], 1),
        ([1.0, 1.0], 1),  # one epoch is no stall
        ([1.0, 1.0, 2.0], 0.5),
        ([1.0, 0.99995, 1.0], 0.5),  # hardly better is not better
        ([1.0, 1.0, 0.9, 1.0], 1),
        ([1.0] * 5, 0.25),
        ([1.0] * 9, 0.2),  # never below the lowest rate
        ([-1.0, -1.5, -1.0, -1.0], 0.5),
    ],
)
def test_plateau(losses, factor):
    settings = {'plateau_factor': 0.5, 'plateau_patience': 1, 'min_lr_ratio': 0.2}
    assert course('plateau', losses=losses, **settings) == pytest.approx([PEAK * factor] * 20)
    upside_down = course(
        'plateau', losses=[-loss for loss in losses], checkpoint_mode='max', **settings
    )
    assert upside_down == pytest.approx([PEAK * factor] * 20)
