"""What is timed: a case yields tasks one by one, each with its inputs, smallest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ptychodus_torch_plugin.benchmarks.cases.arrays import (
    ground_truth,
    grouping,
    preparation,
    stitching,
)
from ptychodus_torch_plugin.benchmarks.cases.networks import bundle, inference, training
from ptychodus_torch_plugin.benchmarks.cases.peers import ptychi
from ptychodus_torch_plugin.benchmarks.cases.reading import reading
from ptychodus_torch_plugin.benchmarks.cases.starting import backend_start, start
from ptychodus_torch_plugin.benchmarks.cases.whole import end_to_end, sweeps
from ptychodus_torch_plugin.benchmarks.context import Context
from ptychodus_torch_plugin.benchmarks.measuring import Measurable


@dataclass(frozen=True)
class Case:
    """A case: what it measures, in words, and whether it is measured for every backend."""

    title: str
    tasks: Callable[[Context], Iterator[Measurable]]
    with_backend: bool = False


CASES = {
    'start': Case('Import, --help and the list of backends, in new processes', start),
    'reading': Case('Reading a scan file', reading),
    'grouping': Case('Groups of neighbouring positions', grouping),
    'preparation': Case('Batches of an epoch: groups and their patterns', preparation),
    'ground-truth': Case('Patches of a known object at the positions', ground_truth),
    'stitching': Case('Patches onto an object', stitching),
    'backend-start': Case('From a new process to a prediction', backend_start, True),
    'training': Case("Training of 'cnn'", training, True),
    'inference': Case("Prediction of 'cnn', batch by batch", inference, True),
    'bundle': Case('Saving and loading a model', bundle, True),
    'sweeps': Case('Whole-scan sweeps', sweeps, True),
    'end-to-end': Case('From a scan file to the file of an object', end_to_end, True),
    'peer-ptychi': Case("pty-chi's engines", ptychi),
}
"""In the order of running."""
