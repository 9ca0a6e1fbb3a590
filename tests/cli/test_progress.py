"""Progress: lines for logs, bars for terminals."""

import io
import math
import sys
import time

import pytest

from ptychodus_torch_plugin.backends.protocol import Progress
from ptychodus_torch_plugin.cli import progress
from ptychodus_torch_plugin.cli.progress import progress_display

STEP = Progress(
    'train',
    done=30,
    total=120,
    epoch=3,
    epochs=12,
    loss=0.83214,
    validation_loss=0.91,
    patterns_per_s=5213.4,
    remaining_s=71.6,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    return now


def test_a_line_tells_everything(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', stderr)
    with progress_display() as display:
        display(STEP)
    assert stderr.getvalue() == (
        'Training: epoch 3/12, 25 %, loss 0.8321 (validation 0.91), 5213 patterns/s, 1:12 left\n'
    )


def test_what_is_not_known_is_not_told(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', stderr)
    with progress_display() as display:
        display(Progress('prepare', 1, 8, remaining_s=math.nan))
    assert stderr.getvalue() == 'Preparing: 12 %\n'


def test_lines_are_rare(monkeypatch, clock):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', stderr)
    with progress_display() as display:
        for done in range(1, 101):
            display(Progress('reconstruct', done, 100))
            clock[0] += 1.0
    percents = [int(line.split()[1]) for line in stderr.getvalue().splitlines()]
    assert percents == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]


@pytest.mark.parametrize('stderr', [io.StringIO(), Terminal()], ids=['file', 'terminal'])
def test_quiet_shows_nothing(monkeypatch, stderr):
    monkeypatch.setattr(sys, 'stderr', stderr)
    with progress_display(quiet=True) as display:
        with display.busy('Reading'):
            display(STEP)
        display.count('Simulating', 1, 2)
        display.say('a remark')
    assert stderr.getvalue() == ''


@pytest.mark.parametrize('columns', [80, 120])
def test_a_bar_fits_its_terminal(monkeypatch, columns):
    stderr = Terminal()
    monkeypatch.setattr(sys, 'stderr', stderr)
    monkeypatch.setenv('COLUMNS', str(columns))
    monkeypatch.setenv('TERM', 'xterm')
    with progress_display() as display:
        with display.busy('Reading'):
            pass
        display.count('Simulating', 1, 2)
        display(STEP)
        display.say('a remark')
    shown = stderr.getvalue()
    for part in ('Epoch 3/12', 'loss 0.8321 (validation 0.91)', '5213 patterns/s', '1:12 left'):
        assert part in shown
    assert 'Reading' in shown
    assert '1/2' in shown
    assert 'a remark' in shown


def test_every_phase_of_the_protocol_has_a_name():
    from typing import get_args, get_type_hints

    assert set(progress.PHASES) == set(get_args(get_type_hints(Progress)['phase']))
