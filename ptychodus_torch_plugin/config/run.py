"""One whole run in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptychodus_torch_plugin.config.execution import ExecutionConfig
from ptychodus_torch_plugin.config.model import ModelConfig
from ptychodus_torch_plugin.config.settings import Settings
from ptychodus_torch_plugin.config.training import InferenceConfig, TrainingConfig
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError, OutputError


class RunConfig(Settings):
    """One whole run in one file."""

    backend: str | None = None
    """Name of the backend; None takes the preferred one that is installed."""
    resume_from: str | None = None
    """Bundle of a model to train further, of any backend; None starts from fresh weights."""
    model: ModelConfig = ModelConfig()
    """What is trained."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""
    inference: InferenceConfig = InferenceConfig()
    """How scans are reconstructed."""
    execution: ExecutionConfig = ExecutionConfig()
    """On what."""

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read a .json, .yaml or .yml file."""
        if not path.is_file():
            raise InputNotFoundError(f'{path} does not exist; expected a JSON or YAML run file.')
        return cls.parse(_read_mapping(path), source=str(path))

    def save(self, path: Path) -> None:
        """Write the file that `load` reads; the suffix chooses JSON or YAML."""
        if path.suffix == '.json':
            text = json.dumps(self.to_json(), indent=2) + '\n'
        else:
            import yaml

            text = yaml.safe_dump(self.to_json(), sort_keys=False)
        try:
            path.write_text(text)
        except OSError as error:
            raise OutputError(f'{path} cannot be written: {error}') from error


def _read_mapping(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text()
        values = json.loads(text) if path.suffix == '.json' else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} is not valid JSON or YAML: {error}') from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path} holds a {type(values).__name__}; expected named settings.')
    return values
