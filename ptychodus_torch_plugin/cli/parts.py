"""`infer` in parts: by processes at one time, or by one after the other, as in job arrays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychodus_torch_plugin.cli.progress import Display
from ptychodus_torch_plugin.cli.reconstruction import stoppable
from ptychodus_torch_plugin.cli.stopping import StopRequest
from ptychodus_torch_plugin.errors import ConfigError, OutputError, TrainingError
from ptychodus_torch_plugin.ranks import Rank
from ptychodus_torch_plugin.sharding import Shard

if TYPE_CHECKING:
    from ptychodus_torch_plugin.api import Model
    from ptychodus_torch_plugin.config import RunConfig
    from ptychodus_torch_plugin.scan import ScanData

PARTS, FAILED = 'parts', '.failed'
POLL_S = 0.1
PATIENCE_S = 600.0
"""How long the first process waits for the next part."""

Part = Annotated[
    str | None,
    typer.Option(
        '--part',
        metavar='K/N',
        help='cnn: predict the K-th of N parts of the scan alone, into parts/ of the output '
        'folder, as a job of an array does.',
    ),
]
Merge = Annotated[
    bool,
    typer.Option('--merge', help='cnn: make the object of all parts in parts/, and predict none.'),
]


@dataclass(frozen=True)
class Share:
    """What this process does of a reconstruction in parts.

    Attributes
    ----------
    shard
        The part that it predicts; None: none, the parts are there.
    merges
        Whether it makes the object of all parts.
    together
        Whether the others predict at the same time.
    """

    shard: Shard | None
    merges: bool
    together: bool = False


def share_of(part: str | None, *, merge: bool, rank: Rank) -> Share | None:
    """Return what this process does; None if it reconstructs the whole scan alone.

    Raises
    ------
    ConfigError
        If `part` is no 'K/N', or if two ways of sharing were asked for.
    """
    ways = {f'--part {part}': part is not None, '--merge': merge}
    ways[f'{rank.count} processes of {rank.source}'] = not rank.alone
    asked = [way for way, wanted in ways.items() if wanted]
    if len(asked) > 1:
        raise ConfigError(
            f'{" and ".join(asked)} are different ways to share the work; expected one of them. '
            '--part and --merge are for processes that know nothing of each other.'
        )
    if merge:
        return Share(None, merges=True)
    if part is not None:
        return Share(_parsed(part), merges=False)
    if rank.alone:
        return None
    return Share(Shard(rank.index, rank.count), merges=rank.first, together=True)


def _parsed(part: str) -> Shard:
    number, _, count = part.partition('/')
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(
            f'--part {part}: expected K/N, the K-th of N parts, counted from 1, such as 1/16.'
        )
    return Shard(int(number) - 1, int(count))


def parts_of(
    folder: Path,
    model: Model,
    scan: ScanData,
    run: RunConfig,
    display: Display,
    share: Share,
) -> list[Path]:
    """Do this process's share of a reconstruction; return the files of the parts.

    These are all parts, if this process merges them, else its own one.

    Raises
    ------
    StoppedError
        If the user stopped it.
    TrainingError
        If another process failed, or its part does not come.
    """
    from ptychodus_torch_plugin.parts import part_path, predict_part

    parts, shard = folder / PARTS, share.shard
    if shard is None:
        return sorted(parts.glob('part-*.npz'))
    own = stoppable(
        lambda stop: predict_part(
            model,
            scan,
            shard,
            run.inference,
            run.execution,
            on_event=display,
            should_stop=stop,
        ),
        display,
    )
    parts.mkdir(parents=True, exist_ok=True)  # another job may have found it empty, and removed it
    own.save(part_path(parts, shard))
    if not share.merges:
        return [part_path(parts, shard)]
    others = [Shard(index, shard.count) for index in range(shard.count)]
    with display.busy('Waiting for the other parts'):
        stoppable(lambda stop: _wait(parts, others, stop), display)
    return [part_path(parts, each) for each in others]


@contextmanager
def parts_folder(folder: Path, share: Share | None) -> Iterator[None]:
    """Make the folder of the parts; if anything fails, leave a note there for whoever waits.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    if share is None or share.shard is None:
        yield
        return
    parts = folder / PARTS
    try:
        parts.mkdir(parents=True, exist_ok=True)
        if share.merges:  # what is left of an earlier run
            for marker in parts.glob(f'*{FAILED}'):
                marker.unlink()
    except OSError as error:
        raise OutputError(
            f'cannot make the folder {parts} ({error.strerror or error}); expected one that all '
            'processes can write to. Name another --output_dir.'
        ) from error
    try:
        yield
    except BaseException as error:
        if share.together and not share.merges:
            with suppress(OSError):
                _marker(parts, share.shard).write_text(f'{type(error).__name__}: {error}')
        raise
    finally:
        with suppress(OSError):  # something is left in it
            parts.rmdir()


def remove_parts(paths: list[Path], share: Share | None) -> None:
    """Remove the parts that an object was made of, unless each came on its own."""
    if share is not None and share.together:
        for path in paths:
            path.unlink(missing_ok=True)


def _wait(parts: Path, shards: list[Shard], stop: StopRequest) -> None:
    """Wait until all parts are there."""
    from ptychodus_torch_plugin.parts import part_path

    last, missing = time.monotonic(), shards
    while missing:
        before = len(missing)
        missing = [shard for shard in missing if not part_path(parts, shard).is_file()]
        if len(missing) < before:
            last = time.monotonic()
        for shard in missing:
            if _marker(parts, shard).is_file():
                raise TrainingError(
                    f'{Rank(shard.index, shard.count)} failed: {_marker(parts, shard).read_text()}'
                )
        if stop():
            raise InterruptedError('stopped while waiting for parts')
        if time.monotonic() - last > PATIENCE_S:
            raise TrainingError(
                f'no part has come for {PATIENCE_S:.0f} s, and {len(missing)} of {len(shards)} are '
                f'missing, the first of them {part_path(parts, missing[0])}; expected all '
                'processes to go on. Look at their messages, and see that they share that folder.'
            )
        time.sleep(POLL_S)


def _marker(parts: Path, shard: Shard) -> Path:
    from ptychodus_torch_plugin.parts import part_path

    return part_path(parts, shard).with_suffix(FAILED)
