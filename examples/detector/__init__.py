# SPDX-License-Identifier: Apache-2.0
"""A small detector that is trained with each of Tare's losses; ../train_detector.py is the command."""
