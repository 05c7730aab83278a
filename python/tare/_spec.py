# SPDX-License-Identifier: Apache-2.0
"""The `spec`: a line of key=value that describes the tensors of an operator and the evaluation."""

from __future__ import annotations

import functools
from types import SimpleNamespace

from . import _batch, _losses

KEEPS_GRADIENT = "keep-gradient"  # a setting: the gradient of the same pass is wanted
SUMS_CLASSES = "class-sums"  # a setting: the sums of each class are among the results
NORM_BINS = "norm-histogram"  # a setting: the number of bins of gradient norms, which are the last of these results
LEVEL_LOSSES = "level-losses"  # a setting: the losses of levels are among the results, after these sums
LEVEL_DIVISOR = "level_divisor_"  # and a level's number: a single tensor
STORED_DENSITY = "use_stored_density"  # a parameter: 1/GD is the one in the state
_BATCH = (
    "first_label",
    "background_label",
    "ignore_label",
    "background_weight",
    "hard_negatives",
    "least_negatives",
    "hard_rows",
    "hard_fraction",
)
_OUTPUT = ("normalizer_addend", "normalizer_minimum")


def keeps_state(name, parameters):
    """Whether a loss has a density that backward can take from a state of this call instead of counting again."""
    return (
        _losses.DESCRIPTIONS[name].has_state
        and _losses.value_of(name, parameters, "density") == "unit-region"
        and not parameters.get("momentum")
        and not parameters.get("use_stored_density")
    )


def write_spec(settings, arrays, singles):
    """settings, the names of the per-level arrays, and those of the single tensors, as one line."""
    words = [f"{key}={value}" for key, value in settings.items()]
    return " ".join([*words, f"arrays={','.join(arrays)}", f"singles={','.join(singles)}"])


def with_setting(spec, key, value):
    """The spec with one setting more; of two with the same key the last counts."""
    return f"{spec} {key}={value}"


def without_setting(spec, key):
    """The spec without this setting."""
    return " ".join(word for word in spec.split(" ") if word.split("=", 1)[0] != key)


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _names(text):
    return tuple(name for name in text.split(",") if name)


@functools.lru_cache(256)
def read_spec(spec):
    settings = dict(word.split("=", 1) for word in spec.split(" "))
    take = settings.pop
    read = SimpleNamespace(
        loss=take("loss"),
        reduction=take("reduction"),
        normalizer=take("normalizer"),
        classes=int(take("classes")) or None,
        arrays=_names(take("arrays")),
        singles=_names(take("singles")),
        batch=_batch.label_options(**{key: _number(take(key)) for key in _BATCH if key in settings}),
    )
    read.output = {key: float(take(key)) for key in _OUTPUT if key in settings}
    if "normalizer_scope" in settings:
        read.output["normalizer_scope"] = take("normalizer_scope")
    read.of_levels = {
        key: tuple(map(float, take("level_" + key).split(",")))
        for key in ("divisors", "weights")
        if "level_" + key in settings
    }
    read.traced = settings.pop("traced", None)
    parameters = {key: _number(value) for key, value in settings.items()}
    read.keep = bool(parameters.pop(KEEPS_GRADIENT, 0))  # no name that a caller can give
    read.sums = bool(parameters.pop(SUMS_CLASSES, 0))
    read.level_losses = bool(parameters.pop(LEVEL_LOSSES, 0))
    read.norm_bins = int(parameters.pop(NORM_BINS, 0))
    read.constants = read.sums + read.level_losses + bool(read.norm_bins)  # results through which no derivative goes
    read.loss = _losses.loss_name(read.loss)
    read.parameters = _losses.parameters_of(read.loss, parameters)
    if read.reduction not in ("sum", "rows", "none", "histogram", "divisor"):  # two are internal: see _loss
        raise ValueError(f"reduction is '{read.reduction}'; it is one of: sum, rows, none")
    description = _losses.DESCRIPTIONS[read.loss]
    read.has_state = description.has_state
    if read.reduction == "none" and not description.gives_element_loss:
        read.reduction = "rows"
    return read


def traced_shapes(levels, fixed):
    """torch.jit.trace freezes numbers: the classes, or all lengths if `fixed`, that go with them."""
    shapes = [level.shape if fixed else level.shape[-1:] for level in levels]
    return "/".join("x".join(str(int(length)) for length in shape) for shape in shapes)


def check_traced(read, levels):
    if read.traced is None:
        return
    for level, shape in zip(levels, read.traced.split("/")):
        shape = tuple(map(int, shape.split("x")))
        if tuple(level.shape[-len(shape) :]) != shape:
            raise ValueError(
                f"logits of shape {tuple(level.shape)} in a graph of torch.jit.trace that was made for "
                f"{shape}: it has numbers that may depend on the shape; trace it again, or normalize by a "
                "name or a tensor"
            )
