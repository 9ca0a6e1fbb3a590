"""What a network learns from, and how it is used afterwards."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ptychodus_torch_plugin.config.model import ModelConfig
from ptychodus_torch_plugin.config.settings import Count, Fraction, Positive, Settings, Weight
from ptychodus_torch_plugin.errors import ConfigError


class TrainingConfig(Settings):
    """What a network learns from; travels in the bundle."""

    objective: Literal['thinned-objects', 'thinned', 'poisson'] | None = None
    """'thinned-objects': the network sees the object of one binomial part of the counts, and is
    compared with that of the other part, so that it cannot learn the noise.  'thinned': it is
    scored by the likelihood of the other part.  'poisson': network and likelihood see all counts.
    None takes 'thinned-objects' for 'unrolled' and 'poisson' for 'cnn'."""
    epochs: Positive = 12
    """Passes over the training patterns: each prepared object ('unrolled') or each group ('cnn')
    is visited about once per pattern."""
    held_out_fraction: Fraction = 0.1
    """Share of the patterns of every scan, spread over it, that is kept for validation."""
    seed: Count = 0
    """Seed of everything random."""

    # 'unrolled'
    patterns_per_step: Positive = 96
    """Most patterns whose likelihood makes one optimiser step."""
    window_px: Positive | None = None
    """Side of the part of the canvas that one step sees; None takes max(2 N, 160)."""
    thinnings: Positive | None = None
    """Independent thinnings of each scan; None takes four for one scan, fewer for many."""
    thinning_fraction: float = Field(0.5, gt=0.0, lt=1.0)
    """Share of the counts that the sweeps see."""
    least_fraction: float | None = Field(None, gt=0.0, lt=1.0)
    """With it the share is drawn anew for each thinning, from `least_fraction` to
    `thinning_fraction`, all orders of magnitude alike: one bright scan teaches all doses below
    it."""

    # 'cnn'
    batch_size: Positive = 16
    """Groups that make one optimiser step."""
    n_groups: Positive | None = None
    """Groups of each scan, those that validate among them; None takes one for each pattern."""
    n_subsample: Positive | None = None
    """Patterns of each scan that training may see at all; None takes all."""
    neighbor_count: Positive | None = None
    """Nearest neighbours K from which a group's other C - 1 patterns are drawn; None takes C."""
    enable_oversampling: bool = False
    """Whether there may be more groups than patterns."""
    sequential_sampling: bool = False
    """Whether groups start from the first patterns in order, not from random ones."""
    nll_weight: Weight | None = None
    """Weight of the Poisson likelihood; None takes 1 for 'pinn', 0 for 'supervised'."""
    mae_weight: Weight = 0.0
    """Weight of the mean absolute error of the amplitudes in the detector."""
    tv_weight: Weight = 0.0
    """Weight of the total variation of the object."""
    realspace_mae_weight: Weight | None = None
    """Weight of the mean absolute error of the patches against the known object; None takes 0 for
    'pinn', 1 for 'supervised'."""
    probe_trainable: bool = False
    """Whether the probe modes are trained as well."""
    intensity_scale_trainable: bool = False
    """Whether the factor between the network's amplitudes and the object's is trained as well."""

    @property
    def thins_counts(self) -> bool:
        """Whether sweeps see a binomial part of the counts; of settings that `for_model` filled."""
        return self.objective != 'poisson'

    @property
    def compares_objects(self) -> bool:
        """Whether the loss compares objects, not patterns; of settings that `for_model` filled."""
        return self.objective == 'thinned-objects'

    @model_validator(mode='after')
    def _check_fractions(self) -> Self:
        if self.least_fraction is not None and self.least_fraction > self.thinning_fraction:
            raise ValueError(
                f'least_fraction = {self.least_fraction} is more than thinning_fraction = '
                f'{self.thinning_fraction}; expected at most as much'
            )
        return self

    @model_validator(mode='after')
    def _check_held_out(self) -> Self:
        if self.held_out_fraction > 0.5:
            raise ValueError(
                f'held_out_fraction = {self.held_out_fraction} keeps most patterns from training; '
                'expected at most 0.5'
            )
        return self

    def for_model(self, model: ModelConfig) -> TrainingConfig:
        """Return the settings with every None filled in that depends on the model.

        Raises
        ------
        ConfigError
            If they contradict the model, or the weights of the losses each other.
        """
        cnn = model.architecture == 'cnn'
        for name in UNROLLED_TRAINING_FIELDS if cnn else CNN_TRAINING_FIELDS:
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value != default:
                family = 'unrolled' if cnn else 'cnn'
                raise ConfigError(
                    f'{name} = {value!r} is a setting of architecture {family!r}, but the model is '
                    f'{model.architecture!r}. Leave it out, or choose architecture {family!r}.'
                )
        if cnn:
            return self._for_cnn(model)
        return self.model_copy(update={'objective': self.objective or 'thinned-objects'})

    def _for_cnn(self, model: ModelConfig) -> TrainingConfig:
        if self.objective not in (None, 'poisson'):
            raise ConfigError(
                f"objective = {self.objective!r} is for architecture 'unrolled', but the model is "
                "'cnn'; expected 'poisson'."
            )
        physical = model.model_type == 'pinn'
        weights = {
            'nll_weight': float(physical) if self.nll_weight is None else self.nll_weight,
            'mae_weight': self.mae_weight,
            'tv_weight': self.tv_weight,
            'realspace_mae_weight': float(not physical)
            if self.realspace_mae_weight is None
            else self.realspace_mae_weight,
        }
        _check_weights(weights, model.model_type)
        return self.model_copy(update={'objective': 'poisson', **weights})


