"""The settings that a user meets in Ptychodus: each is named here, and only here.

Kind, range, choices, default and explanation are those of the settings of `config` (`described`);
Ptychodus' parameters (`settings`) and the widgets of the panel (`panel`) are both made from these
entries.

A setting that may be left to the program is 'automatic': that word where there are choices, and
otherwise one below the least number (0 where numbers begin at 1, -1 where they begin at 0).  The
side N of the patterns and the photons are no settings: they come with the data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ptychodus_torch_plugin.integration.described import described

AUTOMATIC = 'automatic'
GROUPS = ('Model', 'Training', 'Inference', 'Execution')
MODEL, TRAINING, INFERENCE, EXECUTION = GROUPS

ARCHITECTURE, MODEL_TYPE = 'model.architecture', 'model.model_type'
"""The settings that decide which others mean something."""

LOGGER = 'execution.logger_backend'
"""Of the training alone, although it stands among the settings of execution."""

LARGEST_INTEGER = 2**31 - 1
"""The largest number that a spin box holds."""


@dataclass(frozen=True)
class Entry:
    """One setting of the panel and of the settings file.

    Attributes
    ----------
    group
        Part of the panel, and with it section of the settings file.
    path
        Name in `RunConfig`, and in messages.
    key
        Name in the settings file, in Ptychodus' style.
    label
        Name in the panel, with its unit.
    own_default, own_maximum
        Stand for those of the settings class.
    """

    group: str
    path: str
    key: str
    label: str
    own_default: float | str | None = None
    own_maximum: float | None = None

    @property
    def section(self) -> str:
        """Name of the section of the settings file."""
        return f'PINN{self.group}'

    @property
    def kind(self) -> str:
        """'boolean', 'integer', 'number', or 'string' (one of `choices`)."""
        return str(self._schema['type'])

    @property
    def automatic(self) -> Any:
        """What stands for 'automatic'; None if the setting always has a value."""
        if self.own_default is not None or 'anyOf' not in self._schema:
            return None
        return AUTOMATIC if self.kind == 'string' else self._schema['minimum'] - 1

    @property
    def default(self) -> Any:
        """Value as long as the user chooses none."""
        if self.own_default is not None:
            return self.own_default
        return self._schema['default'] if self.automatic is None else self.automatic

    @property
    def choices(self) -> tuple[str, ...]:
        """Values of a string, 'automatic' among them."""
        automatic = () if self.automatic is None else (AUTOMATIC,)
        return (*automatic, *self._schema.get('enum', ()))

    @property
    def minimum(self) -> Any:
        """Least number, 'automatic' among them."""
        return self._least if self.automatic is None else self.automatic

    @property
    def maximum(self) -> Any:
        """Largest number; None: there is none."""
        if self.own_maximum is not None:
            return self.own_maximum
        return self._schema.get('maximum', LARGEST_INTEGER if self.kind == 'integer' else None)

    @property
    def explanation(self) -> str:
        """What it is, on one line."""
        text = ' '.join(str(self._schema['description']).split())
        if self.automatic is None:
            return re.sub(r'; None [^.]*', '', text)
        return re.sub(r'\bNone\b', f"'{AUTOMATIC}'", text)

    @property
    def range(self) -> str:
        """Default and numbers that it takes, in words."""
        default = AUTOMATIC if self.default == self.automatic else self.default
        if self.kind == 'boolean':
            default = 'on' if self.default else 'off'
        if self.kind not in ('integer', 'number'):
            return f'Default: {default}.'
        bounded = self.maximum not in (None, LARGEST_INTEGER)
        least = f'{self._least:g}' if 'minimum' in self._schema else f'above {self._least:g}'
        numbers = f'{least} to {self.maximum:g}' if bounded else f'{least} or more'
        left = '' if self.automatic is None else f', or {self.automatic} for {AUTOMATIC}'
        return f'Default: {default}. Range: {numbers}{left}.'

    @property
    def _least(self) -> Any:
        """Least number, 'automatic' not among them; excluded ones are refused when it runs."""
        return self._schema.get('minimum', self._schema.get('exclusiveMinimum'))

    @property
    def families(self) -> tuple[str, ...] | None:
        """Families of networks for which it means something; None: all."""
        found = self._schema.get('families')
        return None if found is None else tuple(found)

    @property
    def _schema(self) -> dict[str, Any]:
        return described()[self.path]


BASIC = (
    Entry(MODEL, ARCHITECTURE, 'Architecture', 'Network Family'),
    Entry(MODEL, 'model.gridsize', 'GridSize', 'Grid Size'),
    Entry(MODEL, 'model.sweeps_before', 'NumSweepsBefore', 'Sweeps Before'),
    Entry(MODEL, 'model.sweeps_after', 'NumSweepsAfter', 'Sweeps After'),
    Entry(MODEL, 'model.sweeps.refine_probe', 'RefineProbe', 'Refine Probe'),
    Entry(MODEL, 'model.sweeps.probe_modes', 'NumProbeModes', 'Probe Modes'),
    Entry(TRAINING, 'training.objective', 'Objective', 'Objective'),
    Entry(TRAINING, 'training.epochs', 'NumEpochs', 'Epochs'),
    Entry(TRAINING, 'training.batch_size', 'BatchSize', 'Batch Size [groups]'),
    Entry(TRAINING, 'execution.learning_rate', 'LearningRate', 'Learning Rate'),
    Entry(
        TRAINING,
        'training.held_out_fraction',
        'HeldOutFraction',
        'Held-Out Fraction',
        own_maximum=0.5,
    ),
    Entry(INFERENCE, 'inference.refine', 'NumRefiningSweeps', 'Refining Sweeps'),
    Entry(INFERENCE, 'inference.held_out_fraction', 'HeldOutFraction', 'Held-Out Fraction'),
    Entry(EXECUTION, 'execution.accelerator', 'Accelerator', 'Accelerator'),
)
"""Settings that most users look at, in the order of the panel."""

ADVANCED = (
    Entry(MODEL, 'model.sweeps.batch_size', 'SweepBatchSize', 'Sweep Batch Size'),
    Entry(MODEL, 'model.sweeps.refine_intensity', 'RefineIntensity', 'Refine Intensity'),
    Entry(MODEL, 'model.sweeps.refine_positions', 'RefinePositions', 'Refine Positions'),
    Entry(MODEL, MODEL_TYPE, 'ModelType', 'Model Type'),
    Entry(MODEL, 'model.n_filters_scale', 'NumFiltersScale', 'Filters Scale'),
    Entry(MODEL, 'model.amp_activation', 'AmpActivation', 'Amplitude Activation'),
    Entry(MODEL, 'model.object_big', 'ObjectBig', 'Object Big'),
    Entry(MODEL, 'model.probe_big', 'ProbeBig', 'Probe Big'),
    Entry(MODEL, 'model.pad_object', 'PadObject', 'Pad Object'),
    Entry(MODEL, 'model.probe_mask', 'ProbeMask', 'Probe Mask'),
    Entry(MODEL, 'model.gaussian_smoothing_sigma', 'GaussianSmoothingSigma', 'Smoothing [px]'),
    Entry(TRAINING, 'training.thinnings', 'NumThinnings', 'Thinnings per Scan'),
    Entry(TRAINING, 'training.n_groups', 'NumGroups', 'Groups per Scan'),
    Entry(TRAINING, 'training.neighbor_count', 'NumNearestNeighbors', 'Nearest Neighbors'),
    Entry(TRAINING, 'training.nll_weight', 'NLLWeight', 'Likelihood Weight', own_default=1.0),
    Entry(TRAINING, 'training.mae_weight', 'MAEWeight', 'Amplitude Weight'),
    Entry(TRAINING, 'training.tv_weight', 'TVWeight', 'Variation Weight'),
    Entry(TRAINING, 'training.probe_trainable', 'ProbeTrainable', 'Train Probe'),
    Entry(
        TRAINING,
        'training.intensity_scale_trainable',
        'IntensityScaleTrainable',
        'Train Intensity Scale',
    ),
    Entry(TRAINING, 'execution.scheduler', 'Scheduler', 'Rate Schedule'),
    Entry(TRAINING, 'execution.early_stop_patience', 'EarlyStopPatience', 'Patience [epochs]'),
    Entry(TRAINING, 'training.seed', 'Seed', 'Seed'),
    Entry(INFERENCE, 'inference.patch_weighting', 'PatchWeighting', 'Patch Weighting'),
    Entry(INFERENCE, 'inference.neighbor_count', 'NumNearestNeighbors', 'Nearest Neighbors'),
    Entry(INFERENCE, 'inference.seed', 'Seed', 'Seed'),
    Entry(EXECUTION, 'execution.num_threads', 'NumThreads', 'CPU Threads'),
    Entry(EXECUTION, 'execution.precision', 'Precision', 'Precision'),
    Entry(EXECUTION, 'execution.deterministic', 'Deterministic', 'Deterministic'),
    Entry(EXECUTION, LOGGER, 'Logger', 'Loss Logger', own_default='none'),
)
"""Settings that stand folded at the end of the panel."""

ENTRIES = BASIC + ADVANCED
