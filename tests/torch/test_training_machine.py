"""What Lightning and PyTorch switch for the whole process, and give back."""

import pytest
import torch

from ptychodus_torch_plugin.backends.registry import get_backend
from ptychodus_torch_plugin.config import ExecutionConfig, InferenceConfig
from ptychodus_torch_plugin.scan import ScanData
from tests.both.inside_pytorch import global_state
from tests.both.quick import EXECUTION, MODEL, TRAINING, PowerCutError, Runs, cut_at


@pytest.fixture(scope='module')
def quick() -> Runs:
    return Runs(get_backend('pytorch'), MODEL, TRAINING, EXECUTION)


@pytest.fixture(scope='module')
def noisy(simulated) -> ScanData:
    return simulated(photons=3e3)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('three_threads')
def test_the_wanted_number_of_threads_is_used_for_a_while(quick, noisy):
    wanted, seen = 1, set()

    def on_event(event):
        seen.add((event.phase, torch.get_num_threads()))

    quick.fit(noisy, epochs=1, num_threads=wanted, options={'on_event': on_event})
    execution = ExecutionConfig(accelerator='cpu', num_threads=wanted)
    quick.build([noisy]).reconstruct(noisy, InferenceConfig(), execution, on_event=on_event)
    assert seen == {(phase, wanted) for phase in ('prepare', 'train', 'reconstruct')}
    assert torch.get_num_threads() == 3


def test_a_reconstruction_leaves_the_generator_alone(quick, noisy):
    before = torch.get_rng_state()
    quick.build([noisy]).reconstruct(noisy, InferenceConfig(), EXECUTION)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('wanted', [True, False])
def test_determinism_is_what_was_asked_for(quick, noisy, wanted):
    seen = set()

    def on_event(event):
        seen.add((event.phase, torch.are_deterministic_algorithms_enabled()))

    quick.fit(noisy, epochs=1, deterministic=wanted, options={'on_event': on_event})
    assert ('train', wanted) in seen
    assert ('train', not wanted) not in seen


@pytest.mark.parametrize('deterministic', [True, False])
def test_the_switches_of_others_are_given_back(quick, noisy, deterministic, monkeypatch):
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    torch.use_deterministic_algorithms(not deterministic, warn_only=True)
    try:
        before = global_state()
        changes = {'deterministic': deterministic, 'num_threads': 1}
        quick.fit(noisy, epochs=1, **changes)
        after = global_state()
        with pytest.raises(PowerCutError):
            quick.fit(noisy, options={'on_event': cut_at(1, 1)}, **changes)
        after_error = global_state()
    finally:
        torch.use_deterministic_algorithms(False)
    assert after == before
    assert after_error == before
