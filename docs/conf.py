"""Configuration of Sphinx: `tox -e docs`, or `sphinx-build -W docs docs/_build/html`."""

import re
from importlib.metadata import version as version_of
from itertools import takewhile

project = 'ptychodus_torch_plugin'
author = 'the ptychodus_torch_plugin developers'
project_copyright = f'2026, {author}'
version = release = version_of('ptychodus-torch-plugin')

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build', 'tables']
suppress_warnings = ['myst.header']  # the changelog begins below the title that this page gives it

myst_enable_extensions = ['colon_fence', 'deflist', 'fieldlist']
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_default_options = {'exclude-members': 'model_config'}
strip_signature_backslash = True  # a name that ends in an underscore keeps it

default_role = 'py:obj'

html_theme = 'furo'
html_title = f'{project} {release}'


def shapes_as_they_are(_app, _what, _name, _obj, _options, lines):
    """Mark shapes such as `(n, N, N) float32` as literal: their letters are no links."""
    lines[:] = [re.sub(r'^(\s*\w+(?:, \w+)* : )(\(.+)$', r'\1``\2``', line) for line in lines]


def names_one_by_one(_app, _what, _name, _obj, _options, lines):
    """Repeat the text of `a, b` under each of both names, which napoleon does for none."""
    result = []
    for number, line in enumerate(lines):
        names = re.fullmatch(r'(\w+(?:, \w+)+)( : .+)?', line)
        if names is None:
            result.append(line)
            continue
        text = list(takewhile(lambda each: each.startswith(' '), lines[number + 1 :]))
        *others, last = names[1].split(', ')
        for name in others:
            result += [name + (names[2] or ''), *text]
        result.append(last + (names[2] or ''))
    lines[:] = result


class ProseOfAttributes:
    """Keep the text of attributes from napoleon, which takes all before a colon for a type."""

    def __init__(self):
        self.kept = {}

    def hide(self, _app, what, name, _obj, _options, lines):
        if what == 'attribute':
            self.kept[name] = list(lines)
            lines.clear()

    def show(self, _app, _what, name, _obj, _options, lines):
        lines[:] = self.kept.pop(name, lines)


def links_to_schemas_as_names(_app, _path, _docname, content):
    """Show the names of JSON files that stand beside a specification: no page holds them."""
    content[0] = re.sub(r'\[([\w.-]+)\]\([\w.-]+\.json\)', r'`\1`', content[0])


def setup(app):
    prose = ProseOfAttributes()
    before_napoleon, after_napoleon = 400, 600
    for change in (shapes_as_they_are, names_one_by_one, prose.hide):
        app.connect('autodoc-process-docstring', change, priority=before_napoleon)
    app.connect('autodoc-process-docstring', prose.show, priority=after_napoleon)
    app.connect('include-read', links_to_schemas_as_names)
