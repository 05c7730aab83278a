# SPDX-License-Identifier: Apache-2.0
"""Tare's losses on PyTorch tensors, with autograd, on CPU and GPU, eagerly and under torch.compile.

    loss = tare.torch.sigmoid_focal(logits, labels, normalizer="positives")
    loss.backward()

On a GPU the forward pass reads the logits and keeps only references to its arguments. The backward pass evaluates
again, with the upstream gradient as a scale. The scale is applied in single precision before the gradient is rounded to
the logits' type. So float16 gradients under AMP's loss scale are rounded once. This moves 12 bytes for a float32 logit;
keeping a gradient and multiplying it moves 16. Nothing waits for a GPU.

On a CPU a scalar loss of float32, float64 or bfloat16 logits is computed together with its gradient, in one pass. The
gradient is kept until the first backward and takes as much memory as the logits. float16, and the reductions "rows" and
"none", are evaluated twice there too. In both cases backward may run twice.

Every function takes the arguments of `loss`. Arguments other than the logits are constants. They get no gradient, and
an argument that requires one is refused. Autocast has no effect: half types are computed in float32.
"""

from typing import NamedTuple, Optional

import torch

from . import _batch, _c, _call, _checks, _linear, _losses, _ops, _prepared, _spec, _tensors
from ._evaluate import logit_adjustment


class Head(NamedTuple):
    """A classifier that a loss takes instead of logits: features @ weight.T + bias.

    All logits never exist at one time. The loss forms them one chunk of rows at a time. Backward forms them again, with
    the gradients by all three. In float32 on a CPU one pass does both and keeps the gradients until backward.

        loss = tare.torch.sigmoid_focal(tare.torch.Head(features, layer.weight, layer.bias), labels)

    features: [..., D]; weight: [C, D]; bias: [C] or None; all float32, float16 or bfloat16.
    workspace: the most bytes that a pass may take; None: the fastest size (96 MB on a CPU).

    It needs OpenBLAS on a CPU (libopenblas.so.0, or the library that TARE_BLAS names), and cuBLAS on a GPU, which
    PyTorch has loaded. Otherwise it raises tare.Error. It gives scalar losses only, and not GHM's exact density. The
    gradients by weight and bias are summed in float32.
    """

    features: torch.Tensor
    weight: torch.Tensor
    bias: Optional[torch.Tensor] = None
    workspace: Optional[int] = None


# ---- the losses -----------------------------------------------------------------------------------------------------


