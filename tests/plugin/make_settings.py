"""Write what the settings in Ptychodus take: `python tests/plugin/make_settings.py`."""

from __future__ import annotations

import json

from ptychodus_torch_plugin.integration.described import FILE, describe
from ptychodus_torch_plugin.integration.entries import ENTRIES


def text() -> str:
    """Return the content of `settings.json`."""
    found = describe(entry.path for entry in ENTRIES)
    return json.dumps(found, indent=2, ensure_ascii=False) + '\n'


if __name__ == '__main__':
    FILE.write_text(text(), encoding='utf-8')
