"""Who reconstructs, and with which settings: the one place where recipes stand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from ptychodus_torch_plugin.benchmarks.quality.cases import Case
from ptychodus_torch_plugin.bundle.shipped import PRETRAINED
from ptychodus_torch_plugin.config.settings import Settings
from ptychodus_torch_plugin.errors import ConfigError, InputNotFoundError

Values: TypeAlias = dict[str, Any]


class Own(Settings):
    """A method of this package: trained on the scan that it then reconstructs, before, or never."""

    kind: Literal['own'] = 'own'
    """Told from `Peer` by this."""
    title: str
    """Heading in tables and pictures."""
    model_path: str | None = None
    """A model that was trained before, on other scans; 'pretrained' is that of the package.
    Of `settings`, its network takes the sweeps."""
    settings: Values
    """Settings by section: 'model', 'training', 'inference', 'execution', as in a YAML file."""
    probe_wrong: Values = Field(default_factory=dict)
    """Laid over `settings` where the probe has to be found."""
    positions_wrong: Values = Field(default_factory=dict)
    """Laid over `settings` where the positions have to be found."""

    def for_case(self, case: Case) -> Values:
        """Return the settings for a case."""
        return _for_case(self, case)


class Peer(Settings):
    """An engine of pty-chi."""

    kind: Literal['ptychi'] = 'ptychi'
    """Told from `Own` by this."""
    title: str
    """Heading in tables and pictures."""
    engine: Literal['LSQML', 'rPIE', 'autodiff']
    """Which of its engines."""
    settings: Values
    """Its options by their dotted paths, in the order of setting."""
    probe_wrong: Values = Field(default_factory=dict)
    """More of them where the probe has to be found."""
    positions_wrong: Values = Field(default_factory=dict)
    """More of them where the positions have to be found."""

    def for_case(self, case: Case) -> Values:
        """Return the options for a case."""
        return _for_case(self, case)


Method: TypeAlias = Annotated[Own | Peer, Field(discriminator='kind')]


class _Holder(Settings):
    method: Method


def _for_case(method: Own | Peer, case: Case) -> Values:
    values = method.settings
    if case.probe_wrong:
        values = laid_over(values, method.probe_wrong)
    if case.positions_wrong:
        values = laid_over(values, method.positions_wrong)
    return values


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """Return `below` with the values of `above` in their places, groups merged."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = laid_over(old, value) if both else value  # type: ignore[arg-type]
    return merged


REFINED_POSITIONS = {'model': {'sweeps': {'refine_positions': True}}}

WITHOUT_TRUTH = {'inference': {'held_out_fraction': 0.0}}
"""No second reconstruction that would measure R on held-out patterns: quality is measured here."""

PTYCHI = {
    'reconstructor_options.batch_size': 32,
    'reconstructor_options.random_seed': 0,
    'probe_options.optimizable': False,
}
PTYCHI_PROBE = {'probe_options.optimizable': True}
PTYCHI_POSITIONS = {'probe_position_options.optimizable': True}

MOMENTUM = {
    # Its momentum does nothing in other modes.
    'reconstructor_options.batching_mode': 'compact',
    'reconstructor_options.momentum_acceleration_gain': 1.0,
    # The object is updated once an epoch: the size of a batch matters to the cache alone.
    'reconstructor_options.batch_size': 64,
}
ADAM = {'object_options.optimizer': 'adam', 'object_options.step_size': 0.03}
ADAM_PROBE = {
    'probe_options.optimizer': 'adam',
    # Steps of Adam are absolute.
    'probe_options.step_size.of_peak': 0.01,
}

METHODS: dict[str, Own | Peer] = {
    'sweeps': Own(
        title='sweeps',
        settings=laid_over(
            WITHOUT_TRUTH,
            {'model': {'architecture': 'none', 'sweeps_before': 40, 'sweeps_after': 0}},
        ),
        positions_wrong=REFINED_POSITIONS,
    ),
    'thinned': Own(
        title='thinned network',
        settings=laid_over(
            WITHOUT_TRUTH,
            {
                'model': {'architecture': 'unrolled', 'sweeps_before': 40},
                'training': {'objective': 'thinned-objects', 'held_out_fraction': 0.0},
                'execution': {'precision': 'bf16-mixed'},
            },
        ),
        positions_wrong=REFINED_POSITIONS,
    ),
    'pretrained': Own(
        title='pretrained network',
        model_path=PRETRAINED,
        settings=laid_over(WITHOUT_TRUTH, {'model': {'sweeps_before': 40}}),
        positions_wrong=REFINED_POSITIONS,
    ),
    'ptychi-lsqml': Peer(
        title='pty-chi LSQML',
        engine='LSQML',
        settings=laid_over(PTYCHI, MOMENTUM),
        probe_wrong=PTYCHI_PROBE,
        positions_wrong=PTYCHI_POSITIONS,
    ),
    'ptychi-rpie': Peer(
        title='pty-chi rPIE',
        engine='rPIE',
        settings=PTYCHI,
        probe_wrong=PTYCHI_PROBE,
        positions_wrong=PTYCHI_POSITIONS,
    ),
    'ptychi-autodiff': Peer(
        title='pty-chi autodiff',
        engine='autodiff',
        settings=laid_over(PTYCHI, ADAM),
        probe_wrong=laid_over(PTYCHI_PROBE, ADAM_PROBE),
        positions_wrong=PTYCHI_POSITIONS,
    ),
}
"""Every method by its name."""


def choose(names: tuple[str, ...], changes: Path | None = None) -> dict[str, Own | Peer]:
    """Return the methods of these names, after the changes of a JSON file.

    The file has a dictionary of methods by name: values laid over the method of that name, or, with
    'like', over that of another name, so that several recipes can be compared in one run.

    Raises
    ------
    InputNotFoundError, ConfigError
        If the file is missing or no such dictionary, or a name is not known.
    """
    known = METHODS if changes is None else METHODS | _changed(changes)
    for name in names:
        if name not in known:
            raise ConfigError(
                f'method = {name!r} is not known; expected some of {", ".join(known)}.'
            )
    return {name: known[name] for name in dict.fromkeys(names)}


def _changed(path: Path) -> dict[str, Own | Peer]:
    if not path.is_file():
        raise InputNotFoundError(f'{path} does not exist; expected a JSON file of methods.')
    try:
        read = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f'{path} is no JSON: {error}; expected methods by name.') from error
    if not isinstance(read, dict) or not all(isinstance(value, dict) for value in read.values()):
        raise ConfigError(f'{path} has no dictionary of methods by name, as METHODS has.')
    return {name: _method(path, name, values) for name, values in read.items()}


def _method(path: Path, name: str, values: Values) -> Own | Peer:
    base = values.pop('like', name)
    if base not in METHODS:
        raise ConfigError(
            f'{path}: {name} is like {base!r}; expected one of {", ".join(METHODS)}. '
            "Name it as 'like'."
        )
    first = METHODS[base].to_json() | ({} if base == name else {'title': name})
    method: Own | Peer = _Holder.parse(
        {'method': laid_over(first, values)}, source=f'{path}: {name}'
    ).method
    return method
