# SPDX-License-Identifier: Apache-2.0
"""Importing this module replaces mmdetection's losses: custom_imports = dict(imports=['tare.compat.mmdet.replace'])."""

from .registry import register

register()
