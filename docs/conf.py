# SPDX-License-Identifier: Apache-2.0
"""The documentation site. ./dev docs builds it: scripts/docs.sh gives Doxygen's XML and the built library."""

import os
import sys
from pathlib import Path
from xml.etree import ElementTree

sys.path[:0] = [str(Path(__file__).parent / "site"), str(Path(__file__).parents[1] / "python")]

project = "Tare"
copyright = "the Tare contributors"
author = "the Tare contributors"

extensions = [
    "breathe",
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "sphinx.ext.autodoc",
    "docstrings",
    "header_sections",
    "losses_table",
    "outside_links",
    "picture",
    "tool_help",
]
root_doc = "index"
exclude_patterns = ["site", "requirements.txt"]
html_theme = "furo"
html_title = "Tare"
html_static_path = ["site/static"]
html_css_files = ["tare.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3


def drop_nameless_members(folder):
    """From 1.9.8 on Doxygen lists an anonymous union as a member without a name, which breathe cannot declare."""
    for file in folder.glob("struct*.xml"):
        tree = ElementTree.parse(file)
        for section in tree.iter("sectiondef"):
            for member in [one for one in section.findall("memberdef") if not one.findtext("name")]:
                section.remove(member)
        tree.write(file, encoding="utf-8", xml_declaration=True)


drop_nameless_members(Path(os.environ["TARE_DOXYGEN_XML"]))
breathe_projects = {"tare": os.environ["TARE_DOXYGEN_XML"]}
breathe_default_project = "tare"
breathe_domain_by_extension = {"h": "c"}

autodoc_mock_imports = ["torch"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

plot_formats = [("svg", 100)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False
plot_rcparams = {"savefig.bbox": "tight", "font.size": 10, "svg.hashsalt": "tare"}
plot_apply_rcparams = True
