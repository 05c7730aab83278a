# SPDX-License-Identifier: Apache-2.0
"""The formulas of the papers in double precision, for the tests: written from them, with nothing of Tare in it.

Each function takes float64 NumPy arrays and returns losses and their gradient by the logits, unnormalized.
"""

import numpy as np


def sigmoid(x, t, gamma=0.0, alpha=None, epsilon=0.0):
    """(alpha-balanced) cross-entropy, focal and Poly-1 losses of elements; t in [0,1]."""
    with np.errstate(over="ignore", invalid="ignore"):
        p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
        hard = (t == 0) | (t == 1)
        ce = np.where(t == 1, np.logaddexp(0, -x), np.logaddexp(0, x) - np.where(t == 0, 0, x * t))
        slope = np.where(t == 1, -q, np.where(t == 0, p, p - t))
        s = np.where(t == 1, q, np.where(t == 0, p, p * (1 - t) + q * t))  # how wrong: |p - t| of hard targets
        balance = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
        ds = (1 - 2 * t) * p * q
        power = s**gamma
        loss = balance * power * ce + epsilon * s ** (gamma + 1)
        ratio = np.where(hard, np.where(t == 1, -p, q), ds / s)  # ds/s, where s may be 0
        modulated = gamma * ratio * ce if gamma else 0.0
        gradient = balance * power * (slope + modulated) + epsilon * (gamma + 1) * power * ds
    return loss, gradient


def one_hot(labels, classes):
    """Targets of labels; a label outside the classes is background."""
    return (labels[:, None] == np.arange(classes)).astype(np.float64)


def softmax(x, labels, gamma=0.0, alpha=1.0):
    """Cross-entropy and focal losses of rows."""
    rows = np.arange(len(x))
    e = np.exp(x - x.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    others = p.copy()
    others[rows, labels] = 0
    q, at = others.sum(1), p[rows, labels]
    ce = -np.log(at)
    near = q < 0.5
    ce[near] = -np.log1p(-q[near])
    loss = alpha * q**gamma * ce
    down = alpha * q**gamma * (1.0 + (gamma * at * ce / q if gamma else 0.0))  # q times it: minus the derivative by z
    gradient = others * down[:, None]
    gradient[rows, labels] = -q * down
    return loss, gradient


def unit_regions(g, bins, valid):
    """Which bin each gradient norm falls in, and how many of the valid ones do in each."""
    place = np.minimum((g * bins).astype(int), bins - 1)
    return place, np.bincount(place[valid], minlength=bins).astype(float)


def ghm_c(x, t, bins, valid=None, sums=None):
    """CE/GD; sums: of earlier steps with momentum, else this batch's counts."""
    valid = np.ones(x.shape, bool) if valid is None else valid
    loss, gradient = sigmoid(x, t)
    place, counts = unit_regions(np.abs(gradient), bins, valid)
    density = (counts if sums is None else sums)[place] * bins
    return np.where(valid, loss / density, 0), np.where(valid, gradient / density, 0)


def ghm_r(d, mu, bins):
    root = np.sqrt(d * d + mu * mu)
    place, counts = unit_regions(np.abs(d) / root, bins, np.ones(d.shape, bool))
    density = counts[place] * bins
    return d * d / (root + mu) / density, d / root / density


def exact_density(g, epsilon):
    """The paper's density: norms within epsilon/2, over the length of that window inside [0,1]."""
    near = (np.abs(g[:, None] - g[None, :]) <= epsilon / 2).sum(1)
    return near / (np.minimum(g + epsilon / 2, 1) - np.maximum(g - epsilon / 2, 0))
