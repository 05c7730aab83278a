# SPDX-License-Identifier: Apache-2.0
"""Docstrings of the Python package as reStructuredText. They are plain text, with `name: what it is` for an argument,
and an indented paragraph for an example."""

import re

_ITEM = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")
_SPECIAL = re.compile(r"([*|`\\]|(?<=\w)_(?!\w))")


def escaped(text):
    """Text without markup, but for `code`."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return _SPECIAL.sub(r"\\\1", text)
    return "``".join(part if index % 2 else _SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))


def paragraphs(lines):
    block = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def is_list(block):
    """Whether a paragraph is a list of arguments: after the first one every other line is one too, or is indented."""
    begins = [bool(_ITEM.match(line)) for line in block]
    first = begins.index(True) if True in begins else len(block)
    return first < len(block) and all(
        begin or line.startswith("    ") for begin, line in zip(begins[first:], block[first:])
    )


def items(block):
    """The lines of a paragraph, each argument as a point of a list."""
    if not is_list(block):
        yield from map(escaped, block)
        return
    for line in block:
        match = _ITEM.match(line)
        if match:
            yield from ("", f"* **{escaped(match[1])}**: {escaped(line[match.end() :])}")
        else:
            yield f"  {escaped(line.strip())}" if line.startswith("    ") else escaped(line)


def convert(app, what, name, thing, options, lines):
    if lines and lines[0].startswith("Alias for field number"):  # a NamedTuple's own text
        lines[:] = []
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
