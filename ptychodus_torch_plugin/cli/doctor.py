"""`doctor`: what is installed, what Ptychodus will find of it, and how to get what is missing."""

from __future__ import annotations

from typing import Any

import typer

from ptychodus_torch_plugin.cli.options import Json
from ptychodus_torch_plugin.cli.progress import progress_display
from ptychodus_torch_plugin.cli.report import say_facts, say_json

NO_BACKEND = 1


def doctor(json_output: Json = False) -> int:
    """Say what is installed, what Ptychodus finds of it, and how to get what is missing.

    Ends with exit code 0 if a backend can be used, else 1.
    """
    report = _examine()
    if json_output:
        say_json(report)
    else:
        _say(report)
    usable = any(each['usable'] for each in report['backends'].values())
    return 0 if usable else NO_BACKEND


def _examine() -> dict[str, Any]:
    from ptychodus_torch_plugin.cli import diagnosis

    host = diagnosis.ptychodus()
    report: dict[str, Any] = {'versions': diagnosis.versions(), 'ptychodus': host}
    report |= {'backends': {}, 'libraries': {}}
    with progress_display() as display:
        for name in diagnosis.backend_names():
            with display.busy(f'Trying {name}'):
                report['backends'][name] = diagnosis.backend(name)
        if host['version'] is not None:
            for name in diagnosis.library_names():
                with display.busy(f'Trying library {name}'):
                    report['libraries'][name] = diagnosis.library(name)
    mends = [host['mend'], *(each['mend'] for each in report['backends'].values())]
    return report | {'missing': list(dict.fromkeys(mend for mend in mends if mend))}


def _say(report: dict[str, Any]) -> None:
    say_facts(report['versions'])
    typer.echo()
    say_facts(_ptychodus_facts(report['ptychodus']))
    typer.echo()
    say_facts({f'backend {name}': _backend_facts(it) for name, it in report['backends'].items()})
    if report['libraries']:
        typer.echo()
        libraries = report['libraries'].items()
        say_facts({f'library {name}': _library_facts(it) for name, it in libraries})
    if report['missing']:
        typer.echo('\nTo get what is missing:')
        for command in report['missing']:
            typer.echo(f'  {command}')


def _ptychodus_facts(found: dict[str, Any]) -> dict[str, Any]:
    facts = {
        'ptychodus': f'{found["version"] or "not installed"} (supported: {found["supported"]})'
    }
    if 'shim' in found:
        facts |= {'finds plugin': found['finds_plugin'], 'file': str(found['shim'])}
    if found['problem']:
        facts['problem'] = found['problem']
    return facts


def _backend_facts(found: dict[str, Any]) -> list[str]:
    if not found['usable']:
        return [f'unavailable: {found["reason"]}']
    versions = ', '.join(f'{name} {version}' for name, version in found['versions'].items())
    devices = found['devices']
    return [versions, f'devices: {"not told" if devices is None else ", ".join(devices)}']


def _library_facts(found: dict[str, Any]) -> list[str]:
    if found['reason']:
        return [f'left out: {found["reason"]}']
    lines = [
        f'{found["name"]}_{name}'.casefold() + (f': unavailable, {reason}' if reason else '')
        for name, reason in found['reconstructors'].items()
    ]
    return lines if found['panel'] else [*lines, 'without a panel: its settings are not shown']
