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

import torch

from . import _c, _call, _checks, _tensors
from ._evaluate import logit_adjustment
from ._loss import Head as Head
from ._loss import ghm_state, loss

# ---- the losses -----------------------------------------------------------------------------------------------------


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
    logits,
    labels=None,
    scores=None,
    *,
    gamma=2.0,
    alpha=0.75,
    modulator="differentiated",
    positives="by-score",
    **options,
):
    """Varifocal loss (Zhang et al., arXiv 2008.13367, eq. 2): q*CE(x,q) of a label with score q > 0, and
    alpha*p^gamma*softplus(x) of every other element. modulator: "differentiated" as in the paper, or "detached" as in
    RT-DETR: whether the gradient is also that of p^gamma. positives: "by-score", a label with score 0 is a negative, as
    in mmdetection; or "by-label", it adds nothing, as in RT-DETR."""
    options.update(gamma=gamma, alpha=-1.0 if alpha is None else alpha, modulator=modulator, positives=positives)
    return loss("sigmoid-varifocal", logits, labels, scores=scores, **options)


def sigmoid_quality_focal(logits, labels=None, scores=None, *, beta=2.0, alpha=None, **options):
    """Quality focal loss (Li et al., arXiv 2006.04388, eq. 2): |p-t|^beta*CE(x,t), where t is the score of a label in
    its element, else 0. With alpha this is the position-supervised loss of Stable-DINO (arXiv 2304.04742)."""
    return loss("sigmoid-quality-focal", logits, labels, scores=scores, beta=beta, alpha=alpha, **options)


def sigmoid_matchability(logits, labels=None, scores=None, *, gamma=1.5, alpha=None, modulator="detached", **options):
    """Matchability-aware loss (Huang et al., DEIM, arXiv 2412.04234): CE(x,q^gamma) of a label with score q, and
    alpha*p^gamma*softplus(x) of every other element. modulator: "detached" as in DEIM, or "differentiated"."""
    options.update(gamma=gamma, alpha=alpha, modulator=modulator)
    return loss("sigmoid-matchability", logits, labels, scores=scores, **options)


def sigmoid_iou_aware(logits, labels=None, scores=None, *, gamma=2.0, p_exponent=0.25, **options):
    """IA-BCE (Cai et al., Align-DETR, arXiv 2304.07527; LW-DETR, RF-DETR): CE(x,t) of a label with score q, where
    t = max(p^a*q^(1-a), 0.01) is a constant of the gradient and a = p_exponent; p^gamma*softplus(x) of every other
    element."""
    return loss("sigmoid-iou-aware", logits, labels, scores=scores, gamma=gamma, p_exponent=p_exponent, **options)


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
