"""What stands for reconstructors whose backend cannot be used: they say why, whatever is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptychodus.api.reconstruct import (
    ReconstructInput,
    Reconstructor,
    ReconstructOutput,
    TrainableReconstructor,
    TrainOutput,
)

from ptychodus_torch_plugin.backends.registry import Availability
from ptychodus_torch_plugin.errors import BackendUnavailableError
from ptychodus_torch_plugin.integration.reconstructor import (
    MODEL_FILTER,
    MODEL_SUFFIX,
    TRAINING_FILTER,
)
from ptychodus_torch_plugin.integration.workshop import GOAL, logger


class UnavailableReconstructor(Reconstructor):
    """Stands for one whose backend cannot be used, and says why."""

    def __init__(self, name: str, availability: Availability) -> None:
        self._name, self._availability = name, availability

    @property
    def name(self) -> str:
        return self._name

    def get_progress_goal(self) -> int:
        return GOAL

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Raise the reason."""
        raise self._reason()

    def _reason(self) -> BackendUnavailableError:
        error = BackendUnavailableError(
            f'{self._name} cannot be used: {reason_of(self._availability)}'
        )
        logger.error('%s', error)
        return error


class UnavailableNetworkReconstructor(UnavailableReconstructor, TrainableReconstructor):
    """Stands for a trainable one: were it not, Ptychodus would train nothing without a word."""

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """Raise the reason, as all that follows."""
        raise self._reason()

    def is_model_loaded(self) -> bool:
        return False

    def get_model_file_filter(self) -> str:
        return MODEL_FILTER

    def load_model_from_file(self, file_path: Path) -> None:
        raise self._reason()

    def get_model_file_extension(self) -> str:
        return MODEL_SUFFIX

    def save_model(self, file_path: Path) -> None:
        raise self._reason()

    def get_training_data_file_filter(self) -> str:
        return TRAINING_FILTER

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> None:
        raise self._reason()


def reason_of(availability: Availability) -> str:
    """Return why a backend cannot be used, and what to do, as one sentence."""
    hint = f' Install it with: {availability.hint}' if availability.hint else ''
    return f'{availability.reason}.{hint}'
