"""Losses: by hand, stable, and clear about wrong input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad


def cross_entropy(p: dict[str, Any], labels: Any) -> ad.Tensor:
    return ad.softmax_cross_entropy(p["logits"], labels)


def test_cross_entropy_by_hand() -> None:
    """Two samples, two classes: the mean of log(1 + exp(other - own)), and (softmax - one-hot) / 2 as its gradient."""
    logits = np.array([[0.0, math.log(3)], [math.log(4), 0.0]])
    value, gradient = ad.value_and_grad(cross_entropy)({"logits": logits}, np.array([1, 1]))
    assert value == pytest.approx((math.log(4 / 3) + math.log(5)) / 2)
    np.testing.assert_allclose(gradient["logits"], [[1 / 8, -1 / 8], [2 / 5, -2 / 5]], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_the_gradient_of_cross_entropy(dtype: type, check_gradient: Callable[..., Any]) -> None:
    """It is that of central differences, for labels of any integer dtype and for n = 1, c = 1 too."""
    rng = np.random.default_rng(0)
    for n, c in [(5, 4), (1, 3), (3, 1)]:
        check_gradient(cross_entropy, {"logits": rng.standard_normal((n, c))}, rng.integers(0, c, n).astype(dtype))


def test_the_cross_entropy_of_sequences_is_the_mean_over_all_positions(check_gradient: Callable[..., Any]) -> None:
    """(n, positions, c) against (n, positions) is what the same rows give as (n * positions, c)."""
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((3, 4, 5)), rng.integers(0, 5, (3, 4))
    flat = ad.value_and_grad(cross_entropy)({"logits": logits.reshape(12, 5)}, labels.reshape(12))
    value, gradient = ad.value_and_grad(cross_entropy)({"logits": logits}, labels)
    assert value == flat[0]
    np.testing.assert_array_equal(gradient["logits"].reshape(12, 5), flat[1]["logits"])
    check_gradient(cross_entropy, {"logits": logits}, labels)


def test_cross_entropy_is_stable() -> None:
    """Logits far apart give the exact loss and a finite gradient, in float32."""
    logits = np.array([[1e4, 0.0], [-1e4, 0.0]], np.float32)
    value, gradient = ad.value_and_grad(cross_entropy)({"logits": logits}, np.array([1, 1]))
    assert value == 5000
    assert gradient["logits"].tolist() == [[0.5, -0.5], [0, 0]]


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_label_out_of_range_is_refused_at_each_replay(label: int) -> None:
    """A wrong label in a later batch raises IndexError with the range and the label, and does no harm."""
    vg, params = ad.value_and_grad(cross_entropy), {"logits": np.zeros((2, 3))}
    before = vg(params, np.array([0, 2]))[0]
    with pytest.raises(IndexError, match=rf"softmax_cross_entropy: .*\[0, 3\), found {label}"):
        vg(params, np.array([0, label]))
    assert vg(params, np.array([0, 2]))[0] == before


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ((4, 3), np.zeros(4), TypeError, "integer labels, found float64"),
        ((4, 3), np.zeros(5, int), ValueError, r"\(n, c\) and labels \(n,\), or .* found \(4, 3\) and \(5,\)"),
        ((4, 3, 2), np.zeros(12, int), ValueError, r"found \(4, 3, 2\) and \(12,\)"),
        ((4, 3), np.zeros((4, 1), int), ValueError, r"found \(4, 3\) and \(4, 1\)"),
        ((4,), np.zeros(4, int), ValueError, r"found \(4,\) and \(4,\)"),
        ((0, 3), np.zeros(0, int), ValueError, r"found \(0, 3\)"),
    ],
)
def test_wrong_logits_and_labels_are_named(logits: Any, labels: Any, error: Any, message: str) -> None:
    """A wrong dtype or shape is refused when it is recorded, with what was found."""
    with pytest.raises(error, match=message):
        ad.grad(cross_entropy)({"logits": np.ones(logits)}, labels)


def test_mean_squared_error_does_not_broadcast() -> None:
    """(n, 1) against (n,) would broadcast to (n, n), which is never meant; it is refused."""
    with pytest.raises(ValueError, match=r"mean_squared_error: .*found \(3, 1\) and \(3,\)"):
        ad.grad(lambda p, y: ad.mean_squared_error(p["x"], y))({"x": np.ones((3, 1))}, np.ones(3))


def test_mean_squared_error_by_hand() -> None:
    """((1 - 3)**2 + (2 - 2)**2) / 2 = 2, with slope 2 * difference / n."""
    value, gradient = ad.value_and_grad(lambda p, y: ad.mean_squared_error(p["x"], y))(
        {"x": np.array([1.0, 2.0])}, np.array([3.0, 2.0])
    )
    assert (value, gradient["x"].tolist()) == (2, [-2, 0])
