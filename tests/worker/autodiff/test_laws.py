"""The laws of differentiation, and those of recording and replaying."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_worker import autodiff as ad

Params = dict[str, Any]
seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=20, deadline=None)


def params(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((4, 4)) for name in ("W1", "W2", "W3")}


def f(p: Params) -> ad.Tensor:
    return ad.tanh(p["W1"] @ ad.sigmoid(p["W2"])).sum()


def g(p: Params) -> ad.Tensor:
    return (p["W2"] * ad.exp(p["W3"] * 0.1)).mean() + (p["W1"][1] ** 2).sum()


def same(a: Params, b: Params) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in a)


def close(a: Params, b: Params) -> None:
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_chain_rule() -> None:
    """f(W1, W2, W3) = a(W1, b(W2, c(W3))): the gradient is the product of the Jacobians of a, b and c, by hand.

    c(W3) = relu(X W3), b(W2, z) = relu(z W2), a(W1, z) = mean((z W1 - Y)**2)
    """
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 5)), rng.standard_normal((6, 2))
    W3, W2, W1 = rng.standard_normal((5, 4)), rng.standard_normal((4, 3)), rng.standard_normal((3, 2))

    def c(W3: Any) -> ad.Tensor:
        return ad.relu(X @ W3)

    def b(W2: Any, z: Any) -> ad.Tensor:
        return ad.relu(z @ W2)

    def a(W1: Any, z: Any) -> ad.Tensor:
        return ad.mean_squared_error(z @ W1, Y)

    value, gradient = ad.value_and_grad(lambda p: a(p["W1"], b(p["W2"], c(p["W3"]))))({"W1": W1, "W2": W2, "W3": W3})

    z3 = np.maximum(X @ W3, 0)
    z2 = np.maximum(z3 @ W2, 0)
    error = z2 @ W1 - Y
    da = 2 * error / error.size
    db = (da @ W1.T) * (z2 > 0)
    dc = (db @ W2.T) * (z3 > 0)
    assert value == pytest.approx((error**2).mean(), rel=1e-14)
    close(gradient, {"W1": z2.T @ da, "W2": z3.T @ db, "W3": X.T @ dc})


@given(seeds, st.floats(-3, 3), st.floats(-3, 3))
@examples
def test_the_gradient_is_linear(seed: int, alpha: float, beta: float) -> None:
    """grad(alpha f + beta g) = alpha grad(f) + beta grad(g)."""
    p = params(seed)
    whole, df, dg = ad.grad(lambda p: alpha * f(p) + g(p) * beta)(p), ad.grad(f)(p), ad.grad(g)(p)
    close(whole, {name: alpha * df[name] + beta * dg[name] for name in p})


@given(seeds)
@examples
def test_the_product_rule(seed: int) -> None:
    """grad(f g) = f grad(g) + g grad(f)."""
    p = params(seed)
    (vf, df), (vg, dg) = ad.value_and_grad(f)(p), ad.value_and_grad(g)(p)
    close(ad.grad(lambda p: f(p) * g(p))(p), {name: vf * dg[name] + vg * df[name] for name in p})


@given(seeds, st.floats(-4, 4))
@examples
def test_the_seed_scales_the_gradient(seed: int, cotangent: float) -> None:
    """A seed multiplies the gradient, not the value, and needs no new recording."""
    p, vg = params(seed), ad.value_and_grad(f)
    value, gradient = vg(p)
    scaled_value, scaled = vg(p, seed=cotangent)
    assert scaled_value == value
    close(scaled, {name: cotangent * gradient[name] for name in p})
    assert len(vg._recordings) == 1


def test_microbatches_add_up_to_the_batch() -> None:
    """With seed n / B for a microbatch of n out of B, the gradients sum to that of the batch."""
    rng = np.random.default_rng(0)
    p, x, y = {"W": rng.standard_normal((5, 3))}, rng.standard_normal((10, 5)), rng.integers(0, 3, 10)
    grad = ad.grad(lambda p, x, y: ad.softmax_cross_entropy(x @ p["W"], y))
    parts = [grad(p, x[a:b], y[a:b], seed=(b - a) / 10)["W"] for a, b in [(0, 3), (3, 6), (6, 10)]]
    close({"W": sum(parts)}, grad(p, x, y))


@given(seeds)
@examples
def test_a_replay_repeats_the_recording_bit_for_bit(seed: int) -> None:
    """The first call, later calls, and calls with other values in between: same inputs, same bits."""
    p, vg = params(seed), ad.value_and_grad(lambda p: f(p) + g(p))
    first = vg(p)
    vg(params(seed + 1))
    again = vg(p)
    fresh = ad.value_and_grad(lambda p: f(p) + g(p))(p)
    assert first[0] == again[0] == fresh[0]
    assert same(first[1], again[1])
    assert same(first[1], fresh[1])


@given(seeds)
@examples
def test_a_gradient_is_the_sum_over_all_uses(seed: int) -> None:
    """A parameter used in three places has the gradient of three parameters with its value, added."""
    p = params(seed)

    def uses(a: Any, b: Any, c: Any) -> ad.Tensor:
        return (ad.tanh(a @ b) * c + a).sum()

    shared = ad.grad(lambda q: uses(q["W1"], q["W1"], q["W1"]))({"W1": p["W1"]})["W1"]
    apart = ad.grad(lambda q: uses(q["a"], q["b"], q["c"]))(dict.fromkeys("abc", p["W1"]))
    close({"W1": shared}, {"W1": apart["a"] + apart["b"] + apart["c"]})


@pytest.mark.parametrize("fn", [f, g, lambda p: f(p) * g(p)])
def test_grad_forward_and_value_and_grad_agree(fn: Callable[..., ad.Tensor]) -> None:
    """The three compute the same bits."""
    p = params(0)
    value, gradient = ad.value_and_grad(fn)(p)
    assert float(ad.forward(fn)(p)) == value
    assert same(ad.grad(fn)(p), gradient)


def test_float32_is_float64_rounded() -> None:
    """In float32 the value and gradient are those of float64 to single precision, and float32."""
    double = params(0)
    single = {name: array.astype(np.float32) for name, array in double.items()}
    value, gradient = ad.value_and_grad(f)(single)
    exact, expected = ad.value_and_grad(f)(double)
    assert value == pytest.approx(exact, rel=1e-5)
    for name in double:
        assert gradient[name].dtype == np.float32
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-4, atol=1e-6)
