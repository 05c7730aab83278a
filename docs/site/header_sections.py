# SPDX-License-Identifier: Apache-2.0
"""The directive `header-sections`: the numbered sections of include/tare.h, with their titles, their texts and all that
they declare.

A new section, function, struct or enumeration appears by itself, in the order of the header.
"""

import re
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

HEADER = Path(__file__).parents[2] / "include" / "tare.h"
_BANNER = re.compile(r"^/\* -{20,}\n \* (\d+)\. (.*?)^ \* -{20,} \*/\n", re.M | re.S)
_DECLARED = re.compile(
    r"^TARE_API [^;{]*?\b(?P<function>tare_\w+)\(|^typedef (?P<kind>struct|enum) (?P<type>tare_\w+) \{"
    r"|^#define (?P<define>tare_\w+|TARE_MAX_LEVELS|TARE_VERSION_NUMBER)\b",
    re.M,
)


def sections():
    """For each number: the title, the paragraphs of the banner, and what is declared before the next banner. 0 is the
    first comment of the header."""
    header = HEADER.read_text()
    first = header[header.index(" * Words. ") : header.index("#ifndef TARE_H")]
    found = {0: ("", "\n".join(line[3:] for line in first.rstrip(" */\n").split("\n")), "")}
    banners = list(_BANNER.finditer(header))
    ends = [one.start() for one in banners[1:]] + [len(header)]
    for banner, end in zip(banners, ends):
        title, _, text = banner[2].partition("\n")
        lines = [line[3:] for line in text.split("\n")]
        found[int(banner[1])] = title, "\n".join(lines).strip(), header[banner.end() : end]
    return found


def directives(code):
    """breathe's directives for what a part of the header declares."""
    for match in _DECLARED.finditer(code):
        if match["function"] and not match["function"].endswith("_sized"):
            yield f"```{{doxygenfunction}} {match['function']}\n```"
        elif match["kind"] == "struct":
            yield f"```{{doxygenstruct}} {match['type']}\n:members:\n:undoc-members:\n```"
        elif match["kind"] == "enum":
            yield f"```{{doxygenenum}} {match['type']}\n```"
        elif match["define"]:
            yield f"```{{doxygendefine}} {match['define']}\n```"


def page():
    """The header as a page: its first comment, and a heading for each section."""
    for number, (title, text, code) in sections().items():
        yield f"## {number}. {title}" if number else "## Words, memory, types"
        if text:
            yield f"``````text\n{text}\n``````"
        yield from directives(code)


class HeaderSections(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(HEADER))
        return self.parse_text_to_nodes("\n\n".join(page()), allow_section_headings=True)


def setup(app):
    app.add_directive("header-sections", HeaderSections)
    return {"parallel_read_safe": True}