def loss(
    name,
    logits,
    labels=None,
    *,
    targets=None,
    scores=None,
    classes=None,
    reduction="sum",
    normalizer="sum",
    row_weights=None,
    element_weights=None,
    class_weights=None,
    background_weight=1.0,
    hard_negatives=None,
    least_negatives=None,
    positive_weights=None,
    first_label=0,
    background_label=-1,
    ignore_label=-2,
    alpha=None,
    state=None,
    **parameters,
):
    """The loss of this name ("sigmoid-focal"; tare.losses() has them all), differentiable by the logits.

    logits: float32, float16, bfloat16, on the CPU also float64. Rows [..., C] with one to four axes in front; or, with
        `classes`, maps [images, anchors*classes, height, width]; or a list of up to 16 of either, the levels of a head,
        in one launch. Any strides are accepted. Nothing is permuted, concatenated or copied. Or a Head.
    labels: int32 or int64, one a row: [...], or for maps [images, height, width, anchors]. Neighbouring axes may be
        joined ([images, rows of an image]). [images, anchors, height, width] is refused. For levels: a list of these,
        or one tensor [images, rows of an image]. The class is label - first_label. background_label marks a row without
        a class, ignore_label a row that adds nothing. Any other label is an error. The CPU reports it at once. On a GPU
        its row adds nothing, and check() reports it.
    targets: dense targets in [0,1] of the logits' shape, instead of labels. softmax-ce takes any non-negative rows.
        ghm-r: the values that the predictions should have. Labels beside targets only say which rows are ignored.
    scores: one a row, in [0,1], such as the IoU of a box: the target of the label's element, instead of 1. A score of a
        row without a class is not read. sigmoid-varifocal and sigmoid-ce take scores.
    reduction: "sum": a scalar, divided by the normalizer. "rows": one loss a row, [...] or [images, height, width,
        anchors]. "none": one loss an element, of the logits' shape; in a softmax loss one a row. Losses are float32
        (float64 for float64).
    normalizer: "sum" (no divisor), "elements", "rows", "positives", "weights", a number, or a tensor with one element
        on the logits' device. The tensor is read there, without a wait, and not clamped.
    row_weights, element_weights: float32 of the rows' or the logits' shape. class_weights, positive_weights: float32
        [C]. background_weight: a number.
    hard_negatives: a number r, for hard negative mining as in SSD. Of each image's background rows, only the ceil(r*P)
        with the largest loss count. P is the number of the image's rows with a class. least_negatives is the least
        number of negatives of an image. Images are the first axis of [images, rows, C] and of maps; [rows, C] is one
        image.
    alpha: a number, or float32 [C] (then also called alpha_per_class). None: the loss's default. Other parameters
        have the names of the C structs: gamma, epsilon, bins, density ("unit-region", "exact"), variant ("paper",
        "mmdet"), momentum, use_stored_density, mu; offset: float32 [C], of softmax-logit-adjusted.
    state: the state of a GHM loss, from ghm_state(bins). It is updated in place. The CPU refuses a state that Tare did
        not write (an average, a cast). A GPU does not check it, because that would wait.

    Returns a tensor. For levels and a reduction other than "sum" it returns a list of tensors.
    Raises ValueError (tare.ArgumentError) for a wrong argument; for a wrong type or keyword this is a TypeError too.
    Raises tare.Error for anything else.

    Derivatives: backward mode, once. With create_graph=True the gradient can be differentiated by the upstream gradient
    (GradNorm; torch.autograd.functional.jvp). These raise: a second derivative by the logits, forward mode
    (torch.func.jvp, jacfwd, forward_ad), the other transforms of torch.func, and batched gradients (vectorize=True,
    is_grads_batched). A graph of torch.jit.trace raises if its numbers may be wrong for the shape of the call.
    """
    key = tensors = None
    if _prepared.is_eager():
        key, tensors = _prepared.key_of(locals())
        if key is not None and (call := _prepared.find(key)):
            value = _checks.number("normalizer", normalizer) if type(normalizer) in (int, float) else 1.0
            return call(tensors, value, state)
    name, classes = _losses.loss_name(name), _batch.check_classes(classes)
    fused, several, levels = _levels_of(logits)
    _check_what_is_wanted(labels, targets, reduction, normalizer)
    if fused and (reduction != "sum" or classes):
        raise ValueError("a Head has reduction 'sum' alone, and no maps")
    given = {
        "labels": labels,
        "targets": targets,
        "scores": scores,
        "row_weights": row_weights,
        "element_weights": element_weights,
    }
    given = {key: one for key, one in given.items() if one is not None}
    arrays = [
        (key, array) for key, one in given.items() for array in _tensors.per_level(key, one, levels, several, classes)
    ]
    singles = {"class_weights": class_weights, "positive_weights": positive_weights}
    per_class = parameters.pop("alpha_per_class", None)
    if per_class is not None and alpha is not None:
        raise ValueError("alpha and alpha_per_class are two names of one argument; give one of them")
    if per_class is not None or (isinstance(alpha, torch.Tensor) and alpha.dim()):
        singles["alpha_per_class"] = alpha if per_class is None else per_class
    elif alpha is not None:
        parameters["alpha"] = alpha
    singles.update({key: parameters.pop(key) for key in _losses.vectors_of(name) if key in parameters})
    parameters = _losses.parameters_of(name, parameters)
    singles = {key: _tensors.real_tensor(key, one) for key, one in singles.items() if one is not None}
    divisor, normalizer, value = _divisor(normalizer, levels[0].device)
    singles.update({} if divisor is None else {"normalizer": divisor})
    singles.update(_state_of(name, state, parameters, levels[0].device))
    sources = [one for one in logits[:3] if one is not None] if fused else levels
    _tensors.check_arguments(sources, arrays, singles)

    settings = {
        "loss": name,
        "reduction": reduction,
        "normalizer": normalizer,
        "classes": classes or 0,
        **_batch.label_options(
            first_label, background_label, ignore_label, background_weight, hard_negatives, least_negatives
        ),
        **parameters,
    }
    if torch.jit.is_tracing():
        settings["traced"] = _spec.traced_shapes(levels, fixed=normalizer == "value" and divisor is None)
    spec, arrays = _spec.write_spec(settings, list(given), list(singles)), [array for _, array in arrays]
    if key is not None and not fused and reduction != "histogram":
        recipe = _prepared.recipe_of(tensors, levels, arrays, list(given.values()), singles)
        if recipe is not None:
            results = len(levels) if several and reduction != "sum" else None
            call = _prepared.Call(spec, reduction, levels, arrays, singles, recipe, results)
            result = call(tensors, value, state)
            _prepared.keep(key, call)  # which passed the library's checks too
            return result
    run, logits = (_linear.evaluate, logits) if fused else (_ops.evaluate, levels)
    results = run(spec, reduction, value, logits, arrays, singles)
    if state is not None:
        state.copy_(results[-1])
    return list(results[: len(levels)]) if several and reduction != "sum" else results[0]


