"""Whether the processor has bfloat16, and what is said where it has not."""

import pytest

from ptychodus_torch_plugin.backends import processor
from ptychodus_torch_plugin.config import ExecutionConfig


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n', True),
        ('processor\t: 0\nflags\t\t: fpu amx_bf16\nvmx flags\t: vnmi\n', True),
        ('processor\t: 0\nflags\t\t: fpu avx2 avx512f bf16x\n', False),
        ('processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n', True),
        ('processor\t: 0\nFeatures\t: fp asimd\n', False),
        ('something else', None),
    ],
)
def test_linux_says_whether_there_is_bfloat16(tmp_path, text, expected):
    file = tmp_path / 'cpuinfo'
    file.write_text(text)

    assert processor.has_bfloat16(file) is expected


def test_elsewhere_nobody_knows(tmp_path):
    assert processor.has_bfloat16(tmp_path / 'missing') is None


@pytest.mark.parametrize(
    ('precision', 'known', 'warned'),
    [
        ('bf16-mixed', False, True),
        ('bf16-mixed', True, False),
        ('bf16-mixed', None, False),
        ('32-true', False, False),
    ],
)
def test_a_precision_that_saves_nothing_is_named(monkeypatch, caplog, precision, known, warned):
    monkeypatch.setattr(processor, 'has_bfloat16', lambda: known)
    processor.warn_of_emulation(ExecutionConfig(precision=precision))

    assert ["precision = 'bf16-mixed'" in r.getMessage() for r in caplog.records] == [True] * warned
