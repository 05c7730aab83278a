# SPDX-License-Identifier: Apache-2.0
"""`python site/draw.py NAME FILE.svg` in docs/: one of the site's pictures as a file. README shows `speed`; it is in
bench/results."""

import sys

import matplotlib.pyplot as plt

import plots

plt.rcParams["svg.hashsalt"] = "tare"
getattr(plots, sys.argv[1])()
plt.savefig(sys.argv[2], metadata={"Date": None})
