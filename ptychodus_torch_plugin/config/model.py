"""What a model is."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ptychodus_torch_plugin.config.settings import Count, Damping, Fraction, Positive, Settings
from ptychodus_torch_plugin.scan import MAX_PATTERN_PX, MIN_PATTERN_PX, PATTERN_MULTIPLE_PX


class SweepConfig(Settings):
    """Whole-scan physics sweeps (`specs/model-graph.md`)."""

    damping_start: Damping = 0.05
    """Damping of the first sweep: small is fast, and noisy."""
    damping_end: Damping = 1.0
    """Damping of the last accelerated sweep, reached geometrically: large averages the noise."""
    momentum: Fraction = 0.8
    """Share of the previous sweeps' step that is repeated after each accelerated sweep."""
    deflection_gain: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """How much of the slow phase by which the patterns' deflections are explained is put into the
    object after each accelerated sweep; 0: none."""
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
    probe_step: Damping = 1.0
    """Length of the probe update."""
    probe_momentum: Fraction = 0.8
    """Momentum of the probe."""
    refine_intensity: bool = False
    """Whether the intensity of the beam is found for each pattern."""
    refine_positions: bool = False
    """Whether the position of each pattern is corrected, by 3 px at most along each axis."""


class ModelConfig(Settings):
    """What a model is; travels in the bundle."""

    architecture: Literal['unrolled', 'cnn', 'none'] = 'unrolled'
    """'unrolled': sweeps, a U-Net on the object's canvas, sweeps.  'cnn': PtychoPINN's network,
    from groups of patterns to patches of the object.  'none': sweeps alone."""
    N: int = 64
    """Side of a diffraction pattern in pixels."""
    sweeps: SweepConfig = SweepConfig()
    """How a sweep works."""
    sweeps_after: Count = 0
    """Sweeps after the network; `refine` overrides it."""

    # 'unrolled' and 'none'
    sweeps_before: Positive | None = None
    """Sweeps before the network (all of them, for 'none'); None takes 20 to 80, the more the fewer
    patterns there are or the less they overlap (`visiting.sweeps_before`)."""
    channels: tuple[Positive, ...] = Field((24, 48, 96), min_length=1, max_length=6)
    """Channels of the U-Net per level."""

    # 'cnn'
    gridsize: Annotated[int, Field(ge=1, le=8)] = 1
    """A group has C = gridsize^2 patterns; the only setting that decides C."""
    model_type: Literal['pinn', 'supervised'] = 'pinn'
    """'pinn': trained by physics, without labels.  'supervised': against a known object."""
    n_filters_scale: Annotated[int, Field(ge=1, le=16)] = 2
    """Factor on the number of filters of every layer."""
    amp_activation: Literal['sigmoid', 'swish', 'softplus', 'relu'] = 'sigmoid'
    """Activation of the amplitude."""
    object_big: bool = True
    """Whether every pattern of a group has a patch of its own, merged by their overlap; otherwise
    one patch at the group's centre serves them all."""
    probe_big: bool = True
    """Whether the patch reaches beyond its central half."""
    pad_object: bool = True
    """Whether the outer part of the patch has layers of its own; otherwise one set makes it all."""
    probe_mask: bool = False
    """Whether the exit wave is cut off outside a disc of diameter N / 2."""
    gaussian_smoothing_sigma: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Sigma in pixels of a 3 x 3 Gaussian filter of the exit wave; 0: none."""
    cbam_encoder: bool = False
    """Whether each level of the encoder weighs its channels and pixels before pooling (CBAM)."""
    outer_channels: Positive = 4
    """Channels at the end of a decoder that make the outer part of the patch; with `pad_object`."""
    border_filters: Positive | None = None
    """Filters of the layers at the full side N; None: n_filters_scale * 2048 / N."""
    input_scaling: Literal['training', 'scan'] = 'training'
    """What the input is normalised by: the mean counts of the training scans, or, as PtychoPINN
    does, those of whichever scan is looked at."""

    @model_validator(mode='after')
    def _check_n(self) -> Self:
        if self.N % PATTERN_MULTIPLE_PX or not MIN_PATTERN_PX <= self.N <= MAX_PATTERN_PX:
            raise ValueError(
                f'N = {self.N} is not supported; expected a multiple of {PATTERN_MULTIPLE_PX} '
                f'from {MIN_PATTERN_PX} to {MAX_PATTERN_PX}'
            )
        if self.architecture == 'cnn' and self.N not in CNN_SIZES_PX:
            raise ValueError(
                f"N = {self.N} is not supported by architecture 'cnn'; expected one of "
                f"{CNN_SIZES_PX}, or architecture 'unrolled'"
            )
        return self

    @model_validator(mode='after')
    def _check_filters(self) -> Self:
        if self.architecture != 'cnn':
            return self
        channels, fewest = 32 * self.n_filters_scale, 2048 // self.N * self.n_filters_scale
        if self.outer_channels >= channels:
            raise ValueError(
                f'outer_channels = {self.outer_channels} leaves none for the centre of the patch; '
                f'expected fewer than n_filters_scale * 32 = {channels}'
            )
        if self.cbam_encoder and fewest < CBAM_REDUCTION:
            raise ValueError(
                f'cbam_encoder squeezes {CBAM_REDUCTION} channels into one, but the first level of '
                f'the encoder has {fewest}; expected n_filters_scale = 2 or more for N = {self.N}'
            )
        return self

    @model_validator(mode='after')
    def _check_family(self) -> Self:
        cnn = self.architecture == 'cnn'
        for name in UNROLLED_FIELDS if cnn else CNN_FIELDS:
            value, default = getattr(self, name), type(self).model_fields[name].default
            # Files of 'cnn' models once had the number that was the default then.
            once = (FEWEST_SWEEPS,) if name == 'sweeps_before' else ()
            if value not in (default, *once):
                family = 'unrolled' if cnn else 'cnn'
                raise ValueError(
                    f'{name} = {value!r} is a setting of architecture {family!r}, but the '
                    f'architecture is {self.architecture!r}; expected {name} = {default!r}, or '
                    f'architecture {family!r}'
                )
        return self

    @property
    def patterns_per_group(self) -> int:
        """C = gridsize^2."""
        return self.gridsize**2


FEWEST_SWEEPS, MOST_SWEEPS = 20, 80
"""How many sweeps before the network there are at least and at most, where nobody says a number."""

CNN_SIZES_PX = (64, 128, 256)
CBAM_REDUCTION = 16
"""Channels of a level of the encoder for each one in the middle of its channel gate."""
CNN_FIELDS = (
    'gridsize',
    'model_type',
    'n_filters_scale',
    'amp_activation',
    'object_big',
    'probe_big',
    'pad_object',
    'probe_mask',
    'gaussian_smoothing_sigma',
    'cbam_encoder',
    'outer_channels',
    'border_filters',
    'input_scaling',
)
"""Settings of `ModelConfig` that mean something for 'cnn' alone."""
UNROLLED_FIELDS = ('sweeps_before', 'channels')
"""Those that mean nothing for 'cnn'."""
