"""`train`: a network from one scan or many."""

from pathlib import Path
from typing import Annotated, Any

from ptychodus_torch_plugin.cli.cnn_options import CnnOptions
from ptychodus_torch_plugin.cli.deprecated import (
    Device,
    DisableMlflow,
    replace_device,
    replace_disable_mlflow,
)
from ptychodus_torch_plugin.cli.execution_options import AllExecutionOptions
from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.launching import check_processes
from ptychodus_torch_plugin.cli.model_options import ModelOptions
from ptychodus_torch_plugin.cli.options import Backend, Json, Quiet, given, output_dir
from ptychodus_torch_plugin.cli.outputs import output_folder
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.report import (
    say_facts,
    say_files,
    say_json,
    say_reconstruction,
)
from ptychodus_torch_plugin.cli.settings import (
    load_backend,
    read_scans,
    run_config,
    with_implied_architecture,
)
from ptychodus_torch_plugin.cli.starting import (
    Config,
    Resume,
    ResumeFrom,
    check_model_options,
    first_settings,
)
from ptychodus_torch_plugin.cli.training import check_test_scan, train_along, train_into
from ptychodus_torch_plugin.cli.training_options import AllTrainingOptions, ScanOptions
from ptychodus_torch_plugin.ranks import own_rank


@with_groups
def train(
    *,
    scans: ScanOptions,
    out: Annotated[
        Path,
        output_dir(
            'wts.h5.zip, run.json, history.json, training.png, checkpoints/, logs/, and test/ if '
            'asked for'
        ),
    ] = Path('training_outputs'),
    backend: Backend = None,
    config: Config = None,
    resume: Resume = False,
    resume_from: ResumeFrom = None,
    quiet: Quiet = False,
    json_output: Json = False,
    model: ModelOptions,
    training: AllTrainingOptions,
    cnn: CnnOptions,
    execution: AllExecutionOptions,
    device: Device = None,
    disable_mlflow: DisableMlflow = False,
    reading: ReadingOptions,
) -> None:
    """Train on one scan or many.

    Ctrl-C ends the training with the best model so far; twice ends it at once.
    Several processes, of torchrun, srun or --devices, train one model; the first one writes.
    Options that begin with 'cnn:' are for that architecture alone.  All options may be written with
    '-' or '_' between words.
    """
    paths = scans.paths()
    chosen = {'backend': backend}
    for options in (model, training, cnn, execution):
        chosen |= given(options)
    chosen = replace_disable_mlflow(replace_device(chosen, device), disable_mlflow)
    rank = own_rank()
    with (
        progress_display(quiet=quiet or disable_mlflow or not rank.first) as display,
        output_folder(out, writes=rank.first) as folder,
    ):
        base = first_settings(folder, config, resume_from, resume=resume)
        chosen = with_implied_architecture(chosen, display, base=base)
        check_model_options(chosen, base)
        # A bad setting must not wait for data and framework.
        check_processes(rank, run_config(chosen, base=base).execution)
        tests = [] if scans.test_data_file is None else [scans.test_data_file]
        data = read_scans([*paths, *tests], reading, display)
        run = run_config(chosen, base=base, n_px=data[0].n_px)
        test = data.pop() if tests else None
        if test is not None:
            check_test_scan(tests[0], test, run)
        load_backend(run.backend, display)
        if not rank.first:
            train_along(folder, data, run, display, resume=resume)
            return
        summary = train_into(folder, data, run, display, resume=resume, test=test)
    _say(summary, json_output=json_output)


def _say(summary: dict[str, Any], *, json_output: bool) -> None:
    if json_output:
        say_json(summary)
        return
    untold = ('settings', 'test', 'files')
    say_facts({name: value for name, value in summary.items() if name not in untold})
    files, test = summary['files'], summary['test']
    if test is not None:
        say_reconstruction(test)
        files = {**files, **test['files']}
    say_files(files)
