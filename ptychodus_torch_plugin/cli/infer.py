"""`infer`: an object from a scan, by a trained model or by sweeps alone."""

from pathlib import Path
from typing import Annotated

from ptychodus_torch_plugin.cli.deprecated import Device, replace_device
from ptychodus_torch_plugin.cli.execution_options import ExecutionOptions
from ptychodus_torch_plugin.cli.following import FollowOptions, begun, check_follow
from ptychodus_torch_plugin.cli.groups import with_groups
from ptychodus_torch_plugin.cli.halves import Half, check_half, take
from ptychodus_torch_plugin.cli.inference import (
    Task,
    Told,
    check_choice,
    check_fit,
    load,
    with_settings,
)
from ptychodus_torch_plugin.cli.inference_options import (
    Gridsize,
    InferenceOptions,
    ModelPath,
    SweepOptions,
    TestData,
    Truth,
)
from ptychodus_torch_plugin.cli.options import Backend, Json, Quiet, given, output_dir
from ptychodus_torch_plugin.cli.outputs import output_folder
from ptychodus_torch_plugin.cli.parts import Merge, Part, parts_folder, share_of
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.reading_options import ReadingOptions
from ptychodus_torch_plugin.cli.report import say_files, say_json, say_reconstruction
from ptychodus_torch_plugin.cli.settings import read_one, read_truth
from ptychodus_torch_plugin.ranks import own_rank


@with_groups
def infer(
    *,
    test_data: TestData,
    model_path: ModelPath = None,
    out: Annotated[Path, output_dir('object.h5, object.npz, object.png, metrics.json')] = Path(
        'inference_outputs'
    ),
    truth: Truth = None,
    backend: Backend = None,
    gridsize: Gridsize = None,
    quiet: Quiet = False,
    json_output: Json = False,
    sweeps: SweepOptions,
    inference: InferenceOptions,
    execution: ExecutionOptions,
    following: FollowOptions,
    half: Half = None,
    part: Part = None,
    merge: Merge = False,
    device: Device = None,
    reading: ReadingOptions,
) -> None:
    """Reconstruct the object of a scan.

    Without --model_path a model that comes with the package does it, without any training.
    Writes it as a Ptychodus product, as arrays and as a picture, with R-factors on the fitted
    patterns and on patterns that a second reconstruction never saw.
    Several processes, of torchrun or srun, share the work of a 'cnn'; the first one writes.
    With --half it makes the object of one half of the patterns, for 'evaluate --half'.
    With --follow it shows the object of a scan that is still being measured.
    """
    rank = own_rank()
    share = share_of(part, merge=merge, rank=rank)
    several = share is not None or not rank.alone
    check_follow(following, reading, several=several)
    model_path = check_choice(model_path, sweeps)
    around = {} if model_path is not None else given(sweeps)
    chosen = {**given(inference), **given(execution), **around}
    chosen = replace_device(chosen, device)
    chosen = check_half(half, chosen, alone=not (several or following.follow))
    with (
        progress_display(quiet=quiet or not rank.first) as display,
        output_folder(out, writes=rank.first) as folder,
        parts_folder(out, share),
    ):
        model = None if model_path is None else load(model_path, backend, sweeps, display)
        check_fit(model, gridsize, chosen, in_parts=share is not None)
        source = begun(test_data, following, reading, display) if following.follow else None
        scan = read_one(test_data, reading, display) if source is None else source.scan()
        model, run = with_settings(model, scan, chosen, backend, display)
        taken = take(scan, half, model)
        known = None if truth is None else read_truth(truth, taken.scan, display)
        task = Task(folder, model, run, display, known)
        if share is not None:
            told = task.in_parts(scan, share)
        elif source is not None:
            told = task.followed(source, following)
        else:
            told = task.whole(taken)
    if rank.first:
        _say(told, json_output=json_output)


def _say(told: Told, *, json_output: bool) -> None:
    if json_output:
        say_json({**told.figures, 'files': told.files})
        return
    if told.figures:
        say_reconstruction(told.figures)
    say_files(told.files)