def _levels_of(logits):
    """Whether `logits` is a Head, whether it is a list of levels, and the tensors, level by level."""
    if isinstance(logits, Head):
        for place, one in zip(("features", "weight", "bias"), logits):
            if one is not None or place != "bias":
                _tensors.check_tensor(place, one)
        return True, False, [logits.features]
    if isinstance(logits, (list, tuple)):
        if not logits:
            raise ValueError("logits is an empty list; there must be 1 to 16 levels")
        return False, True, [_tensors.check_tensor(f"logits[{index}]", one) for index, one in enumerate(logits)]
    return False, False, [_tensors.check_tensor("logits", logits)]


def _check_what_is_wanted(labels, targets, reduction, normalizer):
    if labels is None and targets is None:
        raise ValueError("labels and targets are None; one of them is needed")
    if reduction != "histogram":  # which is ghm_histogram's own
        _checks.word("reduction", reduction, ("sum", "rows", "none"))
    if reduction != "sum" and not (isinstance(normalizer, str) and normalizer == "sum"):
        raise ValueError(f"normalizer is given with reduction '{reduction}'; only a sum is divided")


def _state_of(name, state, parameters, device):
    """The GHM state of a call, if it has one: the caller's or a fresh one."""
    if state is not None:
        if not _losses.DESCRIPTIONS[name].has_state:
            raise _losses.no_parameter(name, "state")
        return {"state": _tensors.state_tensor(state)}
    if not _spec.keeps_state(name, parameters):
        return {}
    return {
        "state": ghm_state(_losses.value_of(name, parameters, "bins"), device)
    }  # in which backward finds the density of this pass


def _divisor(normalizer, device):
    """A normalizer's tensor or None, its word in the spec, and its number or 1."""
    if torch.compiler.is_compiling() and isinstance(normalizer, (int, float)):  # a number would be part of the graph
        normalizer = torch.full((), float(normalizer), device=device)
    if isinstance(normalizer, torch.Tensor):
        return _tensors.real_tensor("normalizer", normalizer), "value", 1.0
    if isinstance(normalizer, str):
        return None, _checks.word("normalizer", normalizer, _c.NORMALIZERS, ", a number or a tensor"), 1.0
    return None, "value", _checks.number("normalizer", normalizer)


def sigmoid_ce(logits, labels=None, *, alpha=None, **options):
    """alpha_t*l an element: binary cross-entropy of each class, l = -log p. alpha: of targets 1, 1-alpha of others."""
    return loss("sigmoid-ce", logits, labels, alpha=alpha, **options)


def sigmoid_focal(logits, labels=None, *, gamma=2.0, alpha=0.25, **options):
    """alpha_t*q^gamma*l an element (Lin et al., arXiv 1708.02002, eq. 5). gamma >= 0; alpha None or negative: off."""
    if alpha is None:
        alpha = -1.0
    if options.get("alpha_per_class") is not None and isinstance(alpha, float) and alpha in (-1.0, 0.25):
        alpha = None  # it was not given
    return loss("sigmoid-focal", logits, labels, gamma=gamma, alpha=alpha, **options)


def sigmoid_poly1(logits, labels=None, *, gamma=2.0, alpha=None, epsilon=1.0, **options):
    """alpha_t*q^gamma*l + epsilon*q^(gamma+1) an element (Leng et al., arXiv 2204.12511, Poly-1 focal)."""
    return loss("sigmoid-poly1", logits, labels, gamma=gamma, alpha=alpha, epsilon=epsilon, **options)


