"""Options that say on what a model is computed, and what is kept on the way."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ptychodus_torch_plugin.cli.options import setting, switch

Accelerator = Literal['auto', 'cpu', 'gpu', 'cuda', 'tpu', 'mps']
Precision = Literal['32-true', 'bf16-mixed']
Logger = Literal['csv', 'tensorboard', 'mlflow', 'none']


@dataclass(frozen=True)
class ExecutionOptions:
    """On what; see `config.ExecutionConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'accelerator': 'execution.accelerator',
        'threads': 'execution.num_threads',
    }

    accelerator: Annotated[
        Accelerator | None,
        setting('--accelerator', default='auto', what='Device.'),
    ] = None
    threads: Annotated[
        int | None,
        setting('--threads', default="the framework's choice", what='CPU threads.'),
    ] = None


@dataclass(frozen=True)
class AllExecutionOptions(ExecutionOptions):
    """The execution options that only `train` has, too."""

    SETTINGS: ClassVar[dict[str, str]] = {
        **ExecutionOptions.SETTINGS,
        'devices': 'execution.devices',
        'num_nodes': 'execution.num_nodes',
        'strategy': 'execution.strategy',
        'precision': 'execution.precision',
        'deterministic': 'execution.deterministic',
        'num_workers': 'execution.num_workers',
        'pin_memory': 'execution.pin_memory',
        'persistent_workers': 'execution.persistent_workers',
        'prefetch_factor': 'execution.prefetch_factor',
        'enable_checkpointing': 'execution.enable_checkpointing',
        'checkpoint_save_top_k': 'execution.checkpoint_save_top_k',
        'logger': 'execution.logger_backend',
    }

    devices: Annotated[
        int | None,
        setting(
            '--devices',
            default='1',
            what='Processes that train together on each machine, one for each device. Without '
            'torchrun or srun they are started here.',
        ),
    ] = None
    num_nodes: Annotated[
        int | None,
        setting(
            '--num-nodes',
            default='1',
            what='Machines on which they do; torchrun or srun starts them there.',
        ),
    ] = None
    strategy: Annotated[
        str | None,
        setting(
            '--strategy',
            default='auto',
            what="How they share the work, in the backend's own words.",
        ),
    ] = None
    precision: Annotated[
        Precision | None,
        setting('--precision', default='32-true', what='Precision of the network.'),
    ] = None
    deterministic: Annotated[
        bool | None,
        switch(
            'deterministic',
            default=True,
            what='Whether operations are refused whose result depends on timing.',
        ),
    ] = None
    num_workers: Annotated[
        int | None,
        setting(
            '--num-workers',
            default='0',
            what='Processes that prepare batches; 0: none besides the main one.',
        ),
    ] = None
    pin_memory: Annotated[
        bool | None,
        switch(
            'pin-memory',
            default=False,
            what='Whether batches are prepared in page-locked memory, for GPUs.',
        ),
    ] = None
    persistent_workers: Annotated[
        bool | None,
        switch(
            'persistent-workers',
            default=False,
            what='Whether workers live on from epoch to epoch.',
        ),
    ] = None
    prefetch_factor: Annotated[
        int | None,
        setting(
            '--prefetch-factor',
            default="the framework's choice",
            what='Batches that each worker prepares ahead.',
        ),
    ] = None
    enable_checkpointing: Annotated[
        bool | None,
        setting(
            '--enable-checkpointing/--disable-checkpointing',
            default='enable-checkpointing',
            what='Whether checkpoints are kept, from which training resumes.',
        ),
    ] = None
    checkpoint_save_top_k: Annotated[
        int | None,
        setting(
            '--checkpoint-save-top-k',
            default='1',
            what='How many of the best epochs are kept; -1: all, 0: none, the last weights hold.',
        ),
    ] = None
    logger: Annotated[
        Logger | None,
        setting('--logger', default='csv', what='What writes the losses into logs/.'),
    ] = None
