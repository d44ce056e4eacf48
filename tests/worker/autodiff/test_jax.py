"""Values and gradients against JAX, in float64: each composite operation, and random compositions.

pytest -m compare tests/worker/autodiff/test_jax.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad

pytestmark = pytest.mark.compare
jax = pytest.importorskip("jax", reason="JAX is in the extra 'compare': pip install 'thalweg[compare]'")
jnp = jax.numpy


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def agree(ours: Callable[..., Any], theirs: Callable[..., Any], params: dict[str, np.ndarray], *args: Any) -> None:
    value, gradient = ad.value_and_grad(ours)(params, *args)
    expected_value, expected = jax.value_and_grad(theirs)({k: jnp.asarray(p) for k, p in params.items()}, *args)
    np.testing.assert_allclose(value, expected_value, rtol=1e-10)
    for name in params:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-8, atol=1e-10, err_msg=name)


def jax_max_pool(x: Any) -> Any:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 2, 1), (1, 2, 2, 1), "VALID")


def jax_average_pool(x: Any) -> Any:
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 2, 1), (1, 2, 2, 1), "VALID") / 6


def jax_layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (1, 1)), ((2, 4), (2, 2)), ((4, 3), (1, 3)), ((1, 1), (2, 1))])
def test_conv2d_is_that_of_jax(padding: Any, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """conv2d, followed by relu, equals conv_general_dilated for NHWC images and HWIO kernels."""
    rng = np.random.default_rng(0)
    p = {"x": rng.standard_normal((2, 7, 8, 3)), "w": rng.standard_normal((*kernel, 3, 4))}

    def theirs(p: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            p["x"], p["w"], stride, padding.upper(), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (jax.nn.relu(y) ** 2).mean()

    agree(lambda p: (ad.relu(ad.conv2d(p["x"], p["w"], stride, padding)) ** 2).mean(), theirs, p)


def test_pooling_is_that_of_jax() -> None:
    """Overlapping and uneven windows, with equal pixels among them."""
    x = np.random.default_rng(0).integers(0, 4, (2, 7, 9, 3)).astype(float)
    agree(
        lambda p: (ad.max_pool2d(p["x"], (3, 2), 2) ** 2).mean(), lambda p: (jax_max_pool(p["x"]) ** 2).mean(), {"x": x}
    )
    agree(
        lambda p: (ad.average_pool2d(p["x"], (3, 2), 2) ** 2).mean(),
        lambda p: (jax_average_pool(p["x"]) ** 2).mean(),
        {"x": x},
    )


def test_a_transformer_block_is_that_of_jax() -> None:
    """Embedding, attention, layer norm, residuals and cross-entropy, together."""
    rng = np.random.default_rng(0)
    shapes = {
        "table": (11, 8),
        "q": (8, 8),
        "k": (8, 8),
        "v": (8, 8),
        "scale": 8,
        "bias": 8,
        "up": (8, 16),
        "down": (16, 8),
    }
    p = {name: rng.standard_normal(shape) * 0.5 for name, shape in shapes.items()}
    tokens, labels = rng.integers(0, 11, (4, 6)), rng.integers(0, 11, 24)

    def block(p: Any, tokens: Any, labels: Any, o: SimpleNamespace) -> Any:
        h = o.embedding(p["table"], tokens)
        q, k, v = h @ p["q"], h @ p["k"], h @ p["v"]
        halves = [slice(0, 4), slice(4, 8)]
        heads = [o.softmax(q[..., i] @ k[..., i].transpose(0, 2, 1) * 0.5) @ v[..., i] for i in halves]
        h = o.layer_norm(h + o.concatenate(heads, -1), p["scale"], p["bias"])
        h = h + o.tanh(h @ p["up"]) @ p["down"]
        return o.cross_entropy(h.reshape(-1, 8) @ p["table"].T, labels)

    ours = SimpleNamespace(
        embedding=ad.embedding,
        softmax=lambda x: ad.exp(ad.log_softmax(x)),
        layer_norm=ad.layer_norm,
        concatenate=ad.concatenate,
        tanh=ad.tanh,
        cross_entropy=ad.softmax_cross_entropy,
    )
    theirs = SimpleNamespace(
        embedding=lambda table, tokens: table[tokens],
        softmax=jax.nn.softmax,
        layer_norm=jax_layer_norm,
        concatenate=jnp.concatenate,
        tanh=jnp.tanh,
        cross_entropy=lambda x, labels: -jax.nn.log_softmax(x)[jnp.arange(len(labels)), labels].mean(),
    )
    agree(lambda *args: block(*args, ours), lambda *args: block(*args, theirs), p, tokens, labels)


# Each takes and gives square matrices: (arity, ours, JAX's).
OPERATIONS: list[tuple[int, Callable[..., Any], Callable[..., Any]]] = [
    (2, ad.add, jnp.add),
    (2, ad.subtract, jnp.subtract),
    (2, ad.multiply, jnp.multiply),
    (2, lambda a, b: a / (b**2 + 1), lambda a, b: a / (b**2 + 1)),
    (2, lambda a, b: a @ b, lambda a, b: a @ b),
    (2, lambda a, b: a.T @ b[::-1], lambda a, b: a.T @ b[::-1]),
    (2, lambda a, b: ad.where(a > b, a, 0.5 * b), lambda a, b: jnp.where(a > b, a, 0.5 * b)),
    (2, lambda a, b: a + b[0] + b[:, 1:2], lambda a, b: a + b[0] + b[:, 1:2]),
    (2, lambda a, b: ad.concatenate([a[1:], b[:1]]), lambda a, b: jnp.concatenate([a[1:], b[:1]])),
    (1, lambda a: ad.exp(-(a**2)), lambda a: jnp.exp(-(a**2))),
    (1, lambda a: ad.log(a**2 + 1), lambda a: jnp.log(a**2 + 1)),
    (1, lambda a: ad.sqrt(a * a + 2), lambda a: jnp.sqrt(a * a + 2)),
    (1, lambda a: (a * a + 1) ** -1.5, lambda a: (a * a + 1) ** -1.5),
    (1, ad.tanh, jnp.tanh),
    (1, ad.sigmoid, jax.nn.sigmoid),
    (1, ad.relu, jax.nn.relu),
    (1, ad.log_softmax, jax.nn.log_softmax),
    (1, lambda a: a - a.mean(0), lambda a: a - a.mean(0)),
    (1, lambda a: a.sum(1, keepdims=True) - a, lambda a: a.sum(1, keepdims=True) - a),
    (1, lambda a: a - a.max(1, True), lambda a: a - a.max(1, keepdims=True)),
    (1, lambda a: a[[2, 0, 0, 3]], lambda a: a[jnp.array([2, 0, 0, 3])]),
    (1, *[lambda a: a.reshape(2, 2, 4).transpose(1, 0, 2).reshape(4, 4)] * 2),
    (1, lambda a: ad.layer_norm(a, np.ones(4), np.zeros(4)), lambda a: jax_layer_norm(a, 1.0, 0.0)),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(25))
def test_a_random_composition_is_that_of_jax(seed: int) -> None:
    """Up to 12 operations on randomly chosen earlier results."""
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal((4, 4)) for name in "abc"}
    program = []
    for i in range(rng.integers(3, 13)):
        arity, ours, theirs = OPERATIONS[rng.integers(len(OPERATIONS))]
        program.append((ours, theirs, rng.integers(0, 3 + i, arity)))
    weights = rng.standard_normal((3 + len(program), 4, 4))

    def composed(which: int) -> Callable[[Any], Any]:
        def fn(p: Any) -> Any:
            pool = [p["a"], p["b"], p["c"]]
            for step in program:
                pool.append(step[which](*(pool[place] for place in step[2])))
            return sum(((x * w).sum() for x, w in zip(pool, weights, strict=True)), 0.0)

        return fn

    agree(composed(0), composed(1), params)
