# SPDX-License-Identifier: Apache-2.0
"""Links that a site cannot follow. A folder becomes its README; a page outside docs/ becomes plain text."""

import re
from pathlib import Path

from pygments.lexers.special import TextLexer

_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def target_of(folder: Path, link: str, root: Path):
    """The link as the site can follow it, or None."""
    place = (folder / link).resolve()
    if place.is_dir():
        link, place = f"{link.rstrip('/')}/README.md", place / "README.md"
        if not place.exists():
            return None
    outside = place.suffix == ".md" and root not in place.parents
    return None if outside else link


def rewrite(app, name, source):
    root = Path(app.srcdir)
    folder = Path(app.env.doc2path(name)).parent

    def link(match):
        target = target_of(folder, match[2], root)
        return f"[{match[1]}]({target}{match[3] or ''})" if target else match[1]

    source[0] = _LINK.sub(link, source[0])


def setup(app):
    app.connect("source-read", rewrite)
    app.add_lexer("mermaid", TextLexer)  # a drawing for GitHub; here its text
    return {"parallel_read_safe": True}
