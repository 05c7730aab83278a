# SPDX-License-Identifier: Apache-2.0
"""The directive `picture NAME`: what the function NAME of plots.py draws, by matplotlib's directive; the content is its
caption. matplotlib's directive itself knows reStructuredText alone."""

from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}

    def run(self):
        lines = [f".. plot:: site/plots.py {self.arguments[0]}", f"   :alt: {self.options['alt']}", ""]
        lines += [f"   {line}" for line in self.content]
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))


def setup(app):
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}