CNN_TRAINING_FIELDS = (
    'batch_size',
    'n_groups',
    'n_subsample',
    'neighbor_count',
    'enable_oversampling',
    'sequential_sampling',
    'nll_weight',
    'mae_weight',
    'tv_weight',
    'realspace_mae_weight',
    'probe_trainable',
    'intensity_scale_trainable',
)
"""Settings of `TrainingConfig` that mean something for 'cnn' alone."""
UNROLLED_TRAINING_FIELDS = (
    'patterns_per_step',
    'window_px',
    'thinnings',
    'thinning_fraction',
    'least_fraction',
)
"""Those that mean something for 'unrolled' alone."""


def _check_weights(weights: dict[str, float], model_type: str) -> None:
    given = ', '.join(f'{name} = {value:g}' for name, value in weights.items())
    in_detector = weights['nll_weight'] + weights['mae_weight']
    if model_type == 'pinn' and in_detector == 0:
        raise ConfigError(
            f"{given}: a 'pinn' model learns from the patterns; expected nll_weight or mae_weight "
            "above 0, or model_type = 'supervised'."
        )
    if model_type == 'supervised' and (in_detector or not weights['realspace_mae_weight']):
        raise ConfigError(
            f"{given}: a 'supervised' model learns from the known object alone; expected "
            "realspace_mae_weight above 0 and nll_weight = mae_weight = 0, or model_type = 'pinn'."
        )


class InferenceConfig(Settings):
    """How a scan is reconstructed."""

    refine: Count | None = None
    """Sweeps after the network; None takes the model's `sweeps_after`."""
    held_out_fraction: float = Field(0.1, ge=0.0, le=0.5)
    """Share of patterns left out of another reconstruction, which measures R on them and tells the
    unrolled network how noisy sweeps are; 0: none."""
    seed: Count = 0
    """Seed of groups, of the order of batches, and of the choice of held-out patterns."""
    neighbor_count: Positive | None = None
    """As in training; for 'cnn' alone."""
    patch_weighting: Literal['probe', 'uniform'] = 'probe'
    """Weight of a patch where patches overlap: the probe's intensity, or 1; for 'cnn' alone."""
