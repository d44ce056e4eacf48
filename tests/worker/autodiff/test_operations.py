"""Each operation: its value is NumPy's and its gradient is that of central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thalweg_worker import autodiff as ad

# name: (function of tensors, the same in NumPy, shapes of the parameters)
SMOOTH: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]] = {
    "add": (ad.add, np.add, [(3, 4), (3, 4)]),
    "add_broadcast": (ad.add, np.add, [(2, 3, 4), (3, 1)]),
    "add_scalar_left": (lambda x: 2 + x, lambda x: 2 + x, [(3,)]),
    "add_row": (ad.add, np.add, [(5, 4), (4,)]),
    "add_row_of_one_row": (ad.add, np.add, [(5, 4), (1, 4)]),
    "subtract": (ad.subtract, np.subtract, [(3, 4), (1, 4)]),
    "subtract_from_number": (lambda x: 1 - x, lambda x: 1 - x, [(2, 3)]),
    "multiply": (ad.multiply, np.multiply, [(3, 1), (1, 4)]),
    "multiply_scalar_tensor": (ad.multiply, np.multiply, [(), (3, 4)]),
    "divide": (ad.divide, np.divide, [(3, 4), (3, 4)]),
    "divide_broadcast": (ad.divide, np.divide, [(4,), (3, 1)]),
    "divide_number": (lambda x: 3 / x, lambda x: 3 / x, [(4,)]),
    "negative": (lambda x: -x, np.negative, [(3,)]),
    "power_2": (lambda x: x**2, lambda x: x**2, [(3, 4)]),
    "power_3": (lambda x: x**3, lambda x: x**3, [(3, 4)]),
    "power_half": (lambda x: x**0.5, lambda x: x**0.5, [(3, 4)]),
    "power_minus_1": (lambda x: x**-1, lambda x: x**-1.0, [(3, 4)]),
    "power_0": (lambda x: x**0, lambda x: x**0.0, [(3,)]),
    "power_of_number": (lambda x: 2**x, lambda x: 2**x, [(3,)]),
    "power_tensor": (ad.power, np.power, [(3, 4), (4,)]),
    "exp": (ad.exp, np.exp, [(3, 4)]),
    "log": (ad.log, np.log, [(3, 4)]),
    "sqrt": (ad.sqrt, np.sqrt, [(3, 4)]),
    "tanh": (ad.tanh, np.tanh, [(3, 4)]),
    "sigmoid": (ad.sigmoid, lambda x: 1 / (1 + np.exp(-x)), [(3, 4)]),
    "sum": (lambda x: x.sum(), np.sum, [(3, 4)]),
    "sum_axis": (lambda x: x.sum(0), lambda x: x.sum(0), [(3, 4)]),
    "sum_last_kept": (lambda x: x.sum(-1, keepdims=True), lambda x: x.sum(-1, keepdims=True), [(3, 4)]),
    "sum_axes": (lambda x: x.sum((0, 2)), lambda x: x.sum((0, 2)), [(2, 3, 4)]),
    "mean": (ad.mean, np.mean, [(3, 4)]),
    "mean_axis": (lambda x: x.mean(1), lambda x: x.mean(1), [(3, 4, 2)]),
    "max": (ad.max, np.max, [(3, 4)]),
    "max_axis": (lambda x: x.max(1), lambda x: x.max(1), [(3, 4)]),
    "max_axes_kept": (lambda x: x.max((0, 1), True), lambda x: x.max((0, 1), keepdims=True), [(3, 4, 2)]),
    "reshape": (lambda x: x.reshape(2, -1), lambda x: x.reshape(2, -1), [(3, 4)]),
    "reshape_turned": (lambda x: x.T.reshape(12), lambda x: x.T.reshape(12), [(3, 4)]),
    "reshape_scalar": (lambda x: x.reshape(()), lambda x: x.reshape(()), [(1, 1)]),
    "transpose": (lambda x: x.T, np.transpose, [(3, 4)]),
    "transpose_axes": (lambda x: x.transpose(2, 0, 1), lambda x: x.transpose(2, 0, 1), [(2, 3, 4)]),
    "index_number": (lambda x: x[1], lambda x: x[1], [(3, 4)]),
    "index_slices": (lambda x: x[1:, ::2], lambda x: x[1:, ::2], [(3, 4)]),
    "index_backwards": (lambda x: x[..., ::-1], lambda x: x[..., ::-1], [(3, 4)]),
    "index_new_axis": (lambda x: x[:, None, -1], lambda x: x[:, None, -1], [(3, 4)]),
    "index_rows": (lambda x: x[[2, 0, 2, -1]], lambda x: x[[2, 0, 2, -1]], [(3, 4)]),
    "index_pairs": (lambda x: x[[0, 1, 1], [3, 2, 2]], lambda x: x[[0, 1, 1], [3, 2, 2]], [(3, 4)]),
    "index_mixed": (lambda x: x[:, [1, 1, 0]], lambda x: x[:, [1, 1, 0]], [(3, 4)]),
    "iterate": (lambda x: sum(a * i for i, a in enumerate(x)), lambda x: x[1] + 2 * x[2], [(3, 4)]),
    "concatenate": (lambda *xs: ad.concatenate(xs), lambda *xs: np.concatenate(xs), [(2, 3), (1, 3), (4, 3)]),
    "concatenate_last": (lambda *xs: ad.concatenate(xs, -1), lambda *xs: np.concatenate(xs, -1), [(2, 3), (2, 1)]),
    "matmul": (ad.matmul, np.matmul, [(3, 4), (4, 2)]),
    "matmul_turned": (lambda a, b: a @ b.T, lambda a, b: a @ b.T, [(3, 4), (2, 4)]),
    "matmul_both_turned": (lambda a, b: a.T @ b.T, lambda a, b: a.T @ b.T, [(4, 3), (2, 4)]),
    "matmul_with_itself": (lambda a: a.T @ a, lambda a: a.T @ a, [(3, 2)]),
    "matmul_vectors": (ad.matmul, np.matmul, [(4,), (4,)]),
    "matmul_vector_left": (ad.matmul, np.matmul, [(4,), (4, 2)]),
    "matmul_vector_right": (ad.matmul, np.matmul, [(3, 4), (4,)]),
    "matmul_rows": (ad.matmul, np.matmul, [(2, 3, 4), (4, 5)]),
    "matmul_batched": (ad.matmul, np.matmul, [(2, 3, 4), (2, 4, 5)]),
    "matmul_broadcast": (ad.matmul, np.matmul, [(2, 1, 3, 4), (5, 4, 2)]),
    "matmul_batched_vector": (ad.matmul, np.matmul, [(2, 3, 4), (4,)]),
    "matmul_batched_turned": (
        lambda a, b: a @ b.transpose(0, 2, 1),
        lambda a, b: a @ b.transpose(0, 2, 1),
        [(2, 3, 4), (2, 5, 4)],
    ),
    "where": (lambda a, b: ad.where(a > 1, a, b), lambda a, b: np.where(a > 1, a, b), [(3, 4), (4,)]),
    "where_number": (lambda a: ad.where(a <= 1, 0.0, a), lambda a: np.where(a <= 1, 0.0, a), [(3, 4)]),
    "log_softmax": (ad.log_softmax, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)), [(3, 4)]),
    "log_softmax_of_turned": (lambda x: ad.log_softmax(x.T).T, lambda x: x - np.log(np.exp(x).sum(0)), [(3, 4)]),
    "layer_norm": (
        ad.layer_norm,
        lambda x, s, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * s + b,
        [(2, 3, 5), (5,), (5,)],
    ),
    "mean_squared_error": (ad.mean_squared_error, lambda a, b: ((a - b) ** 2).mean(), [(3, 2), (3, 2)]),
}  # fmt: skip


def draw(shapes: list[tuple[int, ...]], seed: int = 0) -> list[np.ndarray]:
    """Numbers in [0.5, 2.5], where every operation above is smooth."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(0.5, 2.5, shape) for shape in shapes]


