# SPDX-License-Identifier: Apache-2.0
"""Docstrings of the Python package as reStructuredText. They are plain text, with `name: what it is` for an argument,
and an indented paragraph for an example."""

import re

_ITEM = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")
_SPECIAL = re.compile(r"([*|`\\]|(?<=\w)_(?!\w))")


def escaped(text):
    return _SPECIAL.sub(r"\\\1", text)


def paragraphs(lines):
    block = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def items(block):
    """The lines of a paragraph, each argument as a point of a list. A line that is not indented ends the list."""
    inside = False
    for line in block:
        match = _ITEM.match(line)
        if match:
            yield from ("", f"* **{escaped(match[1])}**: {escaped(line[match.end() :])}")
        elif inside and line.startswith("    "):
            yield f"  {escaped(line.strip())}"
        else:
            yield from ["", escaped(line)] if inside else [escaped(line)]
        inside = bool(match) or (inside and line.startswith("    "))


def convert(app, what, name, thing, options, lines):
    text = []
    for block in paragraphs(lines):
        if all(line.startswith("    ") for line in block):
            text += ["::", "", *block]
        else:
            text += items(block)
        text.append("")
    lines[:] = text


def setup(app):
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True}
