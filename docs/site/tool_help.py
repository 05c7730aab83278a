# SPDX-License-Identifier: Apache-2.0
"""The directive `tool-help`: what `tare VERB --help` prints, from the built tool that TARE_TOOL names."""

import os
import subprocess

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class ToolHelp(SphinxDirective):
    optional_arguments = 1

    def run(self):
        command = [os.environ["TARE_TOOL"], *self.arguments, "--help"]
        environment = {**os.environ, "ARGP_HELP_FMT": "rmargin=100"}
        text = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    app.add_directive("tool-help", ToolHelp)
    return {"parallel_read_safe": True}
