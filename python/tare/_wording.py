# SPDX-License-Identifier: Apache-2.0
"""Error texts of the C library in the words of Python's arguments."""

import re

NOT_A_LABEL = -(2**62)  # where a convention has no background, or nothing to ignore
_ENUMS = (
    "STATUS|LABEL_DTYPE|MASK_TARGET|DTYPE|NORMALIZER_SCOPE|NORMALIZER|DEVICE|LOSS_FAMILY|LOSS|GHM_DENSITY|GHM_VARIANT|"
    "SELECTION"
)
_REWORDING = [
    (re.compile(pattern), text)
    for pattern, text in (
        (r"batch->levels\[(\d+)\]\.divisor\b(?: or divisor_pointer)?", r"level_divisors[\1]"),
        (r"batch->levels\[(\d+)\]\.loss_weight\b", r"level_weights[\1]"),
        (r"batch->levels\[0\]\.", ""),
        (r"batch->levels\[(\d+)\]\.(\w+)", r"\2 of level \1"),
        (r"\bbatch->selection other than TARE_SELECTION_ALL\b", "hard_negatives"),
        (r"\bbatch->selection of hard rows\b", "hard_rows or hard_fraction"),
        (r"\bbalance->steepness\b", "gamma"),
        (r"\bbalance->midpoint\b", "mu"),
        (r"\bbalance->gain\b", "alpha"),
        (r"\bbatch->selection_count\b", "hard_rows"),
        (r"\bbatch->selection_fraction\b", "hard_fraction"),
        (r"\bbatch->selection_ratio\b", "hard_negatives"),
        (r"\bbatch->selection_minimum\b", "least_negatives"),
        (r"\b(?:loss->(?:\w+\.)?|batch->|output->|options->|linear->|spec->|masks->|balance->)", ""),
        (r"\bnormalizer_(?:value|pointer)\b", "normalizer"),
        (r" \((?:\(nil\)|0x[0-9a-f]+)\)", ""),
        (f"background {NOT_A_LABEL} or ", ""),
        (f" or ignore {NOT_A_LABEL}", ""),
        (r"\bNULL\b", "None"),
        (r"\btare_ghm_state_bytes\((\d+)\) bytes", r"ghm_state(\1)"),
    )
]


def reworded(text):
    """A text of the C library in the words of Python's arguments: `gamma` for loss->focal.gamma, None for NULL."""
    for pattern, replacement in _REWORDING:
        text = pattern.sub(replacement, text)
    return re.sub(rf"\bTARE_(?:(?:{_ENUMS})_)?([A-Z0-9_]+)\b(?: \(\d+\))?", _enumerator, text)


def _enumerator(found):
    """TARE_GHM_VARIANT_PAPER is 'paper'."""
    return f"'{found[1].lower().replace('_', '-')}'"
