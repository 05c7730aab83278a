# SPDX-License-Identifier: Apache-2.0
"""Who is timed: Tare by its plain calls, and the libraries that people use today, each with the targets it wants."""

import ctypes
import os

import numpy as np
import torch
import torch.nn.functional as F

DTYPES = {"f32": (0, torch.float32), "f16": (1, torch.float16), "bf16": (2, torch.bfloat16)}
GAMMA, ALPHA, BINS = 2.0, 0.25, 30
SUM = 0  # tare_normalizer


# ---- their gradients ------------------------------------------------------------------------------------------------


def exact_gradient(family, x, labels):
    """The paper's gradient in double, grouped so that nothing cancels; None for a family that is not compared."""
    x = x.double()
    at_label = torch.zeros_like(x, dtype=torch.bool)
    has_label = labels >= 0
    at_label[has_label, labels[has_label]] = True
    if family.startswith("softmax ce"):
        p = torch.softmax(x, 1)
        rest = torch.where(at_label, torch.zeros_like(p), p).sum(1, keepdim=True)
        return torch.where(at_label, -rest, p)
    if family not in ("focal", "sigmoid ce"):
        return None
    z = torch.where(at_label, x, -x)
    p, q = torch.sigmoid(z), torch.sigmoid(-z)
    slope = q
    if family == "focal":
        log_p = torch.log1p(torch.exp(-z.abs())) + torch.clamp(-z, min=0)  # -log p
        weight = torch.where(at_label, torch.full_like(z, ALPHA), torch.full_like(z, 1 - ALPHA))
        slope = weight * q**GAMMA * (q + GAMMA * p * log_p)
    return torch.where(at_label, -slope, slope)