@pytest.mark.parametrize("name", SMOOTH)
def test_an_operation_has_numpys_value(name: str) -> None:
    """The replayed value is NumPy's, in shape and to rounding."""
    ours, numpys, shapes = SMOOTH[name]
    arrays = draw(shapes)
    params = {str(i): a for i, a in enumerate(arrays)}
    found, expected = ad.forward(lambda p: ours(*p.values()))(params), numpys(*arrays)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("name", SMOOTH)
def test_an_operation_has_the_gradient_of_central_differences(name: str, check_gradient: Callable[..., Any]) -> None:
    """The gradient of a weighted sum of an operation's result is that of central differences."""
    ours, numpys, shapes = SMOOTH[name]
    arrays = draw(shapes)
    weights = np.random.default_rng(1).standard_normal(np.shape(numpys(*arrays)))
    params = {str(i): a for i, a in enumerate(arrays)}
    check_gradient(lambda p: (ours(*p.values()) * weights).sum(), params)


def test_relu_and_its_slope(check_gradient: Callable[..., Any]) -> None:
    """relu is max(x, 0); its slope is 1 above 0, and 0 at and below it."""
    x = np.array([[-2.0, -0.5, 0.3], [1.0, -1.0, 4.0]])
    assert check_gradient(lambda p: ad.relu(p["x"]).sum(), {"x": x})["x"].tolist() == (x > 0).tolist()
    at_zero = ad.value_and_grad(lambda p: ad.relu(p["x"]).sum())({"x": np.array([0.0, -0.0])})
    assert at_zero[0] == 0
    assert at_zero[1]["x"].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (13, 1), (3, 5, 7), (64, 128), (4099,), (2, 4099), (0, 3)])
def test_relu_of_any_shape(shape: tuple[int, ...]) -> None:
    """relu does not depend on how its elements divide into rows."""
    x = np.random.default_rng(0).standard_normal(shape)
    weights = np.random.default_rng(1).standard_normal(shape)
    value = ad.forward(lambda p: ad.relu(p["x"]))({"x": x})
    np.testing.assert_array_equal(value, np.maximum(x, 0))
    gradient = ad.grad(lambda p: (ad.relu(p["x"]) * weights).sum())({"x": x})["x"]
    np.testing.assert_array_equal(gradient, np.where(x > 0, weights, 0))


