"""All settings: frozen, validated, unknown fields refused, JSON or YAML in and out.

`RunConfig` is the whole run in one file.  Settings that describe the model travel in the bundle;
settings that describe the machine (`ExecutionConfig`) never do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError, OutputError
from ptychodus_torch_plugin.scan import MAX_PATTERN_PX, MIN_PATTERN_PX, PATTERN_MULTIPLE_PX

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Damping = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown fields, one clear error."""

    model_config = ConfigDict(frozen=True, extra='forbid', use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Any, *, source: str = 'settings') -> Self:
        """Make settings from plain values; raise `ConfigError` that lists every fault."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = '; '.join(_describe(fault) for fault in error.errors())
            raise ConfigError(f'{source}: {faults}.') from error

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return self.model_dump(mode='json')


def _describe(fault: Any) -> str:
    where = '.'.join(str(part) for part in fault['loc']) or 'settings'
    if fault['type'] == 'extra_forbidden':
        return f'{where} is not a known setting'
    message = str(fault['msg']).removeprefix('Value error, ')
    return f'{where} = {fault["input"]!r}: {message}'


class SweepConfig(Settings):
    """Whole-scan physics sweeps (`specs/model-graph.md`)."""

    damping_start: Damping = 0.1
    """Damping of the first sweep: small is fast, and noisy."""
    damping_end: Damping = 1.0
    """Damping of the last accelerated sweep, reached geometrically: large averages the noise."""
    momentum: Fraction = 0.8
    """Share of the previous sweeps' step that is repeated after each accelerated sweep."""
    settling_sweeps: Count = 3
    """How many of the sweeps, at the end, have no momentum and ever shorter steps."""
    batch_size: Positive = 16
    """Patterns that update the object together."""
    refine_probe: bool = True
    """Whether the probe modes are updated as well, from the second sweep on."""
    probe_modes: Positive | None = None
    """Number of incoherent probe modes; None takes as many as the scan has."""
    probe_damping: Damping = 0.5
    """Damping of the probe update."""
    probe_step: Damping = 0.5
    """Length of the probe update."""
    probe_momentum: Fraction = 0.5
    """Momentum of the probe."""


class ModelConfig(Settings):
    """What a model is; travels in the bundle."""

    architecture: Literal['unrolled', 'none'] = 'unrolled'
    """'unrolled': sweeps, a U-Net on the object's canvas, sweeps.  'none': sweeps alone."""
    N: int = 64
    """Side of a diffraction pattern in pixels."""
    channels: tuple[Positive, ...] = Field((24, 48, 96), min_length=1, max_length=6)
    """Channels of the U-Net per level."""
    sweeps_before: Positive = 20
    """Sweeps before the network (all of them, for 'none')."""
    sweeps_after: Count = 3
    """Sweeps after the network; `refine` overrides it at reconstruction."""
    sweeps: SweepConfig = SweepConfig()
    """How a sweep works."""

    @model_validator(mode='after')
    def _check_n(self) -> Self:
        if self.N % PATTERN_MULTIPLE_PX or not MIN_PATTERN_PX <= self.N <= MAX_PATTERN_PX:
            raise ValueError(
                f'N = {self.N} is not supported; expected a multiple of {PATTERN_MULTIPLE_PX} '
                f'from {MIN_PATTERN_PX} to {MAX_PATTERN_PX}'
            )
        return self


class TrainingConfig(Settings):
    """How a network is trained."""

    objective: Literal['thinned', 'poisson'] = 'thinned'
    """'thinned': sweeps see one binomial part of the counts, the loss the other, so that the
    network cannot learn the noise.  'poisson': both see all counts."""
    epochs: Positive = 12
    """Passes in which every training pattern is scored about once per prepared object."""
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Peak rate of Adam."""
    scheduler: Literal['one-cycle', 'constant'] = 'one-cycle'
    """Course of the learning rate."""
    patterns_per_step: Positive = 96
    """Most patterns whose likelihood makes one optimiser step."""
    window_px: Positive | None = None
    """Side of the part of the canvas that one step sees; None takes max(2 N, 160)."""
    thinnings: Positive | None = None
    """Independent thinnings of each scan; None takes four for one scan, fewer for many."""
    thinning_fraction: float = Field(0.5, gt=0.0, lt=1.0)
    """Share of the counts that the sweeps see."""
    held_out_fraction: Fraction = 0.1
    """Share of the patterns of every scan, spread over it, that is kept for validation."""
    gradient_clip: float | None = Field(1.0, gt=0.0)
    """Largest norm of a gradient; None does not clip."""
    patience: Positive = 100
    """Epochs without a better validation loss before training stops."""
    seed: Count = 0
    """Seed of everything random."""

    @model_validator(mode='after')
    def _check_held_out(self) -> Self:
        if self.held_out_fraction > 0.5:
            raise ValueError(
                f'held_out_fraction = {self.held_out_fraction} keeps most patterns from training; '
                'expected at most 0.5'
            )
        return self


class InferenceConfig(Settings):
    """How a scan is reconstructed."""

    refine: Count | None = None
    """Sweeps after the network; None takes the model's `sweeps_after`."""
    held_out_fraction: float = Field(0.1, ge=0.0, le=0.5)
    """Share of patterns left out of a second reconstruction that measures R on them; 0: none."""
    seed: Count = 0
    """Seed of the order of batches and of the choice of held-out patterns."""


class ExecutionConfig(Settings):
    """Where and how fast; never part of a model."""

    accelerator: Literal['auto', 'cpu', 'gpu', 'cuda', 'mps'] = 'auto'
    """Device kind; 'auto' takes the best that works."""
    precision: Literal['32-true', 'bf16-mixed'] = '32-true'
    """Precision of the network; the physics is always 32-bit."""
    deterministic: bool = False
    """Refuse operations whose result depends on timing."""
    num_threads: Positive | None = None
    """CPU threads; None leaves the framework's own choice."""
    checkpoints: bool = True
    """Write a checkpoint after every epoch, from which training resumes."""


class RunConfig(Settings):
    """One whole run in one file."""

    backend: str | None = None
    """Name of the backend; None takes the preferred one that is installed."""
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
