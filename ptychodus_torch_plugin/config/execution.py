"""Where a model is computed and how its optimiser runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ptychodus_torch_plugin.config.settings import Count, Fraction, Positive, Settings

Scheduler = Literal['one-cycle', 'constant', 'exponential', 'warmup-cosine', 'plateau']


class ExecutionConfig(Settings):
    """How and where it is computed; never part of a model, and never in a flat dictionary."""

    accelerator: Literal['auto', 'cpu', 'gpu', 'cuda', 'tpu', 'mps'] = 'auto'
    """Device kind; 'auto' takes the best that works."""
    devices: Positive = 1
    """Processes that train together on each machine, one for each device."""
    num_nodes: Positive = 1
    """Machines on which they do."""
    strategy: str = 'auto'
    """How they share the work, in the backend's own words."""
    precision: Literal['32-true', 'bf16-mixed'] = '32-true'
    """Precision of the network; the physics is always 32-bit."""
    deterministic: bool = True
    """Refuse operations whose result depends on timing."""
    num_threads: Positive | None = None
    """CPU threads; None leaves the framework's own choice."""

    num_workers: Count = 0
    """Processes that prepare batches; 0: none besides the main one."""
    pin_memory: bool = False
    """Whether batches are prepared in page-locked memory, for GPUs."""
    persistent_workers: bool = False
    """Whether workers live on from epoch to epoch."""
    prefetch_factor: Positive | None = None
    """Batches that each worker prepares ahead; None takes the framework's own."""

    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Peak rate of Adam."""
    scheduler: Scheduler = 'one-cycle'
    """Course of the learning rate."""
    warmup_epochs: Count = 1
    """Epochs in which 'warmup-cosine' rises to the peak."""
    decay: float = Field(0.95, gt=0.0, le=1.0)
    """Factor per epoch of 'exponential'."""
    min_lr_ratio: Fraction = 0.05
    """Lowest rate of 'warmup-cosine' and 'plateau', relative to the peak."""
    plateau_factor: float = Field(0.5, gt=0.0, lt=1.0)
    """Factor of 'plateau' when the monitored loss stalls."""
    plateau_patience: Count = 2
    """Epochs of 'plateau' without a better loss before the rate falls."""
    accum_steps: Positive = 1
    """Batches whose gradients make one optimiser step together."""
    gradient_clip_val: float | None = Field(1.0, gt=0.0)
    """Largest norm of a gradient; None does not clip."""

    enable_checkpointing: bool = True
    """Write checkpoints, from which training resumes."""
    checkpoint_save_top_k: Annotated[int, Field(ge=-1)] = 1
    """How many of the best epochs are kept; -1: all, 0: none, so that the last weights hold."""
    checkpoint_monitor_metric: Literal['val_loss', 'train_loss'] | None = None
    """Loss that says which epoch is best; without validation data always the training loss.  None
    takes 'train_loss' where objects are compared, for independent photons cannot be learnt by
    heart and patterns hardly tell objects at low dose, else 'val_loss'."""
    checkpoint_mode: Literal['min', 'max'] = 'min'
    """Whether the best is the lowest or the highest."""
    early_stop_patience: Positive = 100
    """Epochs without a better monitored loss before training stops."""
    logger_backend: Literal['csv', 'tensorboard', 'mlflow', 'none'] = 'csv'
    """Where losses are logged, if a folder for logs is named."""
    enable_progress_bar: bool = False
    """Show the framework's own progress bar."""

    inference_batch_size: Positive | None = None
    """Groups that the network sees at once at inference; None takes 32."""

    @model_validator(mode='before')
    @classmethod
    def _accept_other_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get('scheduler'), str):
            name = values['scheduler']
            return {**values, 'scheduler': SCHEDULER_ALIASES.get(name.lower(), name)}
        return values

    @model_validator(mode='after')
    def _check_workers(self) -> Self:
        if self.num_workers == 0 and (self.persistent_workers or self.prefetch_factor):
            raise ValueError(
                f'persistent_workers = {self.persistent_workers} and prefetch_factor = '
                f'{self.prefetch_factor} need workers, but num_workers = 0; expected num_workers '
                'of at least 1, or neither of them'
            )
        return self

    def course(self) -> dict[str, Any]:
        """Return the settings that decide the course of training, as JSON types."""
        return {name: value for name, value in self.to_json().items() if name in COURSE_FIELDS}


COURSE_FIELDS = (
    'precision',
    'learning_rate',
    'scheduler',
    'warmup_epochs',
    'decay',
    'min_lr_ratio',
    'plateau_factor',
    'plateau_patience',
    'accum_steps',
    'gradient_clip_val',
    'checkpoint_monitor_metric',
    'checkpoint_mode',
    'early_stop_patience',
)
SCHEDULER_ALIASES = {
    'default': 'constant',
    'onecycle': 'one-cycle',
    'warmupcosine': 'warmup-cosine',
    'reducelronplateau': 'plateau',
    **{name: name for name in ('constant', 'one-cycle', 'exponential', 'warmup-cosine', 'plateau')},
}
"""Names of other programs, in lower case."""
