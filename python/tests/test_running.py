# SPDX-License-Identifier: Apache-2.0
"""Class-balanced weights of running counts: when a step is taken, which weights backward takes, and what is saved."""

import copy
import io

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import tare
import tare.torch
from tare.torch import nn

CLASSES = 7


def batch(seed, seen=CLASSES):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(60, CLASSES, generator=source).requires_grad_()
    return x, torch.randint(-2, seen, (60,), generator=source)


def counts_of(*labels):
    return sum(np.bincount(one[one >= 0].numpy(), minlength=CLASSES) for one in labels).astype(float)


def expected(x, labels, counts, beta=0.99, **options):
    weights = torch.from_numpy(tare.class_balanced_weights(counts, beta))
    return tare.torch.sigmoid_focal(x, labels, class_weights=weights, **options)


def close(found, theirs):
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-7)


def test_weights_follow_the_counts():
    module = nn.RunningClassBalancedLoss(CLASSES, 0.99, normalizer="positives")
    (x, first), (_, second) = batch(1, seen=4), batch(2)
    close(module(x, first), expected(x, first, counts_of(first), normalizer="positives"))
    found = module(x, second)
    both = expected(x, second, counts_of(first, second), normalizer="positives")
    close(found, both)
    close(*(torch.autograd.grad(one, x)[0] for one in (found, both)))
    assert (module.counts.numpy() == counts_of(first, second)).all() and module.state[0] == 2


def test_levels_and_conventions():
    module = nn.RunningClassBalancedLoss(CLASSES, background_label=CLASSES, loss="softmax-focal", least_count=3.0)
    x, labels = batch(3)
    labels = labels.where(labels >= 0, torch.tensor(CLASSES))
    module([x[:20], x[20:]], [labels[:20].to(torch.int16), labels[20:].to(torch.int16)]).backward()
    assert (module.counts.numpy() == counts_of(labels[labels < CLASSES])).all()
    module(x, labels + 1, first_label=1, background_label=CLASSES + 1)
    assert (module.counts.numpy() == 2 * counts_of(labels[labels < CLASSES])).all()


def test_a_step_is_taken_in_training_alone():
    module = nn.RunningClassBalancedLoss(CLASSES, 0.99)
    x, labels = batch(4)
    plain = tare.torch.sigmoid_focal(x, labels)
    close(module.eval()(x, labels), plain)  # nothing was seen: every weight is 1
    with torch.no_grad():
        close(module.train()(x, labels), plain)
    assert not module.state.any()
    module(x, labels).backward()
    before = module.state.clone()
    close(module.eval()(x, labels), expected(x, labels, counts_of(labels)))
    assert torch.equal(module.state, before)


@pytest.mark.parametrize("keep_gradient", [True, False])
def test_backward_takes_the_weights_of_its_forward(keep_gradient):
    module = nn.RunningClassBalancedLoss(CLASSES, 0.99, keep_gradient=keep_gradient)
    x, labels = batch(5, seen=3)
    loss = module(x, labels)
    (want,) = torch.autograd.grad(expected(x, labels, counts_of(labels)), x)
    module(*batch(6))  # another forward comes between
    close(torch.autograd.grad(loss, x, retain_graph=True)[0], want)
    close(torch.autograd.grad(loss, x)[0], want)
    assert module.state[0] == 2


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_is_refused(reentrant):
    module = nn.RunningClassBalancedLoss(CLASSES)
    x, labels = batch(7)
    loss = checkpoint(lambda logits: module(logits * 1, labels), x, use_reentrant=reentrant)
    before = module.state.clone()
    with pytest.raises(RuntimeError, match="outside of the checkpoint"):
        loss.backward()
    assert torch.equal(module.state, before)


def test_state_is_saved_and_moves():
    module, other = (nn.RunningClassBalancedLoss(CLASSES, decay=0.5) for _ in range(2))
    for seed in range(3):
        module(*batch(seed))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    copied = copy.deepcopy(module).half()
    x, labels = batch(9)
    losses = [one(x, labels) for one in (module, other, copied)]
    assert losses[0] == losses[1] == losses[2] and torch.equal(module.state, other.state)
    assert "decay=0.5" in repr(module)
    bad = {"state": module.state.clone()}
    bad["state"][-1] = torch.tensor([float("nan")], dtype=torch.float64).view(torch.int64)[0]
    with pytest.raises(RuntimeError, match="not finite"):
        other.load_state_dict(bad)
    with pytest.raises(RuntimeError, match="needs? 9|words"):
        nn.RunningClassBalancedLoss(4).load_state_dict(module.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


def test_what_is_refused():
    for options, text in (
        ({"classes": 0}, "classes is 0"),
        ({"beta": 1.0}, "beta is 1"),
        ({"decay": 0.0}, "decay is 0"),
        ({"least_count": -1.0}, "least_count is -1"),
        ({"loss": "ghm-c"}, "no class weights"),
        ({"class_weights": torch.ones(CLASSES)}, "class_weights is given"),
    ):
        with pytest.raises(ValueError, match=text):
            nn.RunningClassBalancedLoss(**{"classes": CLASSES, **options})
    x, labels = batch(1)
    module = nn.RunningClassBalancedLoss(CLASSES)
    with pytest.raises(ValueError, match="labels is None"):
        module(x, None)
    with pytest.raises(ValueError, match="label of row"):
        module(x, labels + CLASSES)
    with pytest.raises(TypeError, match="no state of a loss"):
        torch.jit.script(module)


def test_compiled():
    module = nn.RunningClassBalancedLoss(CLASSES, 0.99)
    x, labels = batch(8)
    step = torch.compile(lambda a, b: 2 * module(a, b), backend="aot_eager")
    close(step(x, labels), 2 * expected(x, labels, counts_of(labels)))
    close(step(x, labels), 2 * expected(x, labels, 2 * counts_of(labels)))
    assert module.state[0] == 2
