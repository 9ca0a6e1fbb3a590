"""`pretrain`: the model that comes with the package, made again."""

from pathlib import Path
from typing import Annotated

from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.options import Backend, Json, Quiet, output_dir
from ptychodus_torch_plugin.cli.outputs import output_folder
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.report import say_files, say_json
from ptychodus_torch_plugin.cli.settings import load_backend
from ptychodus_torch_plugin.cli.starting import CHECKPOINTS, Resume


@with_groups
def pretrain(
    *,
    out: Annotated[Path, output_dir('wts.h5.zip, checkpoints/')] = Path('pretraining_outputs'),
    backend: Backend = None,
    resume: Resume = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Train the model that comes with the package once more.

    It learns from simulated scans, without labels: half an hour of sweeps, and half an hour of
    training, on one core.
    """
    with progress_display(quiet=quiet) as display, output_folder(out) as folder:
        load_backend(backend, display)
        from ptychodus_torch_plugin.pretraining import make_model

        model = make_model(folder / CHECKPOINTS, backend=backend, resume=resume, on_event=display)
        file = model.save(folder)
    if json_output:
        say_json({'model': file})
    else:
        say_files({'model': file})
