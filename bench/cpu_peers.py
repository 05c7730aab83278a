# SPDX-License-Identifier: Apache-2.0
"""Peers that are timed on a CPU alone: optax by JAX, and oneDNN's softmax."""

import ctypes
import os
import tempfile

import torch
import torch.nn.functional as F
from contenders import ALPHA, GAMMA


class OnCpuOnly(Exception):
    def __str__(self):
        return "timed on a CPU alone, since these times are taken on PyTorch's stream"


def require_cpu(batch):
    if batch.logits.device.type != "cpu":
        raise OnCpuOnly


# ---- optax ----------------------------------------------------------------------------------------------------------


def optax_run(batch, loss, targets):
    """Loss and gradient by jax.jit, of arrays that JAX has made before the clock starts."""
    require_cpu(batch)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp
    import optax

    dtype = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}[batch.dtype]
    logits = jnp.asarray(batch.logits.float().numpy(), dtype)
    targets = (
        jnp.asarray(targets.numpy()) if targets.dtype == torch.int32 else jnp.asarray(targets.float().numpy(), dtype)
    )
    evaluate = jax.jit(jax.value_and_grad(lambda x, t: loss(optax, x, t).sum()))

    def run():
        value, gradient = evaluate(logits, targets)
        return value, gradient.block_until_ready()

    return run


def add_optax_sigmoid(contenders, batch):
    contenders.add(
        "focal",
        "optax, jax.jit",
        "sigmoid-focal",
        lambda: optax_run(
            batch, lambda optax, x, t: optax.sigmoid_focal_loss(x, t, alpha=ALPHA, gamma=GAMMA), batch.onehot
        ),
    )
    contenders.add(
        "sigmoid ce",
        "optax, jax.jit",
        "sigmoid-ce",
        lambda: optax_run(batch, lambda optax, x, t: optax.sigmoid_binary_cross_entropy(x, t), batch.onehot),
    )


def add_optax_softmax(contenders, batch):
    contenders.add(
        "softmax ce",
        "optax, jax.jit",
        "softmax-ce",
        lambda: optax_run(
            batch, lambda optax, x, y: optax.softmax_cross_entropy_with_integer_labels(x, y), batch.softmax32
        ),
    )


# ---- oneDNN ---------------------------------------------------------------------------------------------------------


def onednn_primitives(run):
    """The kinds of oneDNN's primitives that a run executes, as oneDNN itself reports them on standard output."""
    library = ctypes.CDLL(None)
    with tempfile.TemporaryFile() as report:
        library.fflush(None)
        kept = os.dup(1)
        os.dup2(report.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                run()
            library.fflush(None)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        report.seek(0)
        lines = [line.split(",") for line in report.read().decode(errors="replace").splitlines()]
    return {line[5] for line in lines if line[0] == "onednn_verbose" and line[2:4] == ["primitive", "exec"]}


def log_softmax_by(batch):
    """Who computes PyTorch's own log_softmax of these logits: "oneDNN" or "native"; None where that is not asked."""
    if batch.logits.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    found = onednn_primitives(lambda: F.log_softmax(batch.logits[:1024], 1))
    return "oneDNN" if "softmax" in found else "native"


def add_onednn(contenders, batch):
    """Its softmax has no backward in PyTorch, so loss and gradient are formed from the probabilities."""

    def make():
        require_cpu(batch)
        if not torch.backends.mkldnn.is_available():
            raise RuntimeError("this PyTorch has no oneDNN")
        logits, at = batch.logits.to_mkldnn(), batch.softmax[:, None]
        minus_one = torch.full_like(at, -1, dtype=batch.logits.dtype)

        def run():
            gradient = logits.softmax(1).to_dense()
            loss = -gradient.gather(1, at).log().sum()
            return loss, gradient.scatter_add_(1, at, minus_one)

        if "softmax" not in onednn_primitives(run):
            raise RuntimeError("oneDNN reports no softmax here")
        return run

    contenders.add("softmax ce", "oneDNN's softmax, gradient from it", "softmax-ce", make)
