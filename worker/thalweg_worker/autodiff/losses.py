"""Losses: each is a mean, over all labels or all elements, a scalar."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from thalweg_worker.autodiff import namespace
from thalweg_worker.autodiff.arithmetic import exp, multiply, negative, subtract
from thalweg_worker.autodiff.chain import Chain
from thalweg_worker.autodiff.operands import cast, detached, elementwise, floats, tensors
from thalweg_worker.autodiff.reductions import mean, sum
from thalweg_worker.autodiff.shaping import reshape
from thalweg_worker.autodiff.tensor import Operand, Tensor


def log_softmax(x: Operand) -> Tensor:
    """x - log(sum(exp(x))) over the last axis, computed after the largest element is subtracted: no overflow."""
    (x,) = floats("log_softmax", x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"log_softmax: expected a last axis of at least one element, found shape {x.shape}")
    xp, count = x.chain.xp, x.shape[-1]

    def kernel(x: Any, ones: Any, out: Any, row: Any, space: Any) -> None:
        x.max(-1, row, True)
        xp.subtract(x, row, out)
        xp.exp(out, space)
        xp.dot(space, ones, row)  # the sum of each row; quicker than `sum` over a short axis
        xp.log(row, row)
        xp.subtract(out, row, out)

    rows = reshape(detached(x), (x.size // count, count))
    ones = x.chain.constant(np.ones((count, 1), x.dtype))
    spaces = [((len(rows), 1), x.dtype), (rows.shape, x.dtype)]
    y = reshape(x.chain.emit(kernel, (rows, ones), rows.shape, reuse=(0,), scratch=spaces), x.shape)
    return y.linked((x, lambda g: subtract(g, multiply(exp(y), sum(g, -1, keepdims=True)))))


def softmax_cross_entropy(logits: Operand, labels: Operand) -> Tensor:
    """mean over i of -log_softmax(logits)[i, labels[i]]; i runs over all positions where samples are sequences.

    logits: (n, ..., c) float; labels: (n, ...) integers in [0, c), else IndexError at replay. Natural logarithm.
    """
    logits, labels = tensors("softmax_cross_entropy", logits, labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"softmax_cross_entropy: expected integer labels, found {labels.dtype}")
    if logits.ndim < 2 or labels.shape != logits.shape[:-1] or 0 in logits.shape:
        expected = "logits (n, c) and labels (n,), or (n, ..., c) and (n, ...)"
        raise ValueError(f"softmax_cross_entropy: expected {expected}, found {logits.shape} and {labels.shape}")
    (logits,), labels = floats("softmax_cross_entropy", logits), cast(labels, np.dtype(np.int64))
    logits, labels = reshape(logits, (-1, logits.shape[-1])), reshape(labels, -1)
    chain, xp, count = logits.chain, logits.chain.xp, logits.shape[0]
    scores = log_softmax(detached(logits))
    places = _places(chain, labels, logits.shape)

    def kernel(scores: Any, places: Any, weights: Any, out: Any, picked: Any) -> None:
        namespace.take(xp, scores.reshape(-1), places, picked)
        xp.dot(picked, weights, out)

    def vjp_kernel(scores: Any, places: Any, minus_one: Any, g: Any, out: Any) -> None:
        xp.exp(scores, out)
        namespace.scatter_add(xp, out.reshape(-1), places, minus_one)
        xp.multiply(out, g, out)

    def vjp(g: Tensor) -> Tensor:
        minus_one = chain.constant(np.full(count, -1, logits.dtype))
        inputs = (scores, places, minus_one, multiply(g, 1 / count))
        return chain.emit(vjp_kernel, inputs, logits.shape, reuse=(0,))

    weights = chain.constant(np.full(count, -1 / count, logits.dtype))
    loss = chain.emit(kernel, (scores, places, weights), (), scratch=[((count,), logits.dtype)])
    return loss.linked((logits, vjp))


def _places(chain: Chain, labels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Where element [i, labels[i]] stands in a flat array of `shape`; (n,) int64."""
    xp, (count, classes) = chain.xp, shape

    def kernel(labels: Any, rows: Any, out: Any) -> None:
        namespace.check_indices(xp, "softmax_cross_entropy", labels, 0, classes)
        xp.add(labels, rows, out)

    rows = chain.constant(np.arange(0, count * classes, classes))
    return chain.emit(kernel, (labels, rows), (count,), np.int64)


def mean_squared_error(predicted: Operand, target: Operand) -> Tensor:
    """mean((predicted - target) ** 2) over all elements; the shapes are equal, nothing is broadcast."""
    predicted, target = floats("mean_squared_error", predicted, target)
    if predicted.shape != target.shape:
        raise ValueError(
            f"mean_squared_error: expected two equal shapes, found {predicted.shape} and {target.shape}; reshape one"
        )
    difference = subtract(detached(predicted), detached(target))
    loss = mean(elementwise("square", difference))
    slope = 2 / math.prod(predicted.shape)

    def vjp(g: Tensor) -> Tensor:
        return multiply(difference, multiply(g, slope))

    return loss.linked((predicted, vjp), (target, lambda g: negative(vjp(g))))
