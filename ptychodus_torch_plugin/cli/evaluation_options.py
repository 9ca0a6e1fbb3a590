"""Options that say what `evaluate` compares an object with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ptychodus_torch_plugin.errors import ConfigError


@dataclass(frozen=True)
class SourceOptions:
    """What an object is compared with, and a scan to measure R on."""

    truth: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Scan file or product with the true object.'),
    ] = None
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE',
            help='Product or scan file with an object to be taken for the true one, such as '
            'another program made of all data.',
        ),
    ] = None
    half: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE',
            help="Product of the other half of the data, as 'infer --half' makes it: the "
            'resolution without any truth.',
        ),
    ] = None
    scan: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE',
            help='Scan file to measure R on: over the patterns that the product was made from, '
            'and over the others.',
        ),
    ] = None

    @property
    def compared(self) -> bool:
        """Whether there is an object to compare with."""
        return any(each is not None for each in (self.truth, self.reference, self.half))

    def given(self, object_file: Path) -> dict[str, Path]:
        """Return the files by the name of their option; refuse none, and more than one object."""
        others = {'truth': self.truth, 'reference': self.reference, 'half': self.half}
        given = {name: path for name, path in others.items() if path is not None}
        if len(given) > 1 or (not given and self.scan is None):
            raise ConfigError(
                f'{object_file} is to be evaluated by '
                f'{" and ".join(f"--{name}" for name in given) or "nothing"}; expected one of '
                '--truth, --reference and --half, or --scan, or both.'
            )
        return given if self.scan is None else {**given, 'scan': self.scan}