def test_relu_keeps_nan_and_infinity() -> None:
    """A NaN stays one, so that a run which has gone wrong is seen."""
    x = np.array([np.nan, -np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(ad.forward(lambda p: ad.relu(p["x"]))({"x": x}), [np.nan, np.nan, np.inf, 0])


def test_sigmoid_and_log_softmax_do_not_overflow() -> None:
    """Large arguments give the limits, not NaN."""
    x = np.array([[-1000.0, 0.0, 1000.0]])
    assert ad.forward(lambda p: ad.sigmoid(p["x"]))({"x": x}).tolist() == [[0, 0.5, 1]]
    assert ad.forward(lambda p: ad.log_softmax(p["x"]))({"x": x}).tolist() == [[-2000, -1000, 0]]


def test_equal_maxima_share_the_cotangent() -> None:
    """Where an element is as large as another the gradient of max is divided equally, as in JAX."""
    gradient = ad.grad(lambda p: ad.max(p["x"]))({"x": np.array([1.0, 3.0, 3.0, 2.0])})
    assert gradient["x"].tolist() == [0, 0.5, 0.5, 0]


def test_power_at_zero() -> None:
    """x**0 has slope 0, x**1 has slope 1 and 0**p has no slope in p, also at x = 0."""
    x = {"x": np.zeros(1)}
    assert ad.grad(lambda p: (p["x"] ** 0).sum())(x)["x"] == 0
    assert ad.grad(lambda p: (p["x"] ** 1).sum())(x)["x"] == 1
    assert ad.grad(lambda p: ad.power(np.zeros(1), p["p"]).sum())({"p": np.ones(1)})["p"] == 0


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_embedding_adds_up_repeated_rows(dtype: type, check_gradient: Callable[..., Any]) -> None:
    """The gradient of a table is the sum over the uses of each row, and 0 for a row that is not used."""
    table = np.random.default_rng(0).standard_normal((5, 3))
    tokens = np.array([[4, 1, 1], [1, 0, 4]], dtype)
    weights = np.random.default_rng(1).standard_normal((2, 3, 3))
    found = check_gradient(lambda p, t: (ad.embedding(p["t"], t) * weights).sum(), {"t": table}, tokens)["t"]
    expected = np.zeros_like(table)
    for place in np.ndindex(tokens.shape):
        expected[tokens[place]] += weights[place]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_index_by_tensors(check_gradient: Callable[..., Any]) -> None:
    """Integer arrays that are arguments are bound anew at each call, alone and in a tuple."""

    def fn(p: dict[str, ad.Tensor], rows: ad.Tensor, columns: ad.Tensor) -> ad.Tensor:
        return (p["x"][rows, columns] * p["x"][rows][:, 0] ** 2).sum()

    x = {"x": np.random.default_rng(0).standard_normal((4, 3))}
    gradient = ad.grad(fn)
    for rows, columns in [([0, 3, 3], [1, 2, 2]), ([1, 1, 0], [0, 0, 2])]:
        expected = check_gradient(fn, x, np.array(rows), np.array(columns))["x"]
        np.testing.assert_array_equal(gradient(x, np.array(rows), np.array(columns))["x"], expected)


def test_integers_become_floats_in_arithmetic_with_floats() -> None:
    """Integer and bool arguments count as numbers; between integers the arithmetic stays integral."""
    p, i = {"x": np.ones(3, np.float32)}, np.array([2, 0, 1])
    result = ad.forward(lambda p, i, m: p["x"] * i + m)(p, i, np.array([True, False, True]))
    assert (result.dtype, result.tolist()) == (np.float32, [3, 0, 2])
    assert ad.forward(lambda p, i: p["x"][i + 1 - 1])(p, i).tolist() == [1, 1, 1]


shapes = hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=3)


@given(shapes, st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_gradient_of_broadcasting_is_the_sum_over_what_was_repeated(
    drawn: hnp.BroadcastableShapes, seed: int
) -> None:
    """For any shapes that broadcast, d sum(w * (a + b * c)) has each operand's shape, and the loop's value."""
    rng = np.random.default_rng(seed)
    a, b, c = (rng.standard_normal(shape) for shape in drawn.input_shapes)
    w = rng.standard_normal(drawn.result_shape)
    found = ad.grad(lambda p: ((p["a"] + p["b"] * p["c"]) * w).sum())({"a": a, "b": b, "c": c})
    for name, operand, term in (("a", a, w), ("b", b, np.asarray(w * c)), ("c", c, np.asarray(w * b))):
        expected = np.zeros(operand.shape)
        for place in np.ndindex(w.shape):
            inner = place[len(place) - operand.ndim :]
            expected[tuple(0 if length == 1 else i for length, i in zip(operand.shape, inner, strict=True))] += term[
                place
            ]
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-12)