def gradient_error(family, batch, labels, gradient):
    """The worst relative error of a contender's gradient over the first rows; None where there is no reference."""
    rows = min(batch.rows, max(1, 2**22 // batch.classes))
    exact = exact_gradient(family, batch.logits[:rows], labels[:rows])
    if exact is None:
        return None
    error = (gradient[:rows].double() - exact).abs() / exact.abs().clamp(min=1e-30)
    return float(error.max())


# ---- Tare -----------------------------------------------------------------------------------------------------------


def threads_of_pytorch():
    """What tare.torch gives the library: its CPU calls run on PyTorch's OpenMP threads."""
    try:
        library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
        return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None


class Tare:
    """The plain calls of the library, by ctypes."""

    def __init__(self, path, device):
        self.c = ctypes.CDLL(path)
        self.c.tare_error_text.restype = ctypes.c_char_p
        self.c.tare_error_text.argtypes = [ctypes.c_void_p]
        options = (ctypes.c_uint64 * 4)()  # tare_context_options: 8 bytes of size, four int32
        self.c.tare_context_options_init_sized(options, ctypes.c_uint64(24))
        ctypes.cast(options, ctypes.POINTER(ctypes.c_int32))[2] = 2 if device == "cuda" else 1
        self.context = ctypes.c_void_p()
        if self.c.tare_context_create(ctypes.byref(self.context), options):
            raise RuntimeError(self.c.tare_error_text(None).decode())
        self.device = device
        self.c.tare_use_threads(threads_of_pytorch())
        self.c.tare_build_description.restype = ctypes.c_char_p

    def version(self):
        number = self.c.tare_version()
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    def build(self):
        return self.c.tare_build_description().decode()

    def call(self, name, batch, labels, *parameters):
        loss = torch.zeros(1, device=batch.logits.device)
        gradient = torch.empty_like(batch.logits)
        stream = torch.cuda.current_stream().cuda_stream if self.device == "cuda" else None
        function = getattr(self.c, name)
        arguments = [
            self.context,
            ctypes.c_int64(batch.rows),
            ctypes.c_int64(batch.classes),
            DTYPES[batch.dtype][0],
            ctypes.c_void_p(batch.logits.data_ptr()),
            ctypes.c_void_p(labels.data_ptr()),
            *parameters,
            ctypes.c_void_p(loss.data_ptr()),
            ctypes.c_void_p(gradient.data_ptr()),
            ctypes.c_void_p(stream),
        ]

        def run():
            if function(*arguments):
                raise RuntimeError(self.c.tare_error_text(self.context).decode())
            return loss, gradient

        return run


# ---- the peers ------------------------------------------------------------------------------------------------------


def torchvision_formula(inputs, targets, alpha, gamma):
    """torchvision.ops.sigmoid_focal_loss of reduction "sum", as published; used where torchvision is not installed."""
    p = torch.sigmoid(inputs)
    ce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    loss = ce * ((1 - p_t) ** gamma)
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return loss.sum()


def softmax_focal_formula(inputs, labels, gamma):
    """Softmax focal loss by PyTorch's operators, of reduction "sum"."""
    log_p = F.log_softmax(inputs, 1).gather(1, labels[:, None])
    return -((1 - log_p.exp()) ** gamma * log_p).sum()


def torchvision_loss():
    try:
        from torchvision.ops import sigmoid_focal_loss

        return lambda x, t, a, g: sigmoid_focal_loss(x, t, a, g, reduction="sum"), "torchvision"
    except ImportError:
        return torchvision_formula, "torchvision's formula"


def ghm_as_in_mmdetection(x, target, bins):
    """GHMC.forward of mmdetection without momentum: a host wait for every bin, and one for the total."""
    edges = [float(k) / bins for k in range(bins + 1)]
    edges[-1] += 1e-6
    weights = torch.zeros_like(x)
    g = torch.abs(x.sigmoid().detach() - target)
    valid = torch.ones_like(x) > 0
    total = max(valid.float().sum().item(), 1.0)
    occupied = 0
    for k in range(bins):
        inside = (g >= edges[k]) & (g < edges[k + 1]) & valid
        count = inside.sum().item()
        if count > 0:
            weights[inside] = total / count
            occupied += 1
    if occupied > 0:
        weights = weights / occupied
    return F.binary_cross_entropy_with_logits(x, target, weights, reduction="sum") / total


def as_tensor(gradient):
    """JAX has arrays of its own."""
    return gradient if torch.is_tensor(gradient) else torch.from_numpy(np.array(gradient, dtype=np.float32))


class Contenders:
    def __init__(self, batch, family="all", without=()):
        self.of, self.left_out, self.batch = [], [], batch
        self.family, self.without, self.known = family, without, []

    def by_family(self):
        """One loss after the other, each family where it came first."""
        families = list(dict.fromkeys(contender["family"] for contender in self.of))
        self.of.sort(key=lambda contender: families.index(contender["family"]))

    def add(self, family, label, loss, make):
        """`make` returns a function that computes (loss, gradient); one that fails is left out, with its reason."""
        self.known.append(label)
        if self.family != "all" and self.family != ("softmax" if family.startswith("softmax") else "sigmoid"):
            return
        if any(text in label for text in self.without):
            self.left_out.append({"family": family, "label": label, "why": "by --without"})
            return
        try:
            run = make()
            value, gradient = run()
            gradient = as_tensor(gradient)
            labels = self.batch.softmax if family.startswith("softmax") else self.batch.labels
            error = gradient_error(family, self.batch, labels, gradient)
            self.of.append(
                {
                    "family": family,
                    "label": label,
                    "loss": loss,
                    "run": run,
                    "value": float(value),
                    "gradient_error": error,
                }
            )
        except Exception as error:  # whatever a peer raises is its reason for being left out
            why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            self.left_out.append({"family": family, "label": label, "why": why})


def compiled(function, *arguments):
    if not hasattr(torch, "compile"):
        raise RuntimeError(f"torch {torch.__version__} has no compile")
    fast = torch.compile(function, dynamic=False)
    return lambda: fast(*arguments)


def add_sigmoid(contenders, tare, batch):
    x, t = batch.leaf, batch.onehot
    double = ctypes.c_double
    focal, source = torchvision_loss()
    contenders.add(
        "focal",
        "Tare",
        "sigmoid-focal",
        lambda: tare.call("tare_sigmoid_focal", batch, batch.labels32, double(GAMMA), double(ALPHA), SUM),
    )
    contenders.add(
        "focal", f"{source}, eager", "sigmoid-focal", lambda: lambda: batch.backward(focal(x, t, ALPHA, GAMMA))
    )

    def focal_compiled():
        loss = compiled(torchvision_formula, x, t, ALPHA, GAMMA)
        return lambda: batch.backward(loss())

    contenders.add("focal", "torchvision's formula, torch.compile", "sigmoid-focal", focal_compiled)

    def mmcv():
        from mmcv.ops import sigmoid_focal_loss

        return lambda: batch.backward(sigmoid_focal_loss(x, batch.background_last, GAMMA, ALPHA, None, "none").sum())

    def apex():
        from apex.contrib.focal_loss import focal_loss

        one = torch.ones(1, device=x.device)
        return lambda: batch.backward(focal_loss(x, batch.labels, one, batch.classes, ALPHA, GAMMA, 0.0))

    def kornia():
        from kornia.losses import binary_focal_loss_with_logits

        return lambda: batch.backward(binary_focal_loss_with_logits(x, t, ALPHA, GAMMA, "sum"))

    contenders.add("focal", "kornia", "sigmoid-focal", kornia)
    contenders.add("focal", "mmcv", "sigmoid-focal", mmcv)
    contenders.add("focal", "apex", "sigmoid-focal", apex)
    contenders.add(
        "sigmoid ce", "Tare", "sigmoid-ce", lambda: tare.call("tare_sigmoid_ce", batch, batch.labels32, double(-1), SUM)
    )
    contenders.add(
        "sigmoid ce",
        "F.binary_cross_entropy_with_logits",
        "sigmoid-ce",
        lambda: lambda: batch.backward(F.binary_cross_entropy_with_logits(x, t, reduction="sum")),
    )

    def sigmoid_ce_compiled():
        loss = compiled(lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction="sum"), x, t)
        return lambda: batch.backward(loss())

    contenders.add("sigmoid ce", "F.binary_cross_entropy_with_logits, torch.compile", "sigmoid-ce", sigmoid_ce_compiled)
    contenders.add("ghm-c", "Tare", "ghm-c", lambda: tare.call("tare_ghm_c", batch, batch.labels32, BINS))
    contenders.add(
        "ghm-c", "mmdetection's loop", "ghm-c", lambda: lambda: batch.backward(ghm_as_in_mmdetection(x, t, BINS))
    )


def add_softmax(contenders, tare, batch):
    x, y = batch.leaf, batch.softmax
    contenders.add(
        "softmax ce", "Tare", "softmax-ce", lambda: tare.call("tare_softmax_ce", batch, batch.softmax32, SUM)
    )
    contenders.add(
        "softmax ce",
        "F.cross_entropy",
        "softmax-ce",
        lambda: lambda: batch.backward(F.cross_entropy(x, y, reduction="sum")),
    )

    def ce_compiled():
        loss = compiled(lambda a, b: F.cross_entropy(a, b, reduction="sum"), x, y)
        return lambda: batch.backward(loss())

    def apex():
        from apex.contrib.xentropy import SoftmaxCrossEntropyLoss

        return lambda: batch.backward(SoftmaxCrossEntropyLoss.apply(x, y, 0.0, -100, True).sum())

    def liger():
        from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction

        def run():  # its kernel writes the gradient over the logits, so it gets a copy, as a head's output would be
            logits = x.detach().clone().requires_grad_(True)
            result = LigerCrossEntropyFunction.apply(logits, y, None, -100, 0.0, 0.0, "sum")
            loss = result[0] if isinstance(result, tuple) else result
            (gradient,) = torch.autograd.grad(loss, logits)
            return loss, gradient

        return run

    contenders.add("softmax ce", "F.cross_entropy, torch.compile", "softmax-ce", ce_compiled)
    contenders.add("softmax ce", "apex xentropy", "softmax-ce", apex)
    contenders.add("softmax ce", "Liger (with a copy of the logits)", "softmax-ce", liger)
    contenders.add(
        "softmax focal",
        "Tare",
        "softmax-focal",
        lambda: tare.call(
            "tare_softmax_focal", batch, batch.softmax32, ctypes.c_double(GAMMA), ctypes.c_double(-1), SUM
        ),
    )

    def mmcv():
        from mmcv.ops import softmax_focal_loss

        return lambda: batch.backward(softmax_focal_loss(x, y, GAMMA, 1.0, None, "sum"))

    def kornia():
        from kornia.losses import focal_loss

        return lambda: batch.backward(focal_loss(x, y, None, GAMMA, "sum"))

    def formula_compiled():
        loss = compiled(softmax_focal_formula, x, y, GAMMA)
        return lambda: batch.backward(loss())

    contenders.add(
        "softmax focal",
        "softmax focal's formula, eager",
        "softmax-focal",
        lambda: lambda: batch.backward(softmax_focal_formula(x, y, GAMMA)),
    )
    contenders.add("softmax focal", "softmax focal's formula, torch.compile", "softmax-focal", formula_compiled)
    contenders.add("softmax focal", "kornia", "softmax-focal", kornia)
    contenders.add("softmax focal", "mmcv", "softmax-focal", mmcv)