def sigmoid_varifocal(
    logits, labels=None, scores=None, *, gamma=2.0, alpha=0.75, modulator="differentiated", **options
):
    """Varifocal loss (Zhang et al., arXiv 2008.13367, eq. 2): q*CE(x,q) of a label with score q > 0, and
    alpha*p^gamma*softplus(x) of every other element. modulator: "differentiated" as in the paper, or "detached" as in
    RT-DETR: whether the gradient is also that of p^gamma."""
    if alpha is None:
        alpha = -1.0
    return loss(
        "sigmoid-varifocal", logits, labels, scores=scores, gamma=gamma, alpha=alpha, modulator=modulator, **options
    )


def softmax_ce(logits, labels=None, **options):
    """-log softmax(x)_y a row."""
    return loss("softmax-ce", logits, labels, **options)


def softmax_focal(logits, labels=None, *, gamma=2.0, alpha=None, **options):
    """alpha*q^gamma*(-log p) a row, p = softmax(x)_y, q = 1-p. alpha multiplies every row, or is float32 [C]."""
    return loss("softmax-focal", logits, labels, gamma=gamma, alpha=alpha, **options)


def softmax_logit_adjusted(logits, labels=None, *, offset, **options):
    """-log softmax(x + offset)_y a row (Menon et al., arXiv 2007.07314, eq. 10).

    offset: float32 [C], from tare.logit_adjustment(counts, tau). With tau 1 this is balanced softmax (arXiv
    2007.10740). Use it in training only; at inference use the logits without offsets.
    """
    if offset is None:
        raise ValueError("offset is None; it must be float32 [C], as tare.logit_adjustment makes it")
    return loss("softmax-logit-adjusted", logits, labels, offset=offset, **options)


class LogitAdjustedLoss(torch.nn.Module):
    """softmax_logit_adjusted with the offsets tau*log(n_c/sum n) of class counts. Call it with logits, labels and the
    options of `loss`.

    counts: training samples of each class [C], including background if that is a class. A count of 0 counts as 1.
    The offsets are a buffer. They stay float32 when the model is cast.
    """

    def __init__(self, counts, tau=1.0, **options):
        super().__init__()
        self.tau, self.options = tau, options
        counts = counts.detach().cpu().numpy() if isinstance(counts, torch.Tensor) else counts
        self.register_buffer("offset", torch.from_numpy(logit_adjustment(counts, tau)))

    def _apply(self, fn, recurse=True):
        exact = self.offset
        super()._apply(fn, recurse)
        if self.offset.dtype != torch.float32:  # half() and the like would round it
            self.offset = exact.to(self.offset.device)
        return self

    def forward(self, logits, labels=None, **options):
        return softmax_logit_adjusted(logits, labels, offset=self.offset, **self.options, **options)

    def extra_repr(self):
        given = {"classes": len(self.offset), "tau": self.tau, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


def ghm_c(logits, labels=None, *, bins=30, momentum=0.0, state=None, **options):
    """Sum of CE/GD(g), g = |sigmoid(x)-t|, GD the gradient density (Li et al., arXiv 1811.05181, eq. 9)."""
    return loss("ghm-c", logits, labels, bins=bins, momentum=momentum, state=state, **options)


def ghm_r(predictions, targets, labels=None, *, mu=0.02, bins=10, momentum=0.0, state=None, **options):
    """Sum of ASL1/GD(g), g = |d|/sqrt(d^2+mu^2), d = prediction-target (Li et al., eq. 12). labels: what counts."""
    return loss(
        "ghm-r", predictions, labels, targets=targets, mu=mu, bins=bins, momentum=momentum, state=state, **options
    )


# ---- GHM ------------------------------------------------------------------------------------------------------------


def ghm_state(bins, device="cpu"):
    """A fresh GHM state for `bins` unit regions: int64 [2 + 3*bins], all zero. The header says what it holds."""
    bins = _checks.integer("bins", bins, 1, 1024)
    return torch.zeros(2 + 3 * bins, dtype=torch.int64, device=device)


def ghm_histogram(name, logits, labels=None, *, state, **options):
    """Counts the gradient norms of this rank's part of a batch into words [1, 2+bins) of `state` ("ghm-c" or "ghm-r").

    For one batch on several ranks: count, add these words over the ranks, update the density, evaluate with it:

        tare.torch.ghm_histogram("ghm-c", logits, labels, bins=30, state=state)
        torch.distributed.all_reduce(state[1:32])
        tare.torch.ghm_density("ghm-c", state, bins=30, momentum=0.75)
        loss = world_size * tare.torch.ghm_c(logits, labels, bins=30, state=state, use_stored_density=True)

    The factor world_size is for gradients that are averaged over the ranks, as DistributedDataParallel does. The
    arguments are those of `loss`. Unit regions only.
    """
    if "reduction" in options:
        raise _checks.WrongType("a histogram has no reduction")
    loss(name, logits, labels, state=_tensors.state_tensor(state), reduction="histogram", **options)


def ghm_density(name, state, **parameters):
    """Computes momentum sums and 1/GD from the counts in `state` and adds one step, in place. Not in torch.compile.

    parameters: bins, momentum, variant, as the loss has them.
    """
    _call.update_density(name, state, parameters)


class _Ghm(torch.nn.Module):
    """The base of both GHM modules: settings and the state. state_dict() saves the state; it moves with the model.

    The state is not a buffer, because its words are counts and doubles that no average may touch. So
    AveragedModel(use_buffers=True), other averages of a model (EMA, SWA), averages over ranks and
    DistributedDataParallel's broadcast leave it alone. A copy of a model keeps its own sums, and so does each rank.
    ghm_histogram gives one density for all ranks.

    state_dict() gives a copy of the state. load_state_dict refuses a state that Tare did not write, such as an average
    of checkpoints. to_empty() keeps the state, or makes a fresh one if it had no memory (meta). half() does not change
    it.
    """

    def __init__(self, bins, momentum, options):
        super().__init__()
        self.bins, self.momentum, self.options = bins, momentum, options
        self.state = ghm_state(bins)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        moved = fn(self.state)  # says where to; what it holds may be nothing (to_empty) or rounded (type)
        if moved is not self.state:
            self.state = ghm_state(self.bins, moved.device) if self.state.is_meta else self.state.to(moved.device)
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "state"] = self.state.clone()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        key = prefix + "state"
        others = {name: one for name, one in state_dict.items() if name != key}
        super()._load_from_state_dict(others, prefix, local_metadata, strict, missing, unexpected, errors)
        if key not in state_dict:
            missing += [key] if strict else []
            return
        try:
            loaded = _tensors.loaded_state(state_dict[key], self.bins)
        except ValueError as error:
            errors.append(f"{key}: {error}")
            return
        self.state = loaded if self.state.is_meta else self.state.copy_(loaded)

    def extra_repr(self):
        given = {"bins": self.bins, "momentum": self.momentum, **self.options}
        return ", ".join(f"{key}={value}" for key, value in given.items())


