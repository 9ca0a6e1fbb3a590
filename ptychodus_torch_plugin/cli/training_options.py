"""Options that say what a network learns from, and how its optimiser runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from ptychodus_torch_plugin.cli.options import setting
from ptychodus_torch_plugin.errors import ConfigError

Objective = Literal['thinned-objects', 'thinned', 'poisson']
Monitor = Literal['val_loss', 'train_loss']
Mode = Literal['min', 'max']


@dataclass(frozen=True)
class ScanOptions:
    """What it learns from, and what it is tried on."""

    scans: Annotated[
        list[Path] | None, typer.Argument(metavar='SCAN', help='Scan files to train on.')
    ] = None
    train_data_file: Annotated[
        list[Path] | None,
        typer.Option(
            '--train_data_file', metavar='FILE', help='Scan file to train on; may be repeated.'
        ),
    ] = None
    test_data_file: Annotated[
        Path | None,
        typer.Option(
            '--test_data_file',
            metavar='FILE',
            help='Scan file that the trained model reconstructs, into test/.',
        ),
    ] = None

    def paths(self) -> list[Path]:
        """Return the scans to train on; refuse none."""
        paths = [*(self.train_data_file or ()), *(self.scans or ())]
        if not paths:
            raise ConfigError('no scan was given; expected at least one SCAN to train on.')
        return paths


@dataclass(frozen=True)
class TrainingOptions:
    """How it is trained; see `config.TrainingConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        'objective': 'training.objective',
        'epochs': 'training.epochs',
        'seed': 'training.seed',
    }

    objective: Annotated[
        Objective | None,
        setting(
            '--objective',
            default='thinned-objects for unrolled, poisson for cnn',
            what='thinned-objects, thinned: compare with the object, or the patterns, of other '
            'photons, and need whole counts; poisson: all counts.',
        ),
    ] = None
    epochs: Annotated[
        int | None,
        setting('--max_epochs', '--epochs', '--nepochs', default='12', what='Most epochs.'),
    ] = None
    seed: Annotated[
        int | None,
        setting('--seed', default='0', what='Seed of everything random.'),
    ] = None


@dataclass(frozen=True)
class AllTrainingOptions(TrainingOptions):
    """The training options that only `train` has, too; see `config.ExecutionConfig`."""

    SETTINGS: ClassVar[dict[str, str]] = {
        **TrainingOptions.SETTINGS,
        'held_out': 'training.held_out_fraction',
        'learning_rate': 'execution.learning_rate',
        'scheduler': 'execution.scheduler',
        'accumulate_grad_batches': 'execution.accum_steps',
        'gradient_clip': 'execution.gradient_clip_val',
        'early_stop_patience': 'execution.early_stop_patience',
        'checkpoint_monitor': 'execution.checkpoint_monitor_metric',
        'checkpoint_mode': 'execution.checkpoint_mode',
    }

    held_out: Annotated[
        float | None,
        setting(
            '--held-out',
            default='0.1',
            what='Fraction of the patterns of every scan that is kept for validation.',
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        setting('--learning-rate', default='0.001', what='Peak rate of Adam.'),
    ] = None
    # Not a choice of typer's: the settings know the names of other programs, in any case.
    scheduler: Annotated[
        str | None,
        setting(
            '--scheduler',
            default='one-cycle',
            what='Course of the learning rate: one-cycle, constant, exponential, warmup-cosine, '
            "plateau; or PtychoPINN's Default, Exponential, WarmupCosine, ReduceLROnPlateau.",
        ),
    ] = None
    accumulate_grad_batches: Annotated[
        int | None,
        setting(
            '--accumulate-grad-batches',
            default='1',
            what='Batches whose gradients make one optimiser step together.',
        ),
    ] = None
    gradient_clip: Annotated[
        float | None,
        setting(
            '--gradient-clip',
            default='1',
            what='Largest norm of a gradient; null in a run file: no limit.',
        ),
    ] = None
    early_stop_patience: Annotated[
        int | None,
        setting(
            '--early-stop-patience',
            default='100',
            what='Epochs without a better monitored loss before training stops.',
        ),
    ] = None
    checkpoint_monitor: Annotated[
        Monitor | None,
        setting(
            '--checkpoint-monitor',
            default='train-loss for thinned-objects, else val-loss',
            what='Loss that says which epoch is best; the training loss where none is held out.',
        ),
    ] = None
    checkpoint_mode: Annotated[
        Mode | None,
        setting(
            '--checkpoint-mode', default='min', what='Whether the best is the lowest or highest.'
        ),
    ] = None
