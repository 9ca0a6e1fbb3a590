"""Mutations that `tests/parity/mutations.py` tries out still fit the code."""

from pathlib import Path

import pytest

from tests.parity.mutants_processor import PROCESSOR
from tests.parity.mutants_tensorflow import TENSORFLOW
from tests.parity.mutants_torch import TORCH

BACKENDS = Path(__file__).parents[2] / 'ptychodus_torch_plugin/backends'


@pytest.mark.parametrize(
    'mutant', [*TORCH, *TENSORFLOW, *PROCESSOR], ids=lambda m: f'{m.backend}: {m.name}'
)
def test_a_mutation_changes_the_code(mutant):
    source = (BACKENDS / mutant.backend / mutant.file).read_text()
    assert mutant.applied_to(source) != source