class GHMC(_Ghm):
    """ghm_c with its momentum sums in `state`. Call it with logits, labels and the options of `loss`."""

    def __init__(self, bins=30, momentum=0.0, **options):
        super().__init__(bins, momentum, options)

    def forward(self, logits, labels=None, **options):
        return ghm_c(
            logits, labels, bins=self.bins, momentum=self.momentum, state=self.state, **self.options, **options
        )


class GHMR(_Ghm):
    """ghm_r with its momentum sums in `state`. Call it with predictions, targets and the options of `loss`."""

    def __init__(self, mu=0.02, bins=10, momentum=0.0, **options):
        super().__init__(bins, momentum, {"mu": mu, **options})

    def forward(self, predictions, targets, labels=None, **options):
        return ghm_r(
            predictions,
            targets,
            labels,
            bins=self.bins,
            momentum=self.momentum,
            state=self.state,
            **self.options,
            **options,
        )


# ---- a GPU's errors -------------------------------------------------------------------------------------------------


def check(device=None):
    """Raises the errors that evaluations on a GPU found since the last check.

    A label that is neither a class, nor background, nor ignore raises ValueError. An error of the device raises
    tare.Error. It waits for the GPU's current stream and checks the evaluations on it. If a graph was captured, it
    waits for the whole GPU and checks every graph.

    device: a GPU; None: the current one. Without a GPU it does nothing, because the CPU raises at once. While the
    current stream is being captured it raises tare.Error, and the capture goes on.
    """
    device = torch.device("cuda" if device is None else device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    stream = _call.raw_stream(index)
    if _c.capture_of(stream):
        raise _c.Error(_c.CAPTURING, "the current stream is being captured; check after its graph has run")
    graphs = _c.contexts_of_graphs(index)
    if graphs:  # whose replays may be on any stream
        torch.cuda.synchronize(index)
    for context in [*_c.contexts_of(_c.CUDA, index, stream), *graphs]:
        _c.check(_c.library.tare_context_synchronize(context, stream), context)
